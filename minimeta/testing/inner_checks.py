"""Checks of an inner rule and of a trajectory.

Their adjoints and tangents must agree with derivatives by the oracles of
comparing.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..inner import (
    STORES,
    InnerRule,
    Rate,
    Trajectory,
    adapt,
    is_per_step,
    unroll,
    with_parts,
)
from ..objectives import Batch, Differentiable
from .comparing import TOLERANCE, compare, dots, leaves
from .complex_step import complex_step, tree_map
from .findings import Findings, reported
from .merge_checks import MergeCheck


@reported
def check_rule(
    rule: InnerRule,
    *,
    tasks: int = 2,
    size: int = 3,
    steps: int = 3,
    seed: int = 0,
    sequential: bool | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Checks ``tangent``, ``adjoint`` and ``merge`` of ``rule`` against its
    ``step``.

    ``tangent`` must be the derivative of ``step``, and ``adjoint`` its
    transpose, with a fresh state, after each of ``steps`` random steps, and in
    another task that starts from the merged state of these. ``rule`` is a
    dataclass with a field ``lr``.

    Let F = <a', phi'> + <b', state'> with random a', and with b' random or 0.
    The gradients that ``adjoint`` returns, with respect to phi, g, the arrays
    of the state, and the rates, must be F's. Each argument is moved alone.
    ``tangent`` is checked with all arguments moving at once, and with phi and g
    alone. The rates move per parameter, whatever the form of ``rule.lr``, so
    ``Adjoint.lr`` is checked element by element. ``Adjoint.state`` must hold
    one gradient for each array of the state, in the order of the arrays. The
    directions of states that ``tangent`` takes and returns have the same form.

    Everything is checked once more with a parameter whose gradients have all
    been zero. That parameter's state does not move, because there the root in
    Adam has no derivative. Give Adam an eps of about 1e-3. With a smaller eps
    the first step is nearly the sign of g, and its derivative is the rounding
    error of the difference of two large terms.

    If ``rule.lr`` holds one rate per parameter, their number replaces ``size``.
    If it holds one rate per step, the check takes no step beyond the last rate.

    ``merge`` may return None: then every task starts with a fresh state. Else
    the following must hold. Where no step was made, ``states`` is ``shared``,
    and so is the result. The merged state of one task is that task's state,
    without the task axis. The merged state of more tasks has the same form, and
    a step from it is the step from an equal copy of it for each task. In
    float32 ``step`` and ``merge`` give float32.

    A merged state may mean the state after the same gradients with the tasks
    one after another, as Adam's does (``sequential``). Then all its parts must
    be those of that sequence. Where a task ends must not matter either: with
    one rate, ``j`` may change the length of a step, but neither its direction
    nor the next state, because the memory is in the state. By default
    ``sequential`` is taken for true where a part of the merged state is the
    sequence's and does not lie between the tasks' own.

    Raises
    ------
    CheckError
        naming the gradient, the direction or the part of a state that is wrong,
        and by how much.
    """
    own = np.asarray(rule.lr).shape[-1] if isinstance(rule.lr, np.ndarray) and rule.lr.ndim else 1
    size = own if own > 1 else size
    steps = min(steps, len(rule.lr) - 1) if is_per_step(rule.lr) else steps
    every, all_but_one = np.ones(size), np.arange(size) > 0
    for alive in (every, all_but_one):
        _check_steps(rule, (tasks, size), steps, alive, seed, tolerance)
    _check_merges(rule, (tasks, size), sequential, seed, tolerance)
    for alive in (every, all_but_one):
        _check_merged_step(rule, (tasks, size), alive, seed, tolerance)


def _check_steps(rule, shape, steps, alive, seed, tolerance) -> None:
    """Steps of a task from a fresh state, with gradients where ``alive``."""
    rng, state = np.random.default_rng(seed), None
    for j in range(steps + 1):
        g = alive * rng.standard_normal(shape)
        with Findings(type(rule).__name__, f"step {j + 1}").reporting() as findings:
            _RuleCheck(rule, g, state, j, alive, rng, tolerance, findings).run()
        _, state = rule.step(np.zeros(shape), g, state, j)


