"""MAML and its first-order approximation FOMAML (Finn, Abbeel and Levine 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from ..errors import SettingsError
from ..inner import Store, descend
from .base import Algorithm, Outcome, require_minibatches, unrolled


@dataclass(frozen=True)
class MAML(Algorithm):
    """The exact gradient of the loss after adaptation.

    Adapt on mini-batches 1 .. k-1 and score on the last: F(phi) = L_k(phi_k), phi_k = U^{k-1}(phi). The direction is
    dF/dphi: g_k, pulled back through the k-1 inner steps (trajectory.py). For an inner SGD that is the Reptile paper's
    equations (17)-(21),

        g_MAML = (I - alpha H_1) ... (I - alpha H_{k-1}) g_k,

    and through any other rule the same with that rule's adjoint. The rule's ``state`` at the start is held constant.
    ``store`` trades memory for time, at the same numbers: "checkpoints" holds about 2 sqrt(k) copies of phi and of the
    rule's state, and the activations at one of them (trajectory.py).
    """

    store: Store = "points"

    def run(self, objective, meta, minibatches, state=None) -> Outcome:
        """dF/dphi, ``(T, D)``."""
        trajectory, query = unrolled(self, objective, meta, minibatches, state)
        loss, grad = query.loss, query.grad
        del query  # its activations make room for those of the pullback
        direction, _ = trajectory.pullback(grad, rates=False)
        return Outcome(direction, loss, trajectory.states[-1])


@dataclass(frozen=True)
class FOMAML(Algorithm):
    """MAML with every Hessian replaced by zero.

    ``update="gradient"``: the direction is g_k, the last mini-batch's gradient at the adapted phi_k. ``update="step"``:
    it is phi_k - phi_{k+1}, the parameter change of one more inner step on the last mini-batch (for SGD, alpha g_k),
    which is how the Reptile paper compares it with Reptile at one outer step size.
    """

    can_pause: ClassVar[bool] = True
    update: Literal["gradient", "step"] = "gradient"

    def __post_init__(self) -> None:
        if self.update not in ("gradient", "step"):
            raise SettingsError(
                f"FOMAML's update must be 'gradient' or 'step', got {self.update!r}"
            )

    def run(self, objective, meta, minibatches, state=None, start=None) -> Outcome:
        """g_k or phi_k - phi_{k+1}, ``(T, D)``. ``start``: where inner steps on earlier mini-batches have led."""
        require_minibatches(minibatches)
        phi, rule = self.inner(objective, meta)
        phi, state, _ = descend(
            objective, phi if start is None else start, minibatches[:-1], rule, state
        )
        query = objective.at(phi, minibatches[-1])
        if self.update == "gradient":
            return Outcome(query.grad, query.loss, state)
        after, state = rule.step(phi, query.grad, state)
        return Outcome(phi - after, query.loss, state)
