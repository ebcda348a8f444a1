"""What an algorithm is: a frozen description of how tasks turn a meta-parameter vector into directions.

init(objective, rng)                        -> meta (M,)
direction(objective, meta, minibatches)     -> per-task directions (T, M), which an outer step subtracts; losses (T,)
adapt(objective, meta, minibatches)         -> the tasks' own parameters (T, D)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from ..inner import InnerRule, Trajectory, adapt, unroll
from ..objectives import Batch, Differentiable, Point


class Outcome(NamedTuple):
    """What a meta-batch gives: ``direction (T, M)``, ``loss (T,)`` and the inner rule's state after each task."""

    direction: Array
    loss: Array
    state: Any


@dataclass(frozen=True)
class Algorithm(ABC):
    """Base of the algorithms that adapt phi by an inner ``rule``. A subclass writes ``run``."""

    rule: InnerRule
    can_pause: ClassVar[bool] = (
        False  # whether plain inner steps can come first, and ``run`` go on from their ``start``
    )

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "run" in vars(cls):  # another run need not take a start
            cls.can_pause = vars(cls).get("can_pause", False)

    def init(
        self,
        objective: Differentiable,
        rng: np.random.Generator,
        dtype: Any = np.float32,
        xp: ModuleType = np,
    ) -> Array:
        """A fresh meta-parameter vector: here phi itself, ``(D,)``."""
        return objective.init(rng, dtype, xp)

    def inner(self, objective: Differentiable, meta: Array) -> tuple[Array, InnerRule]:
        """Where the inner loop starts, ``(D,)``, and the rule by which it steps: here ``meta`` itself and ``rule``."""
        return meta, self.rule

    @abstractmethod
    def run(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Outcome:
        """Directions, losses, and the rule's state after each task, each started from the shared ``state``."""

    def couple(self, outcome: Any) -> Outcome:
        """What the tasks of a whole meta-batch have to do with each other: here nothing. Threads ``run`` on some each."""
        return outcome

    def direction(
        self, objective: Differentiable, meta: Array, minibatches: Sequence[Batch]
    ) -> tuple[Array, Array]:
        """Per-task directions ``(T, M)``, and ``(T,)`` the loss of the last mini-batch before any step on it."""
        outcome = self.couple(self.run(objective, meta, minibatches))
        return outcome.direction, outcome.loss

    def adapt(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Array:
        """Each task's parameters after one inner step on every mini-batch, ``(T, D)``."""
        phi, rule = self.inner(objective, meta)
        return adapt(objective, phi, minibatches, rule, state)

    def iterates(
        self,
        objective: Differentiable,
        meta: Array,
        minibatches: Sequence[Batch],
        state: Any = None,
    ) -> Sequence[Array]:
        """The parameters before the first inner step and after each, ``(D,) or (T, D)``; the last is ``adapt``'s."""
        phi, rule = self.inner(objective, meta)
        return unroll(objective, phi, minibatches, rule, "iterates", state).iterates


def only_on(part: str, rule: Any, objective: Any, meta: Array) -> Any:
    """``rule`` with its rate on one part of phi, ``objective.head`` or ``.context``, 0 elsewhere: that alone moves."""
    if not isinstance(rule.lr, (int, float)):
        raise SettingsError(
            f"an inner loop on the {part} alone takes one step size, a number, for all of it"
        )
    place = getattr(objective, part, slice(0, 0))
    if place == slice(0, 0):
        raise SettingsError(f"this inner loop adapts the {part} alone, but {objective!r} has none")
    rates = array_module(meta).zeros(objective.size, dtype=meta.dtype)
    rates[place] = rule.lr
    return replace(rule, lr=rates)


def mean(per_task: Array) -> Array:
    """The plain combiner: the mean over tasks, ``(T, M) -> (M,)``."""
    return per_task.mean(axis=0)


def unrolled(
    algorithm: Any,
    objective: Differentiable,
    meta: Array,
    minibatches: Sequence[Batch],
    state: Any = None,
) -> tuple[Trajectory, Point]:
    """The inner loop on all mini-batches but the last, kept as ``algorithm.store`` says; and the last one at its end."""
    require_minibatches(minibatches)
    phi, rule = algorithm.inner(objective, meta)
    trajectory = unroll(objective, phi, minibatches[:-1], rule, algorithm.store, state)
    return trajectory, objective.at(trajectory.last, minibatches[-1])


def require_minibatches(minibatches: Sequence[Batch]) -> None:
    """Raise the ShapeError of an empty meta-batch."""
    if len(minibatches) == 0:
        raise ShapeError("an algorithm needs at least one mini-batch a task, got none")
