"""Floor 4: k inner steps, and the gradient of anything at their end with respect to their start.

The inner loop is phi_{j+1} = U(phi_j, g_j, s_j), g_j = dL_j/dphi at phi_j, for j = 1..k on mini-batches 1..k, where U is
an inner rule with state s_j. Let v = dF/dphi_{k+1}. Going back one step, U's adjoint gives dF/dphi_j with g_j held
fixed, and dF/dg_j; and g_j moves with phi_j by the Hessian H_j:

    dF/dphi_j  =  (dF/dphi_j)|_g  +  H_j dF/dg_j.

For SGD, dF/dg_j = -alpha v, so each step back multiplies v by (I - alpha H_j): equations (17)-(21) of the Reptile paper.
Only k Hessian-vector products are needed; no matrix is formed.

Going back needs phi_j, s_j and the activations at phi_j, for j from k down to 1. What is kept of them on the way forth, and
what is made again on the way back, is a choice of memory against time; the numbers are the same, to the bit. A step forth
takes one gradient, and one back a Hessian-vector product, about two more. Copies of phi, each with the rule's state:

    store           kept at once                     gradients made again a step
    points          k, and the activations of k      none
    iterates        k, and the activations of one    1
    checkpoints     2 sqrt(k), and of one            2 - 1 / sqrt(k)

Checkpoints (Griewank 1992; Chen et al. 2016): the loop is a composition of segments of n steps, and the pullback of a
composition is that of its parts, the last first. Kept are only the k / n starts of segments. A segment is pulled back as
with "iterates" once its own n have been made again from its start, which takes one gradient for each of them but the
first, and its n take the place of the segment's before. So k / n + n are kept at once, which is least, 2 sqrt(k), at
n = sqrt(k).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isqrt
from operator import attrgetter
from typing import Any, Generic, Literal, NamedTuple, TypeVar, get_args

from ..arrays.backend import Array
from ..errors import SettingsError
from ..objectives import Batch, Differentiable, Point
from .rules import InnerRule, RateGradient

Store = Literal["points", "iterates", "checkpoints"]
STORES: tuple[Store, ...] = get_args(Store)
Item = TypeVar("Item")


class Run(NamedTuple):
    """Consecutive points, and the rule's state before the step from each."""

    points: Sequence[Point]
    states: Sequence[Any]


@dataclass(frozen=True)
class Trajectory:
    """``iterates``: phi_1 .. phi_{k+1}, ``(D,)`` or ``(T, D)``; ``states``: the rule's state before each step and after
    the last; ``points``: the objective at phi_1 .. phi_k; ``runs``: the same in parts, as they are pulled back.

    What ``store`` does not keep is computed each time that it is asked for: with "iterates", a point by one gradient; with
    "checkpoints", an iterate, state or point by up to sqrt(k) inner steps, but for the last iterate and state.
    """

    objective: Differentiable
    rule: InnerRule
    iterates: Sequence[Array]
    states: Sequence[Any]
    points: Sequence[Point]
    runs: Sequence[Run]

    @property
    def grads(self) -> list[Array]:
        """g_1 .. g_k, each ``(T, D)``."""
        # The variable of a loop would hold each point while the next one is computed.
        return list(map(attrgetter("grad"), self.points))

    @property
    def last(self) -> Array:
        """phi_{k+1}."""
        return self.iterates[-1]

    def pullback(self, v: Array, rates: bool = True) -> tuple[Array, Array | None]:
        """(dF/dphi_1, dF/dlr) for ``v: (T, D)``, the gradient of F at the last iterate; dF/dlr is None without ``rates``.

        ``dphi: (T, D)``. ``dlr`` has a leading task axis before the shape of ``lr``: ``(T,)`` for a number, ``(T, D)`` for
        a vector, ``(T, k)`` for a tuple, ``(T, k, 1)`` or ``(T, k, D)`` for an array of k rows.
        """
        dstate, dlr = None, RateGradient(self.rule.lr) if rates else None
        for i in reversed(range(len(self.runs))):
            v, dstate = _back_through(self.rule, self.runs[i], v, dstate, dlr)
        return v, dlr.total(v) if dlr else None


# A run and a point are arguments here and never variables of a loop, which would hold each while the next one is computed.


def _back_through(
    rule: InnerRule, run: Run, v: Array, dstate: Any, dlr: RateGradient | None
) -> tuple[Array, Any]:
    """The gradients with respect to iterate and state at the start of ``run``, for those at its end."""
    for j in reversed(range(len(run.points))):
        v, dstate = _back_one(rule, run.points[j], run.states[j], v, dstate, dlr)
    return v, dstate


