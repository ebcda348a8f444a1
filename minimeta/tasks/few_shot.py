"""Few-shot classification: a task is a few classes, relabelled 0 .. ways-1, and a few images of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from .minibatches import Episode, Minibatches, MinibatchSchedule


@dataclass(frozen=True, eq=False)
class FewShotImages:
    """Tasks of ``ways`` classes from ``images: (classes, images a class, height, width, channels)``, uint8.

    Images stay uint8, on the device they are on; a sample is gathered there, converted to the dtype asked for and divided
    by ``white`` (1 for images of 0 and 1, 255 for photographs).

    Raises
    ------
    ShapeError, SettingsError
        if images are not of that shape, or hold fewer than ``ways`` classes.
    """

    images: Array = field(repr=False)
    ways: int = 5
    white: int = 1

    def __post_init__(self) -> None:
        if self.images.ndim != 5:
            raise ShapeError(
                f"images must have shape (classes, images a class, height, width, channels), got {self.images.shape}"
            )
        if not 1 <= self.ways <= self.images.shape[0]:
            raise SettingsError(
                f"{self.ways}-way tasks cannot be drawn from {self.images.shape[0]} classes"
            )

    def sample(
        self,
        rng: np.random.Generator,
        tasks: int,
        schedule: MinibatchSchedule,
        dtype: Any = np.float32,
        xp: ModuleType | None = None,
    ) -> Minibatches:
        """A meta-batch for training: x ``(k, T, N, height, width, channels)``, y ``(k, T, N)`` int64.

        ``xp``, if given, must be the array module of ``images``: nothing moves between devices here.
        """
        each = sum(schedule.shots_each(self.ways))
        classes, drawings = self._draw(rng, tasks, each)
        take = self._taker(classes, drawings, dtype, xp)
        return Minibatches.gather(schedule.indices(rng, tasks, self.ways), take)

    def episode(
        self,
        rng: np.random.Generator,
        tasks: int,
        shots: int,
        queries: int,
        dtype: Any = np.float32,
        xp: ModuleType | None = None,
    ) -> Episode:
        """For evaluation: ``shots`` images of each class to adapt on, ``queries`` others of each to score on."""
        each = shots + queries
        classes, drawings = self._draw(rng, tasks, each)
        take = self._taker(classes, drawings, dtype, xp)
        first = each * np.arange(self.ways)[:, None]
        support, query = first + np.arange(shots), first + shots + np.arange(queries)
        return Episode(
            *(take(np.broadcast_to(part.ravel(), (tasks, part.size))) for part in (support, query))
        )

    def _draw(
        self, rng: np.random.Generator, tasks: int, each: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Distinct classes ``(T, ways)``, and distinct images of each ``(T, ways, each)``."""
        count, per_class = self.images.shape[:2]
        if each > per_class:
            raise SettingsError(
                f"{each} images of a class are asked for (shots and tail or queries), of {per_class} there are"
            )
        classes = np.stack([rng.choice(count, self.ways, replace=False) for _ in range(tasks)])
        order = rng.permuted(np.tile(np.arange(per_class), (tasks, self.ways, 1)), axis=2)
        return classes, order[:, :, :each]

    def _taker(self, classes: np.ndarray, drawings: np.ndarray, dtype: Any, xp: ModuleType | None):
        """The function from positions ``(..., T, N)``, counted class by class, to (x, y) on the device of the images."""
        own = array_module(self.images)
        if xp is not None and xp is not own:
            raise SettingsError(
                f"these images live in {own.__name__}, but a sample in {xp.__name__} was asked for"
            )
        rows, each = np.arange(len(classes))[:, None], drawings.shape[2]

        def take(positions: np.ndarray) -> tuple[Array, Array]:
            label = positions // each
            images = self.images[
                own.asarray(classes[rows, label]),
                own.asarray(drawings[rows, label, positions % each]),
            ]
            x = images.astype(dtype)
            if self.white != 1:
                x /= self.white
            return x, own.asarray(label)

        return take
