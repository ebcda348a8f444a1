"""Floor 4: k inner steps, and the gradient of anything at their end with respect to their start.

The inner loop is phi_{j+1} = U(phi_j, g_j, s_j), g_j = dL_j/dphi at phi_j, for j = 1..k on mini-batches 1..k, where U is
an inner rule with state s_j. Let v = dF/dphi_{k+1}. Going back one step, U's adjoint gives dF/dphi_j with g_j held
fixed, and dF/dg_j; and g_j moves with phi_j by the Hessian H_j:

    dF/dphi_j  =  (dF/dphi_j)|_g  +  H_j dF/dg_j.

For SGD, dF/dg_j = -alpha v, so each step back multiplies v by (I - alpha H_j): equations (17)-(21) of the Reptile paper.
Only k Hessian-vector products are needed; no matrix is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .backend import Array
from .errors import SettingsError
from .inner import InnerRule, RateGradient
from .objectives import Batch, Differentiable, Point

Store = Literal["points", "iterates"]


@dataclass(frozen=True)
class Trajectory:
    """``iterates``: phi_1 .. phi_{k+1}, ``(D,)`` or ``(T, D)``; ``states``: the rule's state before each step and after
    the last; ``points``: the objective at phi_1 .. phi_k, kept or recomputed each time one is asked for."""

    objective: Differentiable
    rule: InnerRule
    iterates: Sequence[Array]
    states: Sequence[Any]
    points: Sequence[Point]

    @property
    def grads(self) -> list[Array]:
        """g_1 .. g_k, each ``(T, D)``."""
        return [point.grad for point in self.points]

    @property
    def last(self) -> Array:
        """phi_{k+1}."""
        return self.iterates[-1]

    def pullback(self, v: Array) -> tuple[Array, Array]:
        """(dF/dphi_1, dF/dlr) for ``v: (T, D)``, the gradient of F at the last iterate.

        ``dphi: (T, D)``. ``dlr`` has a leading task axis before the shape of ``lr``: ``(T,)`` for a number, ``(T, D)`` for
        a vector, ``(T, k)`` for a tuple, ``(T, k, 1)`` or ``(T, k, D)`` for an array of k rows.
        """
        dstate, rates = None, RateGradient(self.rule.lr)
        for j in reversed(range(len(self.points))):
            point = self.points[j]
            adjoint = self.rule.adjoint(point.grad, self.states[j], v, dstate)
            v, dstate = adjoint.phi + point.hvp(adjoint.g), adjoint.state
            rates.add(adjoint.rate, adjoint.lr)
        return v, rates.total(v)


class _Recomputed(Sequence[Point]):
    """Points that are not kept: each is computed from its iterate when it is asked for."""

    def __init__(self, objective: Differentiable, iterates: Sequence[Array], minibatches: Sequence[Batch]) -> None:
        self._objective, self._iterates, self._minibatches = objective, iterates, minibatches

    def __len__(self) -> int:
        return len(self._minibatches)

    def __getitem__(self, j: int) -> Point:
        if not -len(self) <= j < len(self):
            raise IndexError(j)
        j %= len(self)
        return self._objective.at(self._iterates[j], self._minibatches[j])


def unroll(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    store: Store = "points",
    state: Any = None,
) -> Trajectory:
    """One inner step on each mini-batch, from ``phi: (D,) or (T, D)``, kept so that it can be pulled back.

    ``store="points"`` keeps every point with its activations: fastest. ``store="iterates"`` keeps the phi_j and the
    rule's states, O(k T D), and recomputes a point when it is asked for: same numbers, one more forward and backward a
    step, memory that does not grow with the activations. ``state`` is the rule's at the start.
    """
    if store not in ("points", "iterates"):
        raise SettingsError(f"store must be 'points' or 'iterates', got {store!r}")
    iterates, states, points = [phi], [state], []
    for batch in minibatches:
        point = objective.at(iterates[-1], batch)
        phi, state = rule.step(iterates[-1], point.grad, states[-1])
        iterates.append(phi)
        states.append(state)
        if store == "points":
            points.append(point)
    kept = points if store == "points" else _Recomputed(objective, iterates, minibatches)
    return Trajectory(objective, rule, iterates, states, kept)


def descend(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    state: Any = None,
) -> tuple[Array, Any, Array | None]:
    """``adapt`` with its by-products: phi_{k+1}, the rule's last state, and the last mini-batch's loss at phi_k, ``(T,)``.

    With no mini-batches the loss is None.
    """
    loss = None
    for batch in minibatches:
        point = objective.at(phi, batch)
        g, loss = point.grad, point.loss
        del point  # its activations make room for the next ones
        phi, state = rule.step(phi, g, state)
    return phi, state, loss


def adapt(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    state: Any = None,
) -> Array:
    """phi_{k+1}, ``(T, D)``: one inner step on each mini-batch, keeping nothing."""
    return descend(objective, phi, minibatches, rule, state)[0]
