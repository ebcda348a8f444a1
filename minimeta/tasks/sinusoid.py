"""Sine-wave regression: f(x) = a sin(x + b), one amplitude and phase a task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array
from ..errors import SettingsError
from .minibatches import Episode, Minibatches, MinibatchSchedule


@dataclass(frozen=True)
class Sinusoid:
    """Tasks a ~ U[amplitudes], b ~ U[phases], with x in ``domain``; x and y have shape ``(T, N, 1)``.

    Defaults are the Reptile paper's (section 4); ``phases=(0, math.pi)`` is the MAML paper's. With ``grid`` points, a
    task's examples are a random choice of that many evenly spaced x (the Reptile authors' demo uses 50); without, every x
    is uniform in ``domain``.
    """

    amplitudes: tuple[float, float] = (0.1, 5.0)
    phases: tuple[float, float] = (0.0, 2 * math.pi)
    domain: tuple[float, float] = (-5.0, 5.0)
    grid: int | None = None

    def sample(
        self,
        rng: np.random.Generator,
        tasks: int,
        schedule: MinibatchSchedule,
        dtype: Any = np.float64,
        xp: ModuleType = np,
    ) -> Minibatches:
        """A meta-batch for training."""
        wave = self.waves(rng, tasks)
        points = self._points(rng, tasks, sum(schedule.shots_each(ways=1)))

        def take(positions: np.ndarray) -> tuple[Array, Array]:
            x = points[np.arange(tasks)[:, None], positions]
            return xp.asarray(x[..., None], dtype=dtype), xp.asarray(
                _sine(wave, x)[..., None], dtype=dtype
            )

        return Minibatches.gather(schedule.indices(rng, tasks), take)

    def episode(
        self,
        rng: np.random.Generator,
        tasks: int,
        shots: int,
        queries: int,
        dtype: Any = np.float64,
        xp: ModuleType = np,
    ) -> Episode:
        """``shots`` uniform points to adapt on; ``queries`` evenly spaced ones over the domain to score on, so that the
        mean squared error approximates the integral (8)."""
        wave = self.waves(rng, tasks)
        sets = (
            rng.uniform(*self.domain, (tasks, shots)),
            np.broadcast_to(np.linspace(*self.domain, queries), (tasks, queries)),
        )
        pairs = [
            (
                xp.asarray(x[..., None], dtype=dtype),
                xp.asarray(_sine(wave, x)[..., None], dtype=dtype),
            )
            for x in sets
        ]
        return Episode(*pairs)

    def waves(self, rng: np.random.Generator, tasks: int) -> tuple[Array, Array]:
        """Amplitudes and phases, each ``(T, 1)`` on the host."""
        return rng.uniform(*self.amplitudes, (tasks, 1)), rng.uniform(*self.phases, (tasks, 1))

    def _points(self, rng: np.random.Generator, tasks: int, count: int) -> np.ndarray:
        if self.grid is None:
            return rng.uniform(*self.domain, (tasks, count))
        if count > self.grid:
            raise SettingsError(
                f"the schedule takes {count} points of a grid of {self.grid}: set shots to {self.grid} or less"
            )
        spaced = np.linspace(*self.domain, self.grid)
        return rng.permuted(np.broadcast_to(spaced, (tasks, self.grid)), axis=1)[:, :count]


def _sine(wave: tuple[Array, Array], x: np.ndarray) -> np.ndarray:
    amplitude, phase = wave
    return amplitude * np.sin(x + phase)
