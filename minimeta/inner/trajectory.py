"""k inner steps, and the derivative of the last iterate by the first.

The inner loop is

    (phi_{j+1}, s_{j+1}) = U_j(phi_j, g_j, s_j; lr),  g_j = dL_j/dphi at phi_j,

for j = 1 .. k on mini-batches 1 .. k. (The code counts j from 0.) U is an inner
rule with state s. H_j is the Hessian of L_j at phi_j. J = dphi_{k+1}/dphi_1.

**Pullback**, J^T v. Let v = dF/dphi_{k+1}. For one step backward, U's adjoint
gives dF/dphi_j with g_j held fixed, and dF/dg_j. The derivative of g_j by phi_j
is the Hessian H_j, which is symmetric:

    dF/dphi_j  =  (dF/dphi_j)|_g  +  H_j dF/dg_j.

For SGD, (dF/dphi_j)|_g = v and dF/dg_j = -alpha v (inner/sgd.py). Each step
backward therefore multiplies v by (I - alpha H_j). MAML takes k-1 steps and
starts from v = g_k: equations (17)-(21) of the Reptile paper.

**Pushforward**, J u. Let phi_1 move along u. For one step forward, g_j moves
along H_j times the direction of phi_j, and U's tangent gives the next
direction:

    g_j_dot = H_j phi_j_dot,
    (phi_{j+1}_dot, s_{j+1}_dot) = dU_j(phi_j_dot, g_j_dot, s_j_dot).

Pullback and pushforward are transposes, <J u, v> = <u, J^T v>. Each takes k
Hessian-vector products. No matrix is formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from ..arrays.backend import Array
from ..objectives import Batch, Differentiable, Point
from .rule import InnerRule, Rate, RateGradient
from .stores import InnerLoop, Segment, Store


@dataclass(frozen=True)
class Trajectory:
    """The record of an inner loop of k steps.

    ``iterates`` are phi_1 .. phi_{k+1}, ``(D,)`` or ``(T, D)``. ``states`` are
    the rule's states before each step and after the last. ``points`` are the
    objective at phi_1 .. phi_k. ``segments`` hold the same points and states in
    consecutive parts.

    An item that ``store`` does not hold is recomputed at every access. With
    "iterates" a point takes one gradient. With "checkpoints" an iterate, state
    or point takes up to sqrt(k) inner steps, except the last iterate and state,
    which are stored.
    """

    objective: Differentiable
    rule: InnerRule
    iterates: Sequence[Array]
    states: Sequence[Any]
    points: Sequence[Point]
    segments: Sequence[Segment]

    @property
    def grads(self) -> list[Array]:
        """g_1 .. g_k, each ``(T, D)``."""
        # A loop variable would hold each point while the next point is
        # computed.
        return list(map(attrgetter("grad"), self.points))

    @property
    def last(self) -> Array:
        """phi_{k+1}."""
        return self.iterates[-1]

    def pullback(self, v: Array, rates: bool = True) -> tuple[Array, Array | None]:
        """(dF/dphi_1, dF/dlr) for ``v: (T, D)``, F's gradient at the last
        iterate.

        dF/dphi_1, ``(T, D)``, is J^T v. dF/dlr has a leading task axis before
        the shape of ``lr``: ``(T,)`` for a number, ``(T, D)`` for a vector,
        ``(T, k)`` for a tuple, ``(T, k, 1)`` or ``(T, k, D)`` for an array of k
        rows. It is None if ``rates`` is False. The state at the start is held
        constant.
        """
        dstate, dlr = None, RateGradient(self.rule.lr) if rates else None
        for i in reversed(range(len(self.segments))):
            v, dstate = _back_through(self.rule, self.segments[i], v, dstate, dlr)
        return v, dlr.total(v) if dlr else None

    def pushforward(self, u: Array, lr_dot: Rate | None = None) -> Array:
        """J u, ``(T, D)``: the last iterate's derivative along u, ``(D,) or (T,
        D)``.

        With ``lr_dot``, in the form of the rule's ``lr``, the rates move along
        ``lr_dot`` too, and the result is J u + (dphi_{k+1}/dlr) lr_dot. The
        state at the start is held constant.
        """
        phi_dot, state_dot = u, None
        for i in range(len(self.segments)):
            phi_dot, state_dot = _forth_through(
                self.rule, self.segments[i], phi_dot, state_dot, lr_dot
            )
        return phi_dot


# Segments and points are function arguments here, because a loop variable would
# hold each of them while the next one is computed.


def _back_through(
    rule: InnerRule, segment: Segment, v: Array, dstate: Any, dlr: RateGradient | None
) -> tuple[Array, Any]:
    """The gradients of iterate and state, from ``segment``'s end to its
    start."""
    points, states, first = segment
    for i in reversed(range(len(points))):
        v, dstate = _back_one(rule, points[i], states[i], first + i, v, dstate, dlr)
    return v, dstate


def _back_one(
    rule: InnerRule,
    point: Point,
    state: Any,
    j: int,
    v: Array,
    dstate: Any,
    dlr: RateGradient | None,
) -> tuple[Array, Any]:
    """(dF/dphi_j)|_g + H_j dF/dg_j and dF/ds_j.

    ``v`` and ``dstate`` are dF/dphi_{j+1} and dF/ds_{j+1}. The step's gradient
    of its rate is added to ``dlr``.
    """
    adjoint = rule.adjoint(point.grad, state, j, v, dstate)
    if dlr is not None:
        dlr.add(j, adjoint.lr())
    return adjoint.phi + point.hvp(adjoint.g), adjoint.state


def _forth_through(
    rule: InnerRule, segment: Segment, phi_dot: Array, state_dot: Any, lr_dot: Rate | None
) -> tuple[Array, Any]:
    """The directions of iterate and state, from ``segment``'s start to its
    end."""
    points, states, first = segment
    for i in range(len(points)):
        phi_dot, state_dot = _forth_one(
            rule, points[i], states[i], first + i, phi_dot, state_dot, lr_dot
        )
    return phi_dot, state_dot


def _forth_one(
    rule: InnerRule,
    point: Point,
    state: Any,
    j: int,
    phi_dot: Array,
    state_dot: Any,
    lr_dot: Rate | None,
) -> tuple[Array, Any]:
    """phi_{j+1}_dot and s_{j+1}_dot, for phi_j_dot and s_j_dot."""
    g_dot = point.hvp(phi_dot)
    return rule.tangent(point.grad, state, j, phi_dot, g_dot, state_dot, lr_dot)


def unroll(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    store: Store = "points",
    state: Any = None,
) -> Trajectory:
    """One inner step on each mini-batch, recorded for differentiation.

    The loop starts from ``phi: (D,) or (T, D)`` and the rule's ``state``.
    ``store`` trades memory for time and does not change the numbers
    (stores.py). "points" stores every point with its activations, which is
    fastest. "iterates" stores the phi_j and the rule's states, O(k T D), and
    recomputes a point at every access. "checkpoints" stores about 2 sqrt(k)
    iterates and states, and takes one more gradient per step.

    Raises
    ------
    SettingsError
        if ``store`` is not one of ``STORES``.
    """
    loop = InnerLoop(objective, rule, minibatches)
    return Trajectory(objective, rule, *loop.stored(phi, state, store))


def descend(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    state: Any = None,
) -> tuple[Array, Any, Array | None]:
    """phi_{k+1}, the rule's last state, and the last mini-batch's loss at
    phi_k.

    phi_{k+1} is ``(T, D)`` and the loss is ``(T,)``. Without mini-batches phi
    is returned unchanged and the loss is None. No iterate is stored.
    """
    return InnerLoop(objective, rule, minibatches).end(phi, state)


def adapt(
    objective: Differentiable,
    phi: Array,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    state: Any = None,
) -> Array:
    """phi_{k+1}, ``(T, D)``, after one inner step on each mini-batch.

    No iterate is stored.
    """
    return descend(objective, phi, minibatches, rule, state)[0]
