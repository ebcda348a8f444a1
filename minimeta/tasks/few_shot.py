"""Few-shot classification.

A task is a few classes, relabelled 0 .. ways-1, and a few images of each class.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from numbers import Real
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import SettingsError, ShapeError
from ..objectives import check_generator
from .minibatches import Episode, Minibatches, MinibatchSchedule, check_counts


@dataclass(frozen=True, eq=False)
class FewShotImages:
    """Tasks of ``ways`` classes drawn from ``images``.

    ``images`` is (classes, images per class, height, width, channels), uint8 or
    floating. The images keep their dtype, on their device. A sample is gathered
    on that device, converted to the requested dtype, and divided by ``white``
    (1 for images of 0 and 1, 255 for photographs).

    Raises
    ------
    ShapeError
        if ``images`` is not an array of five axes, or holds no pixel.
    SettingsError
        if ``images`` is neither uint8 nor floating, or holds fewer than
        ``ways`` classes, or if ``ways`` is below 1, or ``white`` is not a
        positive finite number.
    """

    images: Array = field(repr=False)
    ways: int = 5
    white: int = 1

    def __post_init__(self) -> None:
        shape = getattr(self.images, "shape", None)
        if shape is None or len(shape) != 5 or 0 in shape:
            raise ShapeError(
                "images must have shape (classes, images per class, height, width, channels), "
                f"each 1 or more, got {type(self.images).__name__ if shape is None else shape}"
            )
        dtype = np.dtype(self.images.dtype)
        if dtype != np.uint8 and dtype.kind != "f":
            raise SettingsError(
                f"images must be uint8 or floating, got {dtype}: convert the images with astype"
            )
        check_counts(ways=self.ways)
        if self.ways > shape[0]:
            raise SettingsError(
                f"{self.ways}-way tasks cannot be drawn from {shape[0]} classes: "
                f"set ways from 1 to {shape[0]}"
            )
        if not (isinstance(self.white, Real) and 0 < self.white < math.inf):
            raise SettingsError(f"white must be a positive finite number, got {self.white!r}")
        self._warn_of_scale()

    def _warn_of_scale(self) -> None:
        if self.white == 1 and self.images.dtype.kind == "u" and self.images.max() > 1:
            warnings.warn(
                f"the images reach {int(self.images.max())}, and white is 1: give white=255 for "
                "inputs from 0 to 1",
                stacklevel=4,
            )

    @property
    def inputs(self) -> tuple[float, float]:
        """The range of the inputs of a network, (lowest, highest)."""
        low, high = float(self.images.min()) / self.white, float(self.images.max()) / self.white
        return min(low, 0.0), max(high, 1.0)  # black and white, if no image is beyond

    def sample(
        self,
        rng: np.random.Generator,
        tasks: int,
        schedule: MinibatchSchedule,
        dtype: Any = np.float32,
        xp: ModuleType | None = None,
    ) -> Minibatches:
        """A meta-batch for training.

        x is ``(k, T, N, height, width, channels)`` of ``dtype``, and y is ``(k,
        T, N)``, int64. ``xp``, if given, must be the array module of
        ``images``, because nothing moves between devices here.

        Raises
        ------
        SettingsError
            if ``tasks`` is below 1, if a class has fewer images than the
            schedule takes, or if ``xp`` is another array module.
        """
        check_counts(tasks=tasks)
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
        """An episode for evaluation.

        The support holds ``shots`` images per class. The query holds
        ``queries`` other images per class.

        Raises
        ------
        SettingsError
            if ``tasks``, ``shots`` or ``queries`` is below 1, if a class has
            fewer than ``shots + queries`` images, or if ``xp`` is not the array
            module of ``images``.
        """
        check_counts(tasks=tasks, shots=shots, queries=queries)
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
        """Distinct classes ``(T, ways)``, and distinct images ``(T, ways,
        each)``."""
        check_generator(rng)
        count, per_class = self.images.shape[:2]
        if each > per_class:
            raise SettingsError(
                f"asked for {each} images per class (shots plus tail or queries); "
                f"only {per_class} are available: set shots and tail_shots, or queries, lower"
            )
        classes = np.stack([rng.choice(count, self.ways, replace=False) for _ in range(tasks)])
        order = rng.permuted(np.tile(np.arange(per_class), (tasks, self.ways, 1)), axis=2)
        return classes, order[:, :, :each]

    def _taker(self, classes: np.ndarray, drawings: np.ndarray, dtype: Any, xp: ModuleType | None):
        """The function from positions ``(..., T, N)`` to (x, y).

        Positions count class by class. x and y are on the device of the images.
        """
        own = array_module(self.images)
        if xp is not None and xp is not own:
            raise SettingsError(
                f"the images are {own.__name__} arrays, but the sample must be in {xp.__name__}: "
                f"give FewShotImages the images as {xp.__name__} arrays"
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