def _back_one(
    rule: InnerRule, point: Point, state: Any, v: Array, dstate: Any, dlr: RateGradient | None
) -> tuple[Array, Any]:
    """(dF/dphi_j)|_g + H_j dF/dg_j and dF/ds_j, for dF/dphi_{j+1} and dF/ds_{j+1}; adds the step's to ``dlr``."""
    adjoint = rule.adjoint(point.grad, state, v, dstate)
    if dlr is not None:
        dlr.add(adjoint.rate, adjoint.lr())
    return adjoint.phi + point.hvp(adjoint.g), adjoint.state


class _Recomputed(Sequence[Item], Generic[Item]):
    """Items that are not kept: each is computed from its number each time that it is asked for."""

    def __init__(self, length: int, item: Callable[[int], Item]) -> None:
        self._length, self._item = length, item

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, j):
        places = range(self._length)[j]
        return [self._item(i) for i in places] if isinstance(j, slice) else self._item(places)


def _points_at(
    objective: Differentiable, iterates: Sequence[Array], minibatches: Sequence[Batch]
) -> Sequence[Point]:
    """The points at all ``minibatches``, recomputed."""
    return _Recomputed(len(minibatches), lambda j: objective.at(iterates[j], minibatches[j]))


@dataclass(frozen=True)
class _Segments:
    """An inner loop in segments of ``length`` steps (the last may have fewer), of which only the ``starts`` and the ``end``
    of all are kept: iterates and states."""

    objective: Differentiable
    rule: InnerRule
    minibatches: Sequence[Batch]
    length: int
    starts: Sequence[tuple[Array, Any]]
    end: tuple[Array, Any]

    def run(self, i: int) -> Run:
        """Segment number ``i``, its iterates made again."""
        phi, state = self.starts[i]
        batches = self.minibatches[i * self.length : (i + 1) * self.length]
        # Without the step on the last mini-batch, which leads to the next segment.
        way = unroll(self.objective, phi, batches[:-1], self.rule, "iterates", state)
        return Run(_points_at(self.objective, way.iterates, batches), way.states)

    def at(self, j: int) -> tuple[Array, Any]:
        """Iterate and state number ``j``, from 0, made again from the start of their segment."""
        if j == len(self.minibatches):
            return self.end
        i = j // self.length
        phi, state = self.starts[i]
        return descend(
            self.objective, phi, self.minibatches[i * self.length : j], self.rule, state
        )[:2]


def unroll(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    store: Store = "points",
    state: Any = None,
) -> Trajectory:
    """One inner step on each mini-batch, from ``phi: (D,) or (T, D)``, kept so that it can be pulled back.

    ``store`` trades memory for time, at the same numbers. "points" keeps every point with its activations: fastest.
    "iterates" keeps the phi_j and the rule's states, O(k T D), and recomputes a point when it is asked for: one more
    gradient a step, memory that does not grow with the activations. "checkpoints" keeps about 2 sqrt(k) of them, for
    another gradient a step. ``state`` is the rule's at the start.
    """
    if store not in STORES:
        raise SettingsError(f"store must be one of {', '.join(STORES)}, got {store!r}")
    if store == "checkpoints":
        return _unroll_to_checkpoints(objective, phi, minibatches, rule, state)
    iterates, states, points = [phi], [state], []
    for batch in minibatches:
        point = objective.at(iterates[-1], batch)
        phi, state = rule.step(iterates[-1], point.grad, states[-1])
        iterates.append(phi)
        states.append(state)
        if store == "points":
            points.append(point)
        del point  # where it is not kept, its activations make room for the next ones
    kept = points if store == "points" else _points_at(objective, iterates, minibatches)
    return Trajectory(objective, rule, iterates, states, kept, [Run(kept, states)])


def _unroll_to_checkpoints(
    objective: Differentiable, phi: Array, minibatches: Sequence[Batch], rule: InnerRule, state: Any
) -> Trajectory:
    """``unroll`` in segments of sqrt(k) steps, rounded up."""
    k = len(minibatches)
    length = 1 + isqrt(max(k - 1, 0))
    starts = []
    for first in range(0, k, length):
        starts.append((phi, state))
        phi, state, _ = descend(objective, phi, minibatches[first : first + length], rule, state)
    segments = _Segments(objective, rule, minibatches, length, starts, (phi, state))
    iterates, states = (
        _Recomputed(k + 1, lambda j, which=which: segments.at(j)[which]) for which in (0, 1)
    )
    points, runs = (
        _points_at(objective, iterates, minibatches),
        _Recomputed(len(starts), segments.run),
    )
    return Trajectory(objective, rule, iterates, states, points, runs)


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
