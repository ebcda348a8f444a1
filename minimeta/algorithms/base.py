"""The contract of an algorithm, which turns tasks and meta into directions.

An algorithm is a frozen description. The meta-parameters ``meta``, ``(M,)``,
are the learned vector. An algorithm has five methods:

    init(objective, rng)        -> meta, fresh
    problem(objective, meta)    -> InnerProblem(objective, start, rule): the
                                   objective that the inner loop descends, its
                                   start, and its rule
    direction(objective, meta, minibatches, state)
                                -> Outcome(direction (T, M), loss (T,), state)
    couple(outcome)             -> Outcome of a whole meta-batch, whose tasks
                                   may depend on each other
    prepared(plan)              -> the algorithm fitted to a run, after a check
                                   that it makes sense there

Training shares the tasks of a meta-batch among threads. ``direction`` therefore
sees only some of the tasks, and no task may depend on another. ``couple`` then
sees all tasks. Most algorithms have nothing to couple. This file derives
``adapt``, ``iterates``, ``predict`` and ``meta_gradient`` from the five
methods.
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
from ..inner import RULES, InnerRule, Trajectory, adapt, is_per_step, unroll
from ..objectives import (
    Batch,
    Differentiable,
    Point,
    Predicting,
    asked,
    check_generator,
    part_of,
)
from ..registry import Registry, setting

ALGORITHMS = Registry("algorithm")


class InnerProblem(NamedTuple):
    """An inner loop that descends ``objective`` from ``start``, ``(D,)``, by
    ``rule``."""

    objective: Differentiable
    start: Array
    rule: InnerRule


class Outcome(NamedTuple):
    """The outcome of T tasks, one row per task.

    An outer step subtracts the combined ``direction``, ``(T, M)``. ``loss`` is
    ``(T,)``. ``state`` is the inner rule's state after the task. ``coupling``
    holds the arrays ``(T, ...)`` that ``couple`` needs, or None.
    """

    direction: Array
    loss: Array
    state: Any
    coupling: tuple[Array, ...] | None = None


def mean(per_task: Array) -> Array:
    """The plain combiner: the mean over tasks, ``(T, M) -> (M,)``."""
    return per_task.mean(axis=0)


class Plan(NamedTuple):
    """The properties of a run on which an algorithm may depend.

    A task has ``k`` mini-batches. With ``separate_tail`` the last mini-batch
    shares no example with the others. A meta-batch has ``tasks`` tasks.
    ``combine`` maps their directions ``(T, M)`` to one, ``(M,)``. ``inputs`` is
    the range of the inputs, (lowest, highest).
    """

    objective: Differentiable
    k: int
    separate_tail: bool = False
    tasks: int = 1
    combine: Callable[[Array], Array] = mean
    inputs: tuple[float, float] = (-inf, inf)


@dataclass(frozen=True)
class Algorithm(ABC):
    """Base of all algorithms. A subclass must define ``direction``.

    Raises
    ------
    SettingsError
        if ``rule`` is not an inner rule.
    """

    rule: InnerRule = setting(help="inner rule", flag="inner", registry=RULES, prefix="inner_")
    scores_on_last: ClassVar[bool] = True  # takes no inner step on the last mini-batch
    least_k: ClassVar[int] = 1  # mini-batches a task without which a run makes no sense
    uses_context: ClassVar[bool] = False  # whether it adapts context parameters

    def __post_init__(self) -> None:
        if isinstance(self.rule, type) or not callable(getattr(self.rule, "step", None)):
            name = type(self).__name__
            rate = self.rule if isinstance(self.rule, (int, float)) else 0.01
            told = self.rule.__name__ if isinstance(self.rule, type) else repr(self.rule)
            raise SettingsError(
                f"{name} needs an inner rule, got {told}: use {name}(SGD({rate!r}))"
            )

    def init(
        self,
        objective: Differentiable,
        rng: np.random.Generator,
        dtype: Any = np.float32,
        xp: ModuleType = np,
    ) -> Array:
        """Fresh meta-parameters ``(M,)`` of dtype ``dtype``; by default phi, M
        = D."""
        check_generator(rng)
        return objective.init(rng, dtype, xp)

    def problem(self, objective: Differentiable, meta: Array) -> InnerProblem:
        """The inner loop at ``meta``.

        By default the inner loop descends ``objective`` from phi = ``meta`` by
        ``rule``.
        """
        return InnerProblem(objective, meta, self.rule)

    @abstractmethod
    def direction(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Outcome:
        """Directions ``(T, M)`` and losses ``(T,)`` of the tasks.

        Every task starts from the same ``state`` of the rule. The loss is the
        loss of the last mini-batch before any step on that mini-batch.
        """

    def couple(self, outcome: Outcome) -> Outcome:
        """The outcome of a whole meta-batch, given the outcomes of its tasks.

        Here tasks may depend on each other. By default they do not.
        """
        return outcome

    def prepared(self, plan: Plan) -> Algorithm:
        """The algorithm fitted to a run; by default unchanged.

        Raises
        ------
        SettingsError
            if the algorithm makes no sense in that run. The message names the
            setting to change.
        """
        rates, steps = self.rule.lr, plan.k - self.scores_on_last
        if is_per_step(rates) and len(rates) < steps:
            raise SettingsError(
                f"inner_lr has {len(rates)} step sizes, but this run takes {steps} inner steps: "
                "give one number, or one per step (write 0.1, not 0,1)"
            )
        if plan.k < self.least_k:
            raise SettingsError(
                f"{ALGORITHMS.name_of(self)} adapts on k-1 mini-batches and scores on the last, "
                f"but k is {plan.k}: set k to {self.least_k} or more"
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
        """Each task's parameters after one inner step on every mini-batch,
        ``(T, D)``."""
        descended, start, rule = self.problem(objective, meta)
        return adapt(descended, start, minibatches, rule, state)

    def iterates(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Sequence[Array]:
        """The parameters before the first inner step and after every step.

        Each entry is ``(D,)`` or ``(T, D)``. The last entry equals the result
        of ``adapt``.
        """
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
        """Predictions ``(T, N, *output)`` for ``x: (T, N, *input)`` after
        adaptation.

        Raises
        ------
        SettingsError
            if ``objective`` has no ``predict``.
        """
        phi = self.adapt(objective, meta, minibatches, state)
        why = f"{type(self).__name__}.predict needs predictions"
        return asked(objective, Predicting, why).predict(phi, x)


class Inner(NamedTuple):
    """An inner loop and its query.

    ``trajectory`` is the inner loop on all mini-batches except the last.
    ``query`` is the objective on the last mini-batch at the end of that loop.
    """

    trajectory: Trajectory
    query: Point


def unrolled(
    algorithm: Any,
    objective: Differentiable,
    meta: Array,
    minibatches: Sequence[Batch],
    state: Any = None,
) -> Inner:
    """The inner loop of ``algorithm``, stored by ``algorithm.store``, and its
    query."""
    require_minibatches(minibatches)
    descended, start, rule = algorithm.problem(objective, meta)
    trajectory = unroll(descended, start, minibatches[:-1], rule, algorithm.store, state)
    return Inner(trajectory, objective.at(trajectory.last, minibatches[-1]))


def only_on(part: str, rule: Any, objective: Differentiable, meta: Array) -> Any:
    """``rule`` with its rate on one part of phi, and the rate 0 elsewhere.

    ``part`` is "head" or "context". Only that part moves.

    Raises
    ------
    SettingsError
        if the objective has no such part, or if the rule's rate is not one
        number.
    """
    if not isinstance(rule.lr, (int, float)):
        raise SettingsError(
            f"an inner loop on the {part} alone needs one number as its step size, got a "
            f"{type(rule.lr).__name__}"
        )
    place = part_of(objective, part)
    if place == slice(0, 0):
        raise SettingsError(
            f"this inner loop adapts the {part} alone, but {objective!r} has no {part}"
        )
    rates = array_module(meta).zeros(objective.size, dtype=meta.dtype)
    rates[place] = rule.lr
    return replace(rule, lr=rates)


def require_minibatches(minibatches: Sequence[Batch]) -> None:
    """Raise a ShapeError if a meta-batch has no mini-batches."""
    if len(minibatches) == 0:
        raise ShapeError("an algorithm needs at least one mini-batch per task, got 0")
