"""The check of an algorithm."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..algorithms import Algorithm, Outcome
from ..inner import InnerRule
from ..objectives import Differentiable
from ..tasks import Minibatches
from .comparing import (
    TOLERANCE,
    check_init,
    compare,
    compare_states,
    form,
    leaves,
    map_arrays,
    states_agree,
)
from .findings import Findings, reported
from .oracles import inner_loop


@reported
def check_algorithm(
    algorithm: Algorithm,
    objective: Differentiable,
    meta: np.ndarray,
    minibatches: Minibatches,
    *,
    true_objective: Callable[[np.ndarray], np.ndarray] | None = None,
    expected: Callable[[np.ndarray], Outcome] | None = None,
    per_copy: bool = False,
    state: Any = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> float:
    """Checks the methods of ``algorithm`` against definitions.

    **Direction.** ``true_objective`` is a function of float64 meta ``(M,)``. If
    its result is losses ``(T,)``, each direction must be the gradient of its
    task's loss, and the outcome's losses must be those losses. If its result is
    one number ``()``, the objective of the whole meta-batch, the *mean* of the
    directions must be its gradient. With ``per_copy`` that objective is also a
    function of copies of meta, one for each task, ``(T, M)``. T times its
    derivative by a task's copy must then be that task's direction. In all cases
    meta must not change.

    The directions of Reptile and FOMAML are not the gradient of any function.
    For such an algorithm ``expected`` computes the direction, the losses and
    the inner rule's last state from meta in another way. Reptile's direction is
    phi - adapt(phi). FOMAML's is MAML's with the Hessian replaced by zero
    (``without_hessian``). An entry of ``expected`` that is None is not
    compared.

    **Tasks.** The uncoupled outcome of a task must not depend on other tasks,
    since only ``couple`` may couple them. Tasks have no order: for tasks in
    another order, ``couple`` must give the same rows in that order.

    **Inner loop.** ``problem`` defines k inner steps. ``adapt`` must give the
    last iterate, and ``iterates`` all of them. Unless ``expected`` gives a
    state, the outcome's must be the rule's state after the last step, or, where
    ``scores_on_last``, after the last but one. Where ``true_objective`` is one
    number and ``expected`` gives no losses, the losses must be those of the
    last mini-batch before any step on it. Where the rule has a state, a start
    from ``state`` must give the same outcome as a rule that starts itself from
    that state. If ``state`` is None, a merged state after the inner loop is
    taken for this.

    **init** must give a meta ``(M,)`` of the dtype and in the array module
    asked for, the same for the same rng.

    An object with ``direction``, ``couple`` and ``adapt`` alone is checked for
    what concerns these. ``state`` is the inner rule's state at the start,
    shared by all tasks or per task.

    Returns the largest relative difference found.

    Raises
    ------
    CheckError
        naming each wrong result, and by how much.
    """
    with Findings(type(algorithm).__name__).reporting() as findings:
        check = _AlgorithmCheck(algorithm, objective, meta, minibatches, state, tolerance, findings)
        check.check_form()
        check.check_independence()
        check.check_order()
        if true_objective is not None:
            check.check_gradient(true_objective, seed)
            if per_copy:
                check.check_copies(true_objective, seed)
        want = Outcome(None, None, None) if expected is None else expected(meta)
        check.check_expected(want)
        if hasattr(algorithm, "problem"):
            check.check_inner_loop(want)
            check.check_start()
        if hasattr(algorithm, "init") and hasattr(objective, "init"):
            init = partial(algorithm.init, objective)
            check_init(findings, init, "meta", meta.shape[-1], seed)
    return findings.worst


class _AlgorithmCheck:
    """The check of one algorithm at one meta on one meta-batch."""

    def __init__(self, algorithm, objective, meta, minibatches, state, tolerance, findings) -> None:
        self.algorithm, self.objective, self.meta = algorithm, objective, meta
        self.minibatches, self.tolerance, self.findings = minibatches, tolerance, findings
        self.state, self.whole = state, False
        self.parts = self.direction(state)
        self.outcome = findings.call("couple", algorithm.couple, outcome=self.parts)
        self.adapted = self.adapt(state)

    def direction(self, state: Any) -> Outcome:
        """The uncoupled outcome from ``state``."""
        return self._call("direction", state)

    def adapt(self, state: Any) -> np.ndarray:
        """The adapted parameters from ``state``."""
        return self._call("adapt", state)

    def _call(self, name: str, state: Any) -> Any:
        batches = self.minibatches

        def function(meta, x, y, state):
            return getattr(self.algorithm, name)(self.objective, meta, batches, state)

        data = {"meta": self.meta, "x": batches.x, "y": batches.y, "state": state}
        return self.findings.call(name, function, **data)

    def close(self, pass_name: str, term: str, got, reference: str, want, scale=None) -> None:
        """A comparison with a value."""
        self.findings.close(pass_name, term, got, reference, want, self.tolerance, scale)

    def check_form(self) -> None:
        """Directions, losses and adapted parameters have one row a task."""
        direction, loss, tasks = *self.outcome[:2], self.minibatches.tasks
        array, shape = self.findings.array, (tasks, self.meta.shape[-1])
        array("direction", "the direction", direction, shape, np.float64)
        array("direction", "the loss", loss, (tasks,), np.float64)
        array("adapt", "the adapted phi", self.adapted, (tasks, self.objective.size), np.float64)

    def check_independence(self) -> None:
        """Every task gives the same uncoupled outcome alone."""
        parts, state, batches = self.parts, self.state, self.minibatches
        for i in range(batches.tasks):
            alone = self.algorithm.direction(
                self.objective, self.meta, batches.of_tasks(i, i + 1), _of_task(state, parts, i)
            )
            among = f"that of task {i} among all: it depends on the other tasks"
            pairs = zip(_named(alone), _named(parts), strict=True)
            for (name, got), (_, want) in pairs:
                self.close("direction", f"{name} of task {i} alone", got, among, want[i : i + 1])
            if parts.state is not state:
                want = map_arrays(lambda a, i=i: a[i : i + 1], parts.state)
                term = f"the inner rule's state of task {i} alone"
                given = "direction", term, alone.state, f"the state {among[5:]}", want
                compare_states(self.findings, *given, self.tolerance)

    def check_order(self) -> None:
        """``couple`` gives the rows of tasks in another order in that order.

        Two orders generate all others: one exchanges the first two tasks, and
        one moves every task by one place.
        """
        if self.outcome is self.parts or self.minibatches.tasks == 1:
            return
        parts = self._three_or_more()
        whole, tasks = self.algorithm.couple(parts), len(parts.loss)
        for order in ([1, 0, *range(2, tasks)], [*range(1, tasks), 0]):
            found = self.algorithm.couple(self._mapped(parts, lambda a, order=order: a[order]))
            same = "the same rows in that order: a row must be of its own task"
            for name in ("direction", "loss"):
                got, want = getattr(found, name), getattr(whole, name)[order]
                term = f"the {name} with the tasks in another order"
                self.close("couple", term, got, same, want, np.abs(want).max(initial=0.0))

    def _three_or_more(self) -> Outcome:
        """The uncoupled outcome, of at least three tasks.

        Among two tasks, an exchange of the rows is the only other order, which
        an exchange of the tasks hides. A third task lies between the two.
        """
        if self.minibatches.tasks > 2:
            return self.parts

        def with_third(a: np.ndarray) -> np.ndarray:
            return np.concatenate([a, (0.25 * a[:1] + 0.75 * a[1:]).astype(a.dtype)])

        return self._mapped(self.parts, with_third)

    def _mapped(self, parts: Outcome, function: Callable[[np.ndarray], np.ndarray]) -> Outcome:
        """The outcome with every array of rows replaced."""
        direction, loss, state, coupling = parts
        coupling = None if coupling is None else tuple(map(function, coupling))
        state = state if state is self.state else map_arrays(function, state)
        return Outcome(function(direction), function(loss), state, coupling)

    def check_gradient(self, true_objective: Callable, seed: int) -> None:
        """The direction, or the mean of the directions, is the gradient."""
        direction, loss = self.outcome[:2]
        v = np.random.default_rng(seed).standard_normal(self.meta.shape)
        slope, sizes, want = direction @ v, abs(direction) @ abs(v), true_objective(self.meta)
        self.whole = np.ndim(want) == 0
        if self.whole:
            slope, sizes, term = slope.mean(), sizes.mean(), "the mean direction"
        else:
            term = "the direction"
            self.close("direction", "the loss", loss, "true_objective", want)
        self._compare(term, slope, true_objective, self.meta, v, sizes)

    def check_copies(self, true_objective: Callable, seed: int) -> None:
        """A task's direction is T times the derivative by its own copy of
        meta."""
        direction, tasks = self.outcome.direction, self.minibatches.tasks
        copies = np.tile(self.meta, (tasks, 1))
        got, want = true_objective(copies), true_objective(self.meta)
        self.close("true_objective", "the value at equal copies of meta", got, "that at meta", want)
        v = np.random.default_rng(seed).standard_normal(copies.shape)
        for i, along in enumerate(v[:, None] * np.eye(tasks)[..., None]):
            slope, sizes = direction[i] @ v[i] / tasks, abs(direction[i]) @ abs(v[i]) / tasks
            term = f"the direction of task {i} over T"
            self._compare(term, slope, true_objective, copies, along, sizes)

    def _compare(self, term: str, slope, true_objective, at, along, sizes) -> None:
        given = "direction", term, slope, "true_objective", true_objective, (at,), (along,)
        compare(self.findings, *given, self.tolerance, sizes)

    def check_expected(self, want: Outcome) -> None:
        """The outcome is the expected one, where that is not None."""
        if want.direction is not None:
            # phi - phi~ cancels: its error is relative to phi.
            scale = np.abs(want.direction).max() + np.abs(self.meta).max()
            got = self.outcome.direction
            self.close("direction", "the direction", got, "the expected one", want.direction, scale)
        if want.loss is not None:
            self.close("direction", "the loss", self.outcome.loss, "the expected one", want.loss)
        if want.state is not None:
            got, term = self.outcome.state, "the inner rule's state"
            given = "direction", term, got, "the expected state", want.state
            compare_states(self.findings, *given, self.tolerance)

    def check_inner_loop(self, expected: Outcome) -> None:
        """``adapt``, ``iterates``, state and losses are those of the inner loop
        of ``problem``."""
        iterates, states = self._inner_loop(self.state)
        self._check_adapted("adapt", self.adapted, iterates)
        if hasattr(self.algorithm, "iterates"):
            given = self.objective, self.meta, self.minibatches, self.state
            got = self.algorithm.iterates(*given)
            count = f"gives {len(got)} iterates of {len(iterates) - 1} inner steps"
            self.findings.require("iterates", len(got) == len(iterates), count)
            for j, (one, want) in enumerate(zip(got, iterates, strict=False)):
                spread = np.broadcast_to(one, want.shape)
                self.close("iterates", f"iterate {j}", spread, "that of problem's inner loop", want)
        if expected.state is None:
            self._check_state(self.outcome.state, states)
        if self.whole and expected.loss is None:
            want = self.objective.at(iterates[-2], self.minibatches[-1]).loss
            of = "the last mini-batch's before a step on it (or give the losses by expected)"
            self.close("direction", "the loss", self.outcome.loss, of, want)

    def check_start(self) -> None:
        """A start from a state is that of a rule which starts itself from
        it."""
        rule = self.algorithm.problem(self.objective, self.meta).rule
        start, direction = self.state, self.parts
        if start is None:
            start = self._merged(rule)
            if start is None:
                return
            direction = self.direction(start)
            iterates, states = self._inner_loop(start)
            self._check_adapted("adapt", self.adapt(start), iterates, " from a carried state")
            self._check_state(direction.state, states, " from a carried state")
        given = self.objective, self.meta, self.minibatches
        itself = _starting_from(self.algorithm, start).direction(*given)
        pairs = zip(_named(direction), _named(itself), strict=True)
        of = "that of a rule which starts itself from that state: direction must pass its state on"
        for (name, got), (_, want) in pairs:
            scale = np.abs(want).max(initial=0.0)
            scale = scale + np.abs(self.meta).max() if name == "the direction" else scale
            self.close("direction", f"{name} from a carried state", got, of, want, scale)

    def _inner_loop(self, state: Any) -> tuple[list[np.ndarray], list[Any]]:
        """The iterates ``(T, D)`` and the states of the inner loop."""
        problem = self.algorithm.problem(self.objective, self.meta)
        iterates, states = inner_loop(problem, self.minibatches, state)
        shape = (self.minibatches.tasks, self.objective.size)
        return [np.broadcast_to(phi, shape) for phi in iterates], states

    def _merged(self, rule: InnerRule) -> Any:
        """The rule's merged state after the inner loop, or None without a
        state."""
        _, states = self._inner_loop(None)
        if states[-1] is None:
            return None
        given = {"shared": None, "states": states[-1], "tasks": self.minibatches.tasks}
        return self.findings.call("problem's rule.merge", rule.merge, **given)

    def _check_adapted(
        self, name: str, got: np.ndarray, iterates: Sequence[np.ndarray], start: str = ""
    ) -> None:
        """The adapted parameters are the last iterate."""
        others = [j for j, each in enumerate(iterates) if np.array_equal(got, each)]
        k = len(iterates) - 1
        which = f", and is the one after {others[0]}" if others and k not in others else ""
        of = f"the one after all {k} steps of problem's inner loop{which}"
        self.close(name, f"the adapted phi{start}", got, of, iterates[-1])

    def _check_state(self, got: Any, states: Sequence[Any], start: str = "") -> None:
        """The state is the one after the last step, or the last but one."""
        k = len(states) - 1
        last_but_one = getattr(self.algorithm, "scores_on_last", False)
        wanted = [k - 1, k] if last_but_one else [k]
        if states[-1] is None or any(self._agree(got, states[j]) for j in wanted):
            return
        others = [j for j in range(k + 1) if self._agree(got, states[j])]
        found = f"the one after {others[0]}" if others and got is not None else form(got)
        steps = " or ".join(map(str, wanted))
        self.findings.require(
            "direction",
            False,
            f"the inner rule's state{start} is {found}, expected the one after {steps} of "
            f"{k} inner steps, {form(states[wanted[0]])}",
        )

    def _agree(self, got: Any, want: Any) -> bool:
        return states_agree(got, want, self.tolerance)


@dataclass(frozen=True)
class _StartingFrom:
    """``rule``, whose first step starts from ``start``."""

    rule: InnerRule
    start: Any

    @property
    def lr(self):
        return self.rule.lr

    def _own(self, state: Any) -> Any:
        return self.start if state is None else state

    def step(self, phi, g, state=None, j=0):
        return self.rule.step(phi, g, self._own(state), j)

    def adjoint(self, g, state, j, dphi, dstate=None):
        return self.rule.adjoint(g, self._own(state), j, dphi, dstate)

    def tangent(self, g, state, j, *directions):
        return self.rule.tangent(g, self._own(state), j, *directions)

    def merge(self, shared, states, tasks):
        return self.rule.merge(self._own(shared), self._own(states), tasks)


def _starting_from(algorithm: Algorithm, start: Any) -> Algorithm:
    """``algorithm`` with a rule that starts itself from the state ``start``."""

    def problem(objective, meta):
        given = algorithm.problem(objective, meta)
        return given._replace(rule=_StartingFrom(given.rule, start))

    made = copy.copy(algorithm)
    object.__setattr__(made, "rule", _StartingFrom(algorithm.rule, start))
    object.__setattr__(made, "problem", problem)
    return made


def _named(parts: Outcome) -> list[tuple[str, np.ndarray]]:
    """The per-task arrays of an outcome: everything except the rule's state."""
    coupling = [(f"coupling {i}", part) for i, part in enumerate(parts.coupling or ())]
    return [("the direction", parts.direction), ("the loss", parts.loss), *coupling]


def _of_task(state: Any, parts: Outcome, i: int) -> Any:
    """The state at the start of task ``i``; ``state`` if all tasks share it."""
    after = parts.state
    if state is None or after is None or after is state:
        return state
    shapes = [[np.shape(leaf) for leaf in leaves(each)] for each in (state, after)]
    return state if shapes[0] != shapes[1] else map_arrays(lambda a: a[i : i + 1], state)