def _check_merged_step(rule, shape, alive, seed, tolerance) -> None:
    """The first step of a task from the merged state of others."""
    rng, where = np.random.default_rng(seed), "step 1 from a merged state"
    g, later = alive * rng.standard_normal((2, *shape))
    _, states = rule.step(np.zeros(shape), g)
    state = rule.merge(None, states, len(g))
    if state is not None:
        with Findings(type(rule).__name__, where).reporting() as findings:
            _RuleCheck(rule, later, state, 0, alive, rng, tolerance, findings).run()


def _check_merges(rule, shape, sequential, seed, tolerance) -> None:
    """Merges of tasks from a fresh state, and from the state merged of
    these."""
    tasks, size = shape
    rates, shared = _one_rate_a_parameter(rule.lr, size), None
    even = replace(rule, lr=rates[0] if rates.ndim == 2 else rates)
    for where in ("from a fresh state", "from a merged state"):
        with Findings(type(rule).__name__, where).reporting() as findings:
            check = MergeCheck(even, shared, max(tasks, 3), seed, tolerance, findings)
            shared = check.run(sequential)
        if shared is None:
            return


class _RuleCheck:
    """The check of step ``j`` of a rule, at random gradients of phi' and
    state'."""

    def __init__(self, rule, g, state, j, alive, rng, tolerance, findings) -> None:
        rates = _one_rate_a_parameter(rule.lr, g.shape[1])
        self.rule, self.state, self.j = replace(rule, lr=rates), state, j
        self.alive, self.findings, self.tolerance = alive, findings, tolerance
        phi, self.dphi, phi_dot, g_dot = rng.standard_normal((4, *g.shape))
        held = tuple(_arrays(state))
        self.at = (phi, g, held, rates)
        held_dot = tuple(alive * rng.standard_normal(g.shape) for _ in held)
        self.along = (phi_dot, g_dot, held_dot, rng.standard_normal(rates.shape))
        _, after = findings.call("step", self.rule.step, phi=phi, g=g, state=state, j=j)
        self.dstate = tuple(rng.standard_normal(g.shape) for _ in _arrays(after))

    def run(self) -> None:
        """Checks with gradients and directions of the state, and without
        them."""
        self.check_adjoint(())
        if self.dstate:
            self.check_adjoint(self.dstate)
        phi_dot, g_dot, held_dot, rates_dot = self.along
        self.check_tangent((phi_dot, g_dot, held_dot, rates_dot))
        still = tree_map(np.zeros_like, (held_dot, rates_dot))
        self.check_tangent((phi_dot, g_dot, *still))

    def outputs(self, phi, g, held, rates) -> tuple[np.ndarray, ...]:
        """phi' and the arrays of the state after the step."""
        state = _with_arrays(self.state, iter(held))
        out, after = replace(self.rule, lr=rates).step(phi, g, state, self.j)
        return (out, *_arrays(after))

    def check_tangent(self, along: tuple) -> None:
        """Each direction by ``tangent`` equals the derivative of ``step``."""
        phi_dot, g_dot, held_dot, rates_dot = along
        moving = any(np.any(part) for part in (*held_dot, rates_dot))
        given = {
            "g": self.at[1],
            "state": self.state,
            "j": self.j,
            "phi_dot": phi_dot,
            "g_dot": g_dot,
            "state_dot": held_dot if held_dot and moving else None,
            "lr_dot": rates_dot if moving else None,
        }
        out_dot, state_dot = self.findings.call("tangent", self.rule.tangent, **given)
        got = (out_dot, *(() if state_dot is None else state_dot))
        names = ["phi'_dot", *(f"state'_dot[{i}]" for i in range(len(self.dstate)))]
        if len(got) != len(names):
            raise self.findings.error(
                f"tangent must give {', '.join(names)}, got {len(got)} arrays"
            )
        for i, (name, value) in enumerate(zip(names, got, strict=True)):
            self.findings.array("tangent", name, value, phi_dot.shape, np.float64)
            self.compare("tangent", name, value, lambda *at, i=i: self.outputs(*at)[i], along)

    def check_adjoint(self, dstate: tuple[np.ndarray, ...]) -> None:
        """Each gradient by ``adjoint`` equals F's, with one argument moved
        alone."""
        _, g, held, _ = self.at
        given = {"g": g, "state": self.state, "j": self.j, "dphi": self.dphi}
        adjoint = self.findings.call("adjoint", self.rule.adjoint, **given, dstate=dstate or None)
        dheld = tuple(adjoint.state) if held else ()
        phi_dot, g_dot, held_dot, rates_dot = self.along
        used = rates_dot[self.j] if rates_dot.ndim == 2 else rates_dot
        gradients = (adjoint.phi,), (adjoint.g,), dheld, (adjoint.lr(),)
        directions = (phi_dot,), (g_dot,), held_dot, (used,)
        still = tree_map(np.zeros_like, self.at)

        def scored(*at) -> np.ndarray:
            out, *after = self.outputs(*at)
            return dots(self.dphi, out) + sum(
                dots(b, a) for b, a in zip(dstate, after, strict=False)
            )

        for i, term in enumerate(("phi", "g", "state", "lr")):
            for gradient in gradients[i]:
                self.findings.array("adjoint", term, gradient, g.shape, np.float64)
            pairs = list(zip(gradients[i], directions[i], strict=True))
            if pairs:
                along = (*still[:i], self.along[i], *still[i + 1 :])
                sizes = sum(dots(abs(a), abs(u)) for a, u in pairs)
                got = sum(dots(a, u) for a, u in pairs)
                self.compare("adjoint", term, got, scored, along, sizes)

    def compare(self, pass_name, term, got, function, along, sizes=None) -> None:
        """Compares by both oracles.

        Near a gradient of zero only the complex step is used, since a real
        difference would step over eps.
        """
        at, tolerance = self.at, self.tolerance
        if self.alive.all():
            given = pass_name, term, got, "step", function, at, along
            compare(self.findings, *given, tolerance, sizes)
        else:
            want, of = complex_step(function, at, along), "the derivative of step"
            self.findings.close(pass_name, term, got, of, want, tolerance, sizes)


