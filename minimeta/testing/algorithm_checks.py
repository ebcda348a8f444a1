"""The check of an algorithm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..algorithms import Algorithm, Outcome
from ..objectives import Differentiable
from ..tasks import Minibatches
from .comparing import TOLERANCE, compare, leaves
from .findings import Findings, reported


@reported
def check_algorithm(
    algorithm: Algorithm,
    objective: Differentiable,
    meta: np.ndarray,
    minibatches: Minibatches,
    *,
    true_objective: Callable[[np.ndarray], np.ndarray] | None = None,
    expected: Callable[[np.ndarray], Outcome] | None = None,
    state: Any = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> float:
    """Checks ``direction``, after ``couple``, against a definition.

    ``true_objective`` is a function of float64 meta ``(M,)``. If its result is
    losses ``(T,)``, each direction must be the gradient of its task's loss, and
    the outcome's losses must be those losses. If its result is one number
    ``()``, the objective of the whole meta-batch, the *mean* of the directions
    must be its gradient. In both cases meta must not change. The uncoupled
    direction of a task must not depend on other tasks, since only ``couple``
    may couple them.

    The directions of Reptile and FOMAML are not the gradient of any function.
    For such an algorithm ``expected`` computes the direction, the losses and
    the inner rule's last state from meta in another way. Reptile's direction is
    phi - adapt(phi). FOMAML's is MAML's with the Hessian replaced by zero
    (``without_hessian``). An entry of ``expected`` that is None is not
    compared. Without both functions, only form and independence are checked.

    ``state`` is the inner rule's state at the start, shared by all tasks or per
    task.

    Returns the largest relative difference found.

    Raises
    ------
    CheckError
        naming each wrong result, and by how much.
    """
    with Findings(type(algorithm).__name__).reporting() as findings:
        check = _AlgorithmCheck(algorithm, objective, meta, minibatches, state, tolerance, findings)
        check.check_form()
        if state is None:
            check.check_independence()
        if true_objective is not None:
            check.check_gradient(true_objective, seed)
        if expected is not None:
            check.check_expected(expected(meta))
    return findings.worst


class _AlgorithmCheck:
    """The check of one algorithm at one meta on one meta-batch."""

    def __init__(self, algorithm, objective, meta, minibatches, state, tolerance, findings) -> None:
        self.algorithm, self.objective, self.meta = algorithm, objective, meta
        self.minibatches, self.tolerance, self.findings = minibatches, tolerance, findings
        data = {"meta": meta, "x": minibatches.x, "y": minibatches.y, "state": state}
        self.parts = findings.call(
            "direction",
            lambda meta, x, y, state: algorithm.direction(objective, meta, minibatches, state),
            **data,
        )
        self.outcome = findings.call("couple", algorithm.couple, outcome=self.parts)
        self.adapted = findings.call(
            "adapt",
            lambda meta, x, y, state: algorithm.adapt(objective, meta, minibatches, state),
            **data,
        )

    def close(self, term: str, got, want, scale=None) -> None:
        """A comparison with a value."""
        self.findings.close("direction", term, got, want, self.tolerance, scale)

    def check_form(self) -> None:
        """Directions, losses and adapted parameters have one row a task."""
        direction, loss, tasks = *self.outcome[:2], self.minibatches.tasks
        array, shape = self.findings.array, (tasks, self.meta.shape[-1])
        array("direction", "the direction", direction, shape, np.float64)
        array("direction", "the loss", loss, (tasks,), np.float64)
        array("adapt", "the adapted phi", self.adapted, (tasks, self.objective.size), np.float64)

    def check_independence(self) -> None:
        """The last task gives the same uncoupled outcome alone."""
        last = self.minibatches.of_tasks(self.minibatches.tasks - 1, self.minibatches.tasks)
        alone = self.algorithm.direction(self.objective, self.meta, last)
        for got, want in zip(_but_state(alone), _but_state(self.parts), strict=True):
            self.close("it depends on the other tasks: it", got, want[-1:])

    def check_gradient(self, true_objective: Callable, seed: int) -> None:
        """The direction, or the mean of the directions, is the gradient."""
        direction, loss = self.outcome[:2]
        v = np.random.default_rng(seed).standard_normal(self.meta.shape)
        slope, sizes, want = direction @ v, abs(direction) @ abs(v), true_objective(self.meta)
        if np.ndim(want) == 0:
            slope, sizes = slope.mean(), sizes.mean()
        else:
            self.close("the loss", loss, want)
        term, at, along = "the direction", (self.meta,), (v,)
        compare(
            self.findings,
            "direction",
            term,
            slope,
            true_objective,
            at,
            along,
            self.tolerance,
            sizes,
        )

    def check_expected(self, want: Outcome) -> None:
        """The outcome is the expected one, where that is not None."""
        if want.direction is not None:
            # phi - phi~ cancels: its error is relative to phi.
            scale = np.abs(want.direction).max() + np.abs(self.meta).max()
            self.close("the direction", self.outcome.direction, want.direction, scale)
        if want.loss is not None:
            self.close("the loss", self.outcome.loss, want.loss)
        if want.state is not None:
            for got, part in zip(leaves(self.outcome.state), leaves(want.state), strict=True):
                self.close("the inner rule's state", got, part)


def _but_state(parts: Outcome) -> list[np.ndarray]:
    """The per-task arrays of an outcome: everything except the rule's state."""
    return [parts.direction, parts.loss, *(parts.coupling or ())]
