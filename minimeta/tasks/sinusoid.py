"""Sine-wave regression: f(x) = a sin(x + b), one amplitude and phase per
task."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array
from ..errors import SettingsError
from ..objectives import check_generator
from .minibatches import Episode, Minibatches, MinibatchSchedule, check_counts


@dataclass(frozen=True)
class Sinusoid:
    """Tasks f(x) = a sin(x + b) with a ~ U[amplitudes] and b ~ U[phases].

    x lies in ``domain``. x and y have shape ``(T, N, 1)``. The defaults are the
    Reptile paper's (section 4). The MAML paper uses ``phases=(0, math.pi)``.
    With ``grid``, a task's examples are drawn without repetition from ``grid``
    evenly spaced x (the Reptile authors' demo uses 50). Without ``grid``, every
    x is uniform in ``domain``.

    Raises
    ------
    SettingsError
        if ``amplitudes``, ``phases`` or ``domain`` is not two finite numbers,
        the lower first, or if ``grid`` is not None or a whole number of 1 or
        more.
    """

    amplitudes: tuple[float, float] = (0.1, 5.0)
    phases: tuple[float, float] = (0.0, 2 * math.pi)
    domain: tuple[float, float] = (-5.0, 5.0)
    grid: int | None = None

    @property
    def inputs(self) -> tuple[float, float]:
        """The range of x."""
        return self.domain

    def __post_init__(self) -> None:
        for name in ("amplitudes", "phases", "domain"):
            _check_interval(name, getattr(self, name))
        if self.grid is not None:
            check_counts(grid=self.grid)

    def sample(
        self,
        rng: np.random.Generator,
        tasks: int,
        schedule: MinibatchSchedule,
        dtype: Any = np.float64,
        xp: ModuleType = np,
    ) -> Minibatches:
        """A meta-batch for training, x and y ``(k, T, N, 1)``.

        Raises
        ------
        SettingsError
            if ``tasks`` is below 1, or the schedule takes more points than the
            grid has.
        """
        check_counts(tasks=tasks)
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
        """An episode for evaluation.

        The support holds ``shots`` uniform points. The query holds ``queries``
        evenly spaced points over the domain, so that the mean squared error
        approximates the integral of equation (8).

        Raises
        ------
        SettingsError
            if ``tasks``, ``shots`` or ``queries`` is below 1.
        """
        check_counts(tasks=tasks, shots=shots, queries=queries)
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
        check_generator(rng)
        return rng.uniform(*self.amplitudes, (tasks, 1)), rng.uniform(*self.phases, (tasks, 1))

    def _points(self, rng: np.random.Generator, tasks: int, count: int) -> np.ndarray:
        if self.grid is None:
            return rng.uniform(*self.domain, (tasks, count))
        if count > self.grid:
            raise SettingsError(
                f"the schedule takes {count} points from a grid of {self.grid}: "
                f"set shots to {self.grid} or less"
            )
        spaced = np.linspace(*self.domain, self.grid)
        return rng.permuted(np.broadcast_to(spaced, (tasks, self.grid)), axis=1)[:, :count]


def _check_interval(name: str, interval: object) -> None:
    try:
        low, high = interval  # type: ignore[misc]
        holds = -math.inf < low <= high < math.inf
    except (TypeError, ValueError):
        holds = False
    if not holds:
        raise SettingsError(f"{name} must be two finite numbers, the lower first, got {interval!r}")


def _sine(wave: tuple[Array, Array], x: np.ndarray) -> np.ndarray:
    amplitude, phase = wave
    return amplitude * np.sin(x + phase)
