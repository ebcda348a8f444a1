"""What an algorithm is: how tasks turn a meta-parameter vector into directions.

An algorithm is a frozen description. With meta the vector that is learned,
``(M,)``, it has one contract:

    init(objective, rng)        -> meta, fresh
    problem(objective, meta)    -> InnerProblem(objective, start, rule): which
                                   objective the inner loop descends, from where,
                                   by which rule
    direction(objective, meta, minibatches, state)
                                -> Outcome(direction (T, M), loss (T,), state)
    couple(outcome)             -> Outcome, once all tasks of a meta-batch are in it
    prepared(plan)              -> the algorithm, fitted to a run and found to make
                                   sense in it

Training shares the tasks of a meta-batch among threads, so ``direction`` sees some of
them and no task may see another. ``couple`` then sees all. Few algorithms have
something to couple. ``adapt``, ``iterates``, ``predict`` and ``meta_gradient`` are
written once, here, from these.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from ..inner import RULES, InnerRule, Trajectory, adapt, unroll
from ..objectives import Batch, Differentiable, Point, Predicting, asked, part_of
from ..registry import Registry, setting

ALGORITHMS = Registry("algorithm")


class InnerProblem(NamedTuple):
    """An inner loop: it descends ``objective`` from ``start``, ``(D,)``, by ``rule``."""

    objective: Differentiable
    start: Array
    rule: InnerRule


class Outcome(NamedTuple):
    """The outcome of tasks, a row each: ``direction (T, M)``, which an outer step subtracts;
    ``loss (T,)``; the inner rule's ``state`` after the task; and ``coupling``, arrays ``(T, ...)``
    that ``couple`` needs, if any."""

    direction: Array
    loss: Array
    state: Any
    coupling: tuple[Array, ...] | None = None


def mean(per_task: Array) -> Array:
    """The plain combiner: the mean over tasks, ``(T, M) -> (M,)``."""
    return per_task.mean(axis=0)


class Plan(NamedTuple):
    """A run, as far as an algorithm may depend on it.

    ``k`` mini-batches a task, the last of which is a set of its own with
    ``separate_tail``; ``tasks`` in a meta-batch; the function that combines their
    directions; the range of the inputs.
    """

    objective: Differentiable
    k: int
    separate_tail: bool = False
    tasks: int = 1
    combine: Callable[[Array], Array] = mean
    inputs: tuple[float, float] = (-inf, inf)


@dataclass(frozen=True)
class Algorithm(ABC):
    """Base of all algorithms. A subclass writes ``direction``.

    Raises
    ------
    SettingsError
        if ``rule`` is no inner rule.
    """

    rule: InnerRule = setting(help="inner rule", flag="inner", registry=RULES, prefix="inner_")
    least_k: ClassVar[int] = 1  # mini-batches a task without which a run makes no sense
    uses_context: ClassVar[bool] = False  # whether it adapts context parameters

    def __post_init__(self) -> None:
        if not callable(getattr(self.rule, "step", None)):
            name = type(self).__name__
            raise SettingsError(
                f"{name} needs an inner rule, got {self.rule!r}: use {name}(SGD({self.rule!r}))"
            )

    def init(
        self,
        objective: Differentiable,
        rng: np.random.Generator,
        dtype: Any = np.float32,
        xp: ModuleType = np,
    ) -> Array:
        """A fresh meta-parameter vector ``(M,)``: by default phi itself, M = D."""
        return objective.init(rng, dtype, xp)

    def problem(self, objective: Differentiable, meta: Array) -> InnerProblem:
        """The inner loop at ``meta``: by default ``objective`` from phi = ``meta`` by ``rule``."""
        return InnerProblem(objective, meta, self.rule)

    @abstractmethod
    def direction(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Outcome:
        """Directions and losses of the tasks, each started from the rule's shared ``state``.

        The loss is that of the last mini-batch before any step on it.
        """

    def couple(self, outcome: Outcome) -> Outcome:
        """The outcome of a whole meta-batch, whose tasks may depend on each other: by default they
        do not."""
        return outcome

    def prepared(self, plan: Plan) -> Algorithm:
        """The algorithm for a run: by default itself.

        Raises
        ------
        SettingsError
            if the algorithm makes no sense there, with the setting to change.
        """
        if plan.k < self.least_k:
            raise SettingsError(
                f"{ALGORITHMS.name_of(self)} adapts on k-1 mini-batches and scores on the last: "
                f"set k to {self.least_k} or more"
            )
        if not self.uses_context and part_of(plan.objective, "context") != slice(0, 0):
            users = [name for name, other in ALGORITHMS.items() if other.uses_context]
            raise SettingsError(
                f"context parameters are for {', '.join(users)}; {ALGORITHMS.name_of(self)} adapts "
                "the parameters that all networks have: leave context out (--context none)"
            )
        return self

    def meta_gradient(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Outcome:
        """The coupled outcome of a whole meta-batch."""
        return self.couple(self.direction(objective, meta, minibatches, state))

    def adapt(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Array:
        """Each task's parameters after one inner step on every mini-batch, ``(T, D)``."""
        descended, start, rule = self.problem(objective, meta)
        return adapt(descended, start, minibatches, rule, state)

    def iterates(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Sequence[Array]:
        """The parameters before the first inner step and after each, ``(D,) or (T, D)``; the last
        are ``adapt``'s."""
        descended, start, rule = self.problem(objective, meta)
        return unroll(descended, start, minibatches, rule, "iterates", state).iterates

    def predict(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        x: Array,
        state: Any = None,
    ) -> Array:
        """Predictions ``(T, N, *output)`` for ``x: (T, N, *input)`` after adaptation.

        Raises
        ------
        SettingsError
            if ``objective`` predicts nothing.
        """
        phi = self.adapt(objective, meta, minibatches, state)
        why = f"{type(self).__name__}.predict asks for predictions"
        return asked(objective, Predicting, why).predict(phi, x)


class Inner(NamedTuple):
    """An inner loop on all mini-batches but the last, and the objective on the last at its end."""

    trajectory: Trajectory
    query: Point


def unrolled(
    algorithm: Any,
    objective: Differentiable,
    meta: Array,
    minibatches: Sequence[Batch],
    state: Any = None,
) -> Inner:
    """The inner loop of ``algorithm``, kept as ``algorithm.store`` says, and its query."""
    require_minibatches(minibatches)
    descended, start, rule = algorithm.problem(objective, meta)
    trajectory = unroll(descended, start, minibatches[:-1], rule, algorithm.store, state)
    return Inner(trajectory, objective.at(trajectory.last, minibatches[-1]))


def only_on(part: str, rule: Any, objective: Differentiable, meta: Array) -> Any:
    """``rule`` with its rate on one part of phi, "head" or "context", and 0 elsewhere: only that
    part moves.

    Raises
    ------
    SettingsError
        if the objective has no such part, or the rule's rate is not one number.
    """
    if not isinstance(rule.lr, (int, float)):
        raise SettingsError(f"an inner loop on the {part} alone takes one step size, a number")
    place = part_of(objective, part)
    if place == slice(0, 0):
        raise SettingsError(f"this inner loop adapts the {part} alone, but {objective!r} has none")
    rates = array_module(meta).zeros(objective.size, dtype=meta.dtype)
    rates[place] = rule.lr
    return replace(rule, lr=rates)


def require_minibatches(minibatches: Sequence[Batch]) -> None:
    """Raise the ShapeError of an empty meta-batch."""
    if len(minibatches) == 0:
        raise ShapeError("an algorithm needs at least one mini-batch a task, got none")
