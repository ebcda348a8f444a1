"""ADML: adversarial meta-learning (Yin, Tang, Xu and Wang 2018), and its
attack."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isinf
from typing import ClassVar

from ..arrays.backend import Array, array_module
from ..errors import SettingsError
from ..objectives import Batch, Differentiable, HasInputGradient, as_inputs, asked
from ..registry import setting
from .base import ALGORITHMS, Outcome, require_minibatches
from .maml import MAML


@ALGORITHMS.register("adml")
@dataclass(frozen=True)
class ADML(MAML):
    """MAML with clean and adversarial data, each scoring the other's
    adaptation.

    Let x be the inputs of a mini-batch. Let x' be the inputs to which ``fgsm``
    moves them at phi, by at most ``eps`` and into [``low``, ``high``]. Two
    inner loops start from phi. The clean loop adapts on the clean mini-batches
    1 .. k-1 and is scored on the adversarial k. The adversarial loop adapts on
    the adversarial 1 .. k-1 and is scored on the clean k. With L_i the loss on
    x and L'_i the loss on x',

        F(phi) = L'_k(phi_clean) + L_k(phi_adv),
        phi_clean = U^{k-1}(phi) by L_1 .. L_{k-1},
        phi_adv = U^{k-1}(phi) by L'_1 .. L'_{k-1}.

    The direction is dF/dphi, the sum of the two loops' MAML directions. The
    loss is F, the sum of the two loops' losses. (The paper makes two outer
    steps, one after the other.) Where ``eps`` is 0 and x is within [``low``,
    ``high``], the two loops are equal: the direction is twice MAML's, and so is
    the loss.

    The x' are held constant, although they depend on phi. The direction loses
    nothing by this: x' depends on phi through signs alone, and the derivative
    of a sign is 0 except where a component of dL/dx changes sign. So the
    direction is exactly dF/dphi almost everywhere.

    The returned state is the rule's state after the clean loop. The state that
    carries over to the next tasks, and to evaluation, therefore comes from true
    data. ``adapt`` is MAML's, on the mini-batches that it is given. To adapt to
    an attacked task, give it the mini-batches that ``fgsm`` returns.
    """

    eps: float = setting(
        0.1,
        "ADML: largest change of an input, in units of the inputs (pixels from 0 to 1, x from -5 "
        "to 5)",
        flag="attack",
        least=0,
    )
    low: float = setting(
        -inf, "ADML: lowest input; by default the lowest of the task", flag="attack_low"
    )
    high: float = setting(
        inf, "ADML: highest input; by default the highest of the task", flag="attack_high"
    )
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_box(self.eps, self.low, self.high)

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``, and the loss F, ``(T,)``."""
        require_minibatches(minibatches)
        _, phi, _ = self.problem(objective, meta)
        attacked = [
            fgsm(objective, phi, batch, self.eps, self.low, self.high) for batch in minibatches
        ]
        clean_to_attacked = [*minibatches[:-1], attacked[-1]]
        attacked_to_clean = [*attacked[:-1], minibatches[-1]]
        clean = super().direction(objective, meta, clean_to_attacked, state)
        adversarial = super().direction(objective, meta, attacked_to_clean, state)
        return Outcome(
            clean.direction + adversarial.direction, clean.loss + adversarial.loss, clean.state
        )

    def prepared(self, plan):
        """ADML with the task's input range where ``low`` or ``high`` is
        infinite.

        Raises
        ------
        SettingsError
            if eps is not above 0 and below the width of the range.
        """
        low = plan.inputs[0] if isinf(self.low) else self.low
        high = plan.inputs[1] if isinf(self.high) else self.high
        if not 0 < self.eps < high - low:
            raise SettingsError(
                f"adml needs an attack above 0 and below {high - low:g}, the width of the input "
                f"range, got {self.eps}: set attack to about 0.1"
            )
        return replace(super().prepared(plan), low=low, high=high)


def fgsm(
    objective: Differentiable,
    phi: Array,
    batch: Batch,
    eps: float,
    low: float = -inf,
    high: float = inf,
) -> Batch:
    """Inputs x' within ``eps`` of x at which the loss is larger.

    This is the fast gradient sign method (Goodfellow, Shlens and Szegedy 2015).
    To first order the loss at x' exceeds the loss at x by <dL/dx, x' - x>. This
    sum has one term per input. Over the box |x' - x| <= eps the sum is largest
    where every term is largest, at the end of the box to which the sign of the
    term's slope points. The same holds within [low, high], so

        x' = clip(x + eps sign(dL/dx), low, high),

    and without a clip L(x') = L(x) + eps sum |dL/dx| + O(eps^2). An input with
    slope 0 keeps its value. An input outside [low, high] is moved to the nearer
    bound.

    ``phi: (D,) or (T, D)`` may also be adapted parameters, to measure how
    robust they are. The result is (x', y), and x' has the shape of x and the
    dtype of phi.

    Raises
    ------
    SettingsError
        if eps is negative or not finite, if low is not below high, or if the
        points of ``objective`` have no ``input_grad``.
    """
    _require_box(eps, low, high)
    xp, point = array_module(phi), objective.at(phi, batch)
    why = "an attack needs dL/dx, the input_grad of a point"
    slope = asked(point, HasInputGradient, why, of=objective).input_grad()
    # eps becomes a Python number because a NumPy number would upcast a float32
    # x. The sign is taken of the real part because the imaginary part of a
    # complex step carries a derivative.
    x = as_inputs(batch[0], phi.dtype) + float(eps) * xp.sign(slope.real)
    x = xp.where(x.real < low, float(low), x)
    return xp.where(x.real > high, float(high), x), batch[1]


def _require_box(eps: float, low: float, high: float) -> None:
    """Raise a SettingsError unless eps >= 0 is finite and low < high."""
    if not 0 <= eps < inf:
        raise SettingsError(
            f"an attack's eps must be 0 or more and finite, got {eps}: "
            "use a small fraction of the inputs' range"
        )
    if not low < high:
        raise SettingsError(
            f"an attack needs low < high, got {low} and {high}: "
            "use the inputs' range, such as 0 and 1"
        )
