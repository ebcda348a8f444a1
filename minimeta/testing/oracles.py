"""The definition of every algorithm, against which its direction is checked.

A definition is an objective whose gradient the direction must be, or the
direction computed in another way. ``oracle(algorithm, objective, minibatches,
state)`` returns the arguments of ``check_algorithm``. A definition uses no
derivatives except an objective's gradient and Hessian products. The complex
step differentiates the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import numpy as np

from ..algorithms import (
    ADML,
    FOMAML,
    IMAML,
    MAML,
    TAML,
    EntropyTAML,
    InnerProblem,
    MetaSGD,
    Outcome,
    Reptile,
    fgsm,
)
from ..inner import InnerRule
from ..objectives import Batch, Differentiable, Objective
from .without_hessian import without_hessian


@singledispatch
def oracle(
    algorithm: Any, objective: Differentiable, minibatches: Sequence[Batch], state: Any = None
) -> dict[str, Any]:
    """``true_objective``, ``expected`` or both, for ``check_algorithm``.

    Raises
    ------
    TypeError
        for an algorithm without an oracle in this file.
    """
    raise TypeError(f"no oracle is known for {type(algorithm).__name__}")


def inner_loop(
    problem: InnerProblem, minibatches: Sequence[Batch], state: Any = None
) -> tuple[list[np.ndarray], list[Any]]:
    """The k + 1 iterates and the k + 1 states of an inner loop, written out."""
    objective, start, rule = problem
    iterates, states = [start], [state]
    for j, batch in enumerate(minibatches):
        grad = objective.at(iterates[-1], batch).grad
        phi, after = rule.step(iterates[-1], grad, states[-1], j)
        iterates.append(phi)
        states.append(after)
    return iterates, states


def after_adaptation(
    algorithm: Any, objective: Differentiable, minibatches: Sequence[Batch], state: Any = None
) -> Callable[[np.ndarray], Outcome]:
    """The function from meta to the losses after ``algorithm``'s inner loop.

    The inner loop runs on all mini-batches except the last, and the losses are
    the last mini-batch's. The outcome holds the rule's state at the end of the
    inner loop.
    """

    def scored(meta: np.ndarray) -> Outcome:
        problem = algorithm.problem(objective, meta)
        iterates, states = inner_loop(problem, minibatches[:-1], state)
        return Outcome(None, objective.at(iterates[-1], minibatches[-1]).loss, states[-1])

    return scored


@oracle.register
def _(algorithm: MAML, objective, minibatches, state=None):
    """MAML, and every algorithm that differs from MAML only in its inner
    problem."""
    scored = after_adaptation(algorithm, objective, minibatches, state)
    return {"true_objective": lambda meta: scored(meta).loss, "expected": scored}


@oracle.register
def _(algorithm: FOMAML, objective, minibatches, state=None):
    """MAML's direction without Hessians, or the change of the last inner
    step."""
    if algorithm.update == "step":
        return {"expected": _change(algorithm.rule, objective, minibatches, state, since=-1)}
    maml, flat = MAML(algorithm.rule), without_hessian(objective)
    return {"expected": lambda meta: maml.direction(flat, meta, minibatches, state)}


@oracle.register
def _(algorithm: Reptile, objective, minibatches, state=None):
    """The change of the whole inner loop."""
    return {"expected": _change(algorithm.rule, objective, minibatches, state, since=0)}


def _change(
    rule: InnerRule,
    objective: Differentiable,
    minibatches: Sequence[Batch],
    state: Any,
    since: int,
) -> Callable[[np.ndarray], Outcome]:
    """The function from phi to iterate ``since`` minus the last iterate."""

    def change(phi: np.ndarray) -> Outcome:
        before, states = inner_loop(InnerProblem(objective, phi, rule), minibatches, state)
        loss = objective.at(before[-2], minibatches[-1]).loss
        return Outcome(before[:-1][since] - before[-1], loss, states[-1])

    return change


@oracle.register
def _(algorithm: MetaSGD, objective, minibatches, state=None):
    """The loss after the steps phi - alpha o g, written out."""

    def losses(meta: np.ndarray) -> np.ndarray:
        phi, alpha = meta[: objective.size], meta[objective.size :]
        for batch in minibatches[:-1]:
            phi = phi - alpha * objective.at(phi, batch).grad
        return objective.at(phi, minibatches[-1]).loss

    return {"true_objective": losses}


@oracle.register
def _(algorithm: IMAML, objective, minibatches, state=None):
    """(I + H/lambda)^{-1} g_k by a dense solve, where the inner loop ends."""

    def solved(meta: np.ndarray) -> Outcome:
        problem = algorithm.problem(objective, meta)
        iterates, states = inner_loop(problem, minibatches[:-1], state)
        query, train = (objective.at(iterates[-1], minibatches[i]) for i in (-1, -2))
        hessian = np.stack([train.hvp(axis) for axis in np.eye(objective.size)], axis=2)
        system = np.eye(objective.size) + hessian / algorithm.regularization
        solution = np.linalg.solve(system, query.grad[..., None])[..., 0]
        return Outcome(solution, query.loss, states[-1])

    return {"expected": solved}


@oracle.register
def _(algorithm: ADML, objective, minibatches, state=None):
    """The crossed losses. The attack moves with phi."""
    box = algorithm.eps, algorithm.low, algorithm.high

    def crossed(meta: np.ndarray) -> Outcome:
        attacked = [fgsm(objective, meta, batch, *box) for batch in minibatches]
        clean, adversarial = (
            after_adaptation(algorithm, objective, [*learned[:-1], scored[-1]], state)(meta)
            for learned, scored in ((minibatches, attacked), (attacked, minibatches))
        )
        return Outcome(None, clean.loss + adversarial.loss, clean.state)

    return {"true_objective": lambda meta: crossed(meta).loss, "expected": crossed}


@oracle.register
def _(algorithm: TAML, objective, minibatches, state=None):
    """MAML's mean loss plus the weighted inequality of the losses before
    adaptation."""
    scored = after_adaptation(algorithm, objective, minibatches, state)

    def whole(meta: np.ndarray) -> np.ndarray:
        initial = objective.at(meta, minibatches[0]).loss
        return scored(meta).loss.mean() + algorithm.weight * algorithm.measure.value(initial)

    return {"true_objective": whole, "expected": scored, "per_copy": True}


@oracle.register
def _(algorithm: EntropyTAML, objective, minibatches, state=None):
    """MAML's mean loss plus the weighted change of the predictions' entropy."""
    scored = after_adaptation(algorithm, objective, minibatches, state)
    entropy = Objective(objective.network, objective.entropy())

    def whole(meta: np.ndarray) -> np.ndarray:
        iterates, _ = inner_loop(algorithm.problem(objective, meta), minibatches[:-1], state)
        before = entropy.at(meta, minibatches[0]).loss
        gap = entropy.at(iterates[-1], minibatches[-1]).loss - before
        return (scored(meta).loss + algorithm.weight * gap).mean()

    return {"true_objective": whole, "expected": scored, "per_copy": True}