@reported
def check_trajectory(
    objective: Differentiable,
    phi: np.ndarray,
    minibatches: Sequence[Batch],
    rule: InnerRule,
    *,
    state: Any = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """Checks ``pullback`` and ``pushforward`` of the trajectory of an inner
    loop.

    ``pullback(v)`` must be the gradient of <v, phi_{k+1}> with respect to phi,
    ``(D,) or (T, D)``, and to the rule's ``lr`` in any of its forms.
    ``pushforward(u)`` must be the derivative of phi_{k+1} along u, and along u
    and a direction of ``lr`` together. Pullback and pushforward must be
    transposes, <J u, v> = <u, J^T v>. All stores must give the same numbers.

    ``rule`` is a dataclass with a field ``lr``. ``state`` is the rule's state
    at the start, held constant.

    Raises
    ------
    CheckError
        naming the wrong derivative, and by how much.
    """
    where = f"{type(rule).__name__}, {len(minibatches)} steps"
    with Findings("Trajectory", where).reporting() as findings:
        made = [unroll(objective, phi, minibatches, rule, store, state) for store in STORES]
        check = _TrajectoryCheck(made[0], phi, minibatches, state, seed, tolerance, findings)
        check.check_pullback()
        check.check_pushforward()
        for store, other in zip(STORES[1:], made[1:], strict=True):
            check.check_same(other, store)


class _TrajectoryCheck:
    """The check of one trajectory, with random v, u and directions of its
    rates."""

    def __init__(self, trajectory, phi, minibatches, state, seed, tolerance, findings) -> None:
        self.trajectory, self.minibatches, self.state = trajectory, minibatches, state
        self.rule, self.tolerance, self.findings = trajectory.rule, tolerance, findings
        rng = np.random.default_rng(seed)
        tasks = len(minibatches[0][0]) if len(minibatches) else len(np.atleast_2d(phi))
        self.v, self.u = rng.standard_normal((2, tasks, trajectory.objective.size))
        self.rows = np.array(np.broadcast_to(phi, self.v.shape))
        self.lr = np.asarray(self.rule.lr, dtype=np.float64)
        self.lr_dot = rng.standard_normal(self.lr.shape)

    def rates(self, lr: np.ndarray) -> Rate:
        """The rates ``lr`` in the form in which the rule holds its own."""
        return tuple(lr) if isinstance(self.rule.lr, (tuple, list)) else lr

    def last(self, start: np.ndarray, lr: np.ndarray) -> np.ndarray:
        """phi_{k+1} as a function of phi_1 and the rates."""
        objective, rule = self.trajectory.objective, replace(self.rule, lr=self.rates(lr))
        return adapt(objective, start, self.minibatches, rule, self.state)

    def check_pullback(self) -> None:
        """dphi and dlr equal the derivatives of <v, phi_{k+1}>, one at a
        time."""
        v, at = self.v, (self.rows, self.lr)

        def scored(start, lr):
            return dots(v, self.last(start, lr))

        dphi, dlr = self.findings.call("pullback", self.trajectory.pullback, v=v)
        self.findings.array("pullback", "dphi", dphi, v.shape, np.float64)
        self.findings.array("pullback", "dlr", dlr, (len(v), *self.lr.shape), np.float64)
        for term, gradient, direction, along in (
            ("dphi", dphi, self.u, (self.u, 0 * self.lr)),
            ("dlr", dlr, self.lr_dot, (0 * self.rows, self.lr_dot)),
        ):
            moved = abs(complex_step(scored, at, along))
            sizes = dots(abs(gradient), abs(direction)) + moved
            got = dots(gradient, direction)
            given = "pullback", term, got, "the last iterate", scored, at, along
            compare(self.findings, *given, self.tolerance, sizes)

    def check_pushforward(self) -> None:
        """J u, with fixed and moving rates, is the derivative and the
        transpose."""
        trajectory, u, v, tolerance = self.trajectory, self.u, self.v, self.tolerance
        at, lr_dot = (self.rows, self.lr), self.rates(self.lr_dot)
        pushed = self.findings.call("pushforward", trajectory.pushforward, u=u)
        self.findings.array("pushforward", "J u", pushed, v.shape, np.float64)
        of_last = "the last iterate", self.last, at
        given = "pushforward", "J u", pushed, *of_last, (u, 0 * self.lr)
        compare(self.findings, *given, tolerance)
        both = self.findings.call("pushforward", trajectory.pushforward, u=u, lr_dot=lr_dot)
        given = "pushforward", "J u with moving rates", both, *of_last, (u, self.lr_dot)
        compare(self.findings, *given, tolerance)
        dphi, dlr = trajectory.pullback(v)
        pulled = dots(dphi, u) + dots(dlr, np.broadcast_to(self.lr_dot, dlr.shape))
        sizes = dots(abs(both), abs(v)) + dots(abs(dphi), abs(u))
        given = "pushforward", "<J u, v>", dots(both, v), "<u, J^T v>", pulled
        self.findings.close(*given, tolerance, sizes)

    def check_same(self, other: Trajectory, store: str) -> None:
        """Another store gives the same derivatives."""
        of, ours = f"that with stored {STORES[0]}", self.trajectory
        pairs = zip(("dphi", "dlr"), other.pullback(self.v), ours.pullback(self.v), strict=True)
        for name, a, b in pairs:
            term = f"{name} with stored {store}"
            self.findings.close("pullback", term, a, of, b, self.tolerance)
        a, b = (each.pushforward(self.u) for each in (other, ours))
        self.findings.close("pushforward", f"J u with stored {store}", a, of, b, self.tolerance)


def _arrays(state: Any) -> list[np.ndarray]:
    """The arrays of an inner rule's state, in order, without its numbers."""
    return [leaf for leaf in leaves(state) if isinstance(leaf, np.ndarray)]


def _with_arrays(state: Any, arrays: Iterator[np.ndarray]) -> Any:
    """``state`` with its arrays replaced, in order."""
    if isinstance(state, tuple):
        return with_parts(state, [_with_arrays(part, arrays) for part in state])
    return next(arrays) if isinstance(state, np.ndarray) else state


def _one_rate_a_parameter(lr: Rate, size: int) -> np.ndarray:
    """The rates as ``(size,)``, or as ``(k, size)`` if ``lr`` is per step."""
    rates, steps = np.asarray(lr, dtype=np.float64), len(lr) if is_per_step(lr) else 1
    spread = np.array(np.broadcast_to(rates.reshape(steps, -1), (steps, size)))
    return spread if is_per_step(lr) else spread[0]
