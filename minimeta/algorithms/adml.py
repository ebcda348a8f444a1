"""ADML: adversarial meta-learning (Yin, Tang, Xu and Wang 2018), and the attack that it trains against."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ..arrays.backend import Array, array_module
from ..errors import SettingsError
from ..objectives import Batch, Differentiable, as_inputs
from .base import Outcome, require_minibatches
from .maml import MAML


@dataclass(frozen=True)
class ADML(MAML):
    """MAML that adapts on clean data and is scored on adversarial data, and the other way round.

    Let x' be the inputs x of a mini-batch as ``fgsm`` moves them at phi, by at most ``eps`` and into [``low``, ``high``].
    Two inner loops start from phi: one adapts on the clean mini-batches 1 .. k-1 and scores on the adversarial k, the
    other adapts on the adversarial 1 .. k-1 and scores on the clean k. With L_i on x and L'_i on x',

        F(phi) = L'_k(phi_clean) + L_k(phi_adv),
        phi_clean = U^{k-1}(phi) by L_1 .. L_{k-1},      phi_adv = U^{k-1}(phi) by L'_1 .. L'_{k-1},

    and the direction is dF/dphi, MAML's of the one plus MAML's of the other; the loss is F, their sum. (The paper makes two
    outer steps, one after the other.) With ``eps`` 0, and x within [``low``, ``high``], the two are one: twice MAML's
    direction, and twice its loss.

    The x' are held constant, though they come from phi. That loses nothing: they depend on it through signs alone, whose
    derivative is 0 but where a component of dL/dx changes sign. So almost everywhere the direction is exactly dF/dphi.

    The rule's state is that after the clean loop: what carries over to the next tasks, and to evaluation, is of true data.
    ``adapt`` is MAML's, on the data it is given; for an attacked task, give it ``fgsm``'s.
    """

    eps: float = 0.1
    low: float = -inf
    high: float = inf

    def __post_init__(self) -> None:
        _require_box(self.eps, self.low, self.high)

    def run(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``."""
        require_minibatches(minibatches)
        phi, _ = self.inner(objective, meta)
        attacked = [
            fgsm(objective, phi, batch, self.eps, self.low, self.high) for batch in minibatches
        ]
        clean = super().run(objective, meta, [*minibatches[:-1], attacked[-1]], state)
        adversarial = super().run(objective, meta, [*attacked[:-1], minibatches[-1]], state)
        return Outcome(
            clean.direction + adversarial.direction, clean.loss + adversarial.loss, clean.state
        )


def fgsm(
    objective: Differentiable,
    phi: Array,
    batch: Batch,
    eps: float,
    low: float = -inf,
    high: float = inf,
) -> Batch:
    """The fast gradient sign method (Goodfellow, Shlens and Szegedy 2015): inputs x' within ``eps`` of x, of a larger loss.

    To first order the loss at x' exceeds that at x by <dL/dx, x' - x>. A sum of one term an input is largest, over the box
    |x' - x| <= eps, where each is: at the end of the box that the sign of its slope points to; so also within [low, high],

        x' = clip(x + eps sign(dL/dx), low, high),

    and without a clip L(x') = L(x) + eps sum |dL/dx| + O(eps^2). An input with slope 0 stays. An x outside [low, high] is
    brought inside. ``phi: (D,) or (T, D)``, such as ``adapt``'s, to see how robust it is; x' has the dtype of phi.

    Raises
    ------
    SettingsError
        if eps is negative or not finite, low is not below high, or the points of ``objective`` have no ``input_grad``.
    """
    _require_box(eps, low, high)
    point = objective.at(phi, batch)
    try:
        slope = point.input_grad
    except AttributeError as error:
        raise SettingsError(
            f"an attack needs dL/dx, a point's input_grad, and {objective!r} has none: use Objective(network, loss)"
        ) from error
    xp = array_module(phi)
    # Python numbers: a NumPy one would upcast a float32 x. By the real part: the complex step's imaginary one is no size.
    x = as_inputs(batch[0], phi.dtype) + float(eps) * xp.sign(slope.real)
    x = xp.where(x.real < low, float(low), x)
    return xp.where(x.real > high, float(high), x), batch[1]


def _require_box(eps: float, low: float, high: float) -> None:
    """Raise the SettingsError of an attack with no box to move in."""
    if not 0 <= eps < inf:
        raise SettingsError(
            f"an attack's eps must be 0 or more and finite, got {eps}: use a small part of the inputs' range"
        )
    if not low < high:
        raise SettingsError(
            f"an attack needs low < high, got {low} and {high}: use the inputs' range, such as 0 and 1"
        )
