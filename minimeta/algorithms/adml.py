"""ADML: adversarial meta-learning (Yin, Tang, Xu and Wang 2018), and its attack."""

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
    """MAML that adapts on clean data and is scored on adversarial data, and the other way round.

    Let x' be the inputs x of a mini-batch as ``fgsm`` moves them at phi, by at most
    ``eps`` and into [``low``, ``high``]. Two inner loops start from phi. One adapts on
    the clean mini-batches 1 .. k-1 and scores on the adversarial k. The other adapts on
    the adversarial 1 .. k-1 and scores on the clean k. With L_i on x and L'_i on x',

        F(phi) = L'_k(phi_clean) + L_k(phi_adv),
        phi_clean = U^{k-1}(phi) by L_1 .. L_{k-1},      phi_adv = U^{k-1}(phi) by L'_1 .. L'_{k-1}.

    The direction is dF/dphi: MAML's of the first loop plus MAML's of the second. The
    loss is F, their sum. (The paper makes two outer steps, one after the other.) With
    ``eps`` 0, and x within [``low``, ``high``], the two loops are one: twice MAML's
    direction, and twice its loss.

    The x' are held constant, though phi determines them. Nothing is lost: they depend
    on phi through signs alone, whose derivative is 0 except where a component of dL/dx
    changes sign. So almost everywhere the direction is exactly dF/dphi.

    The rule's state is that after the clean loop: the state that carries over to the
    next tasks, and to evaluation, comes from true data. ``adapt`` is MAML's, on the data
    it is given; for an attacked task, give it the mini-batches that ``fgsm`` returns.
    """

    eps: float = setting(
        0.1,
        "ADML: how far adversarial inputs move, in pixels from 0 to 1 or in x from -5 to 5",
        flag="attack",
        least=0,
    )
    low: float = setting(
        -inf, "ADML: least input; by default the least of the task", flag="attack_low"
    )
    high: float = setting(
        inf, "ADML: largest input; by default the largest of the task", flag="attack_high"
    )
    least_k: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_box(self.eps, self.low, self.high)

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``."""
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
        """With the range of the task's inputs where it has none of its own."""
        low = plan.inputs[0] if isinf(self.low) else self.low
        high = plan.inputs[1] if isinf(self.high) else self.high
        if not 0 < self.eps < high - low:
            raise SettingsError(
                "adml moves inputs by more than 0 and less than their range is wide, "
                f"{high - low:g}: set attack to about 0.1, got {self.eps}"
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
    """The fast gradient sign method (Goodfellow, Shlens and Szegedy 2015): inputs x' within ``eps``
    of x, of a larger loss.

    To first order the loss at x' exceeds that at x by <dL/dx, x' - x>. A sum of one term
    an input is largest, over the box |x' - x| <= eps, where each is: at the end of the
    box to which the sign of its slope points. So also within [low, high],

        x' = clip(x + eps sign(dL/dx), low, high),

    and without a clip L(x') = L(x) + eps sum |dL/dx| + O(eps^2). An input with slope 0
    stays. An x outside [low, high] is brought inside. ``phi: (D,) or (T, D)`` may be
    ``adapt``'s, to see how robust it is. x' has the dtype of phi.

    Raises
    ------
    SettingsError
        if eps is negative or not finite, low is not below high, or the points of
        ``objective`` have no ``input_grad``.
    """
    _require_box(eps, low, high)
    xp, point = array_module(phi), objective.at(phi, batch)
    why = "an attack needs dL/dx, a point's input_grad"
    slope = asked(point, HasInputGradient, why, of=objective).input_grad()
    # eps is a Python number: a NumPy one would upcast a float32 x. The sign is that
    # of the real part: the imaginary part of the complex step is no size.
    x = as_inputs(batch[0], phi.dtype) + float(eps) * xp.sign(slope.real)
    x = xp.where(x.real < low, float(low), x)
    return xp.where(x.real > high, float(high), x), batch[1]


def _require_box(eps: float, low: float, high: float) -> None:
    """Raise the SettingsError of an attack with no box to move in."""
    if not 0 <= eps < inf:
        raise SettingsError(
            f"an attack's eps must be 0 or more and finite, got {eps}: "
            "use a small part of the inputs' range"
        )
    if not low < high:
        raise SettingsError(
            f"an attack needs low < high, got {low} and {high}: "
            "use the inputs' range, such as 0 and 1"
        )
