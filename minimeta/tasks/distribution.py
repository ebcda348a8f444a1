"""The protocols of a task distribution, and a base for distributions of one's
own.

A distribution draws T tasks at once. Training calls ``sample``, and evaluation
calls ``episode``. Both get a random generator, on the host, and must draw all
random numbers from it: the same generator gives the same tasks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..arrays.backend import Array
from ..errors import SettingsError, ShapeError
from ..objectives import check_generator
from .minibatches import Episode, Minibatches, MinibatchSchedule, check_counts


@runtime_checkable
class TaskDistribution(Protocol):
    """The part of a task distribution that meta-training uses."""

    def sample(
        self,
        rng: np.random.Generator,
        tasks: int,
        schedule: MinibatchSchedule,
        dtype: Any,
        xp: ModuleType,
    ) -> Minibatches:
        """A meta-batch of ``tasks`` tasks.

        x is ``(k, T, N, *input)`` and y ``(k, T, N, *target)``, arrays of the
        module ``xp``. x and real targets have the dtype ``dtype``. Targets of
        classes are integers from 0.
        """


@runtime_checkable
class EpisodeDistribution(Protocol):
    """The part of a task distribution that evaluation uses."""

    def episode(
        self,
        rng: np.random.Generator,
        tasks: int,
        shots: int,
        queries: int,
        dtype: Any,
        xp: ModuleType,
    ) -> Episode:
        """The support and the query set of ``tasks`` tasks.

        The support holds ``shots`` examples of each class, the query
        ``queries`` others. In regression a task counts as one class. Shapes and
        dtypes are those of ``TaskDistribution.sample``, without the axis k.
        """


class ExampleTasks(ABC):
    """Base of a task distribution whose examples are drawn independently.

    A subclass defines ``examples`` alone. ``sample`` and ``episode`` follow.
    The base suits regression: its tasks have no classes.
    """

    @abstractmethod
    def examples(
        self, rng: np.random.Generator, tasks: int, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """``count`` examples of each of ``tasks`` new tasks.

        x is ``(T, count, *input)`` and y ``(T, count, *target)``, NumPy arrays.
        Integers and truth values are labels of classes and become int64.
        """

    def sample(
        self,
        rng: np.random.Generator,
        tasks: int,
        schedule: MinibatchSchedule,
        dtype: Any = np.float64,
        xp: ModuleType = np,
    ) -> Minibatches:
        """A meta-batch for training, x and y ``(k, T, N, ...)``.

        Raises
        ------
        ShapeError, SettingsError
            if ``examples`` returns other shapes, or numbers that are not
            finite.
        """
        x, y = self._drawn(rng, tasks, sum(schedule.shots_each(ways=1)), dtype, xp)
        rows = np.arange(tasks)[:, None]
        return Minibatches.gather(
            schedule.indices(rng, tasks),
            lambda places: (x[rows, xp.asarray(places)], y[rows, xp.asarray(places)]),
        )

    def episode(
        self,
        rng: np.random.Generator,
        tasks: int,
        shots: int,
        queries: int,
        dtype: Any = np.float64,
        xp: ModuleType = np,
    ) -> Episode:
        """An episode for evaluation: ``shots`` examples, then ``queries``
        others.

        Raises
        ------
        ShapeError, SettingsError
            if ``examples`` returns other shapes, or numbers that are not
            finite.
        """
        check_counts(shots=shots, queries=queries)
        x, y = self._drawn(rng, tasks, shots + queries, dtype, xp)
        return Episode((x[:, :shots], y[:, :shots]), (x[:, shots:], y[:, shots:]))

    def _drawn(
        self, rng: np.random.Generator, tasks: int, count: int, dtype: Any, xp: ModuleType
    ) -> tuple[Array, Array]:
        """The examples in ``dtype`` and ``xp``, their shapes checked."""
        check_generator(rng)
        check_counts(tasks=tasks, examples=count)
        drawn, of = self.examples(rng, tasks, count), f"{type(self).__name__}.examples"
        if not isinstance(drawn, tuple) or len(drawn) != 2:
            raise ShapeError(f"{of} must return a pair (x, y), got {type(drawn).__name__}")
        x, y = drawn
        for name, array in (("x", x), ("y", y)):
            if np.shape(array)[:2] != (tasks, count):
                raise ShapeError(
                    f"{of} must return {name} of shape ({tasks}, {count}, ...), "
                    f"got {np.shape(array)}"
                )
            if np.asarray(array).dtype.kind not in "biuf":
                raise SettingsError(
                    f"{of} must return {name} of real numbers, got {np.asarray(array).dtype}"
                )
            if not np.isfinite(array).all():
                raise SettingsError(f"{of} returned {name} with numbers that are not finite")
        labels = np.asarray(y).dtype.kind in "biu"
        return xp.asarray(x, dtype=dtype), xp.asarray(y, dtype=np.int64 if labels else dtype)
