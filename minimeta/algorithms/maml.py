"""MAML and its first-order approximation FOMAML (Finn, Abbeel and Levine
2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import SettingsError
from ..inner import Store, descend
from ..registry import setting
from .base import ALGORITHMS, Algorithm, Outcome, require_minibatches, unrolled


@ALGORITHMS.register("maml")
@dataclass(frozen=True)
class MAML(Algorithm):
    """The exact gradient of the loss after adaptation.

    A task adapts on mini-batches 1 .. k-1 and is scored on the last:

        F(phi) = L_k(phi_k),  phi_k = U^{k-1}(phi).

    The direction is dF/dphi, which is g_k pulled back through the k-1 inner
    steps. The derivation stands in inner/trajectory.py. For an inner SGD the
    result is equations (17)-(21) of the Reptile paper, with H_j the Hessian of
    mini-batch j at phi_j (not at phi_1, as Hbar_j is):

        g_MAML = (I - alpha H_1) ... (I - alpha H_{k-1}) g_k.

    For any other rule, that rule's adjoint takes the place of SGD's. The rule's
    ``state`` at the start is held constant. ``store`` trades memory for time
    and does not change the numbers (inner/stores.py).
    """

    store: Store = setting(
        "points",
        "memory of an inner loop that is pulled back: store all activations (fastest), only the "
        "iterates, or about 2 sqrt(k) iterates (smallest); recompute the rest",
    )

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``."""
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad
        del query  # frees its activations before the pullback allocates its own
        direction, _ = trajectory.pullback(grad, rates=False)
        return Outcome(direction, loss, trajectory.states[-1])


@ALGORITHMS.register("fomaml")
@dataclass(frozen=True)
class FOMAML(Algorithm):
    """MAML with every Hessian replaced by zero.

    With ``update="gradient"`` the direction is g_k, the last mini-batch's
    gradient at the adapted phi_k. With ``update="step"`` the direction is phi_k
    - phi_{k+1}, the parameter change of one more inner step on the last
    mini-batch (for SGD, alpha g_k). The Reptile paper uses the second form to
    compare FOMAML with Reptile at one outer step size.

    Raises
    ------
    SettingsError
        if ``update`` is neither "gradient" nor "step", or ``rule`` is not an
        inner rule.
    """

    update: Literal["gradient", "step"] = setting(
        "gradient", "FOMAML's direction: the last gradient, or the last step", flag="fomaml_update"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update not in ("gradient", "step"):
            raise SettingsError(
                f"FOMAML's update must be 'gradient' or 'step', got {self.update!r}"
            )

    def direction(self, objective, meta, minibatches, state=None) -> Outcome:
        """g_k or phi_k - phi_{k+1}, ``(T, D)``."""
        require_minibatches(minibatches)
        descended, phi, rule = self.problem(objective, meta)
        last = len(minibatches) - 1
        phi, state, _ = descend(descended, phi, minibatches[:last], rule, state)
        query = objective.at(phi, minibatches[last])
        if self.update == "gradient":
            return Outcome(query.grad, query.loss, state)
        after, state = rule.step(phi, query.grad, state, last)
        return Outcome(phi - after, query.loss, state)
