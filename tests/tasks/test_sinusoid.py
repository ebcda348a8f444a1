"""Sine waves: the papers' ranges, and the same tasks from the same seed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.testing.strategies import seeds


@given(st.integers(1, 4), st.integers(1, 8), st.sampled_from([None, 50]), seeds)
def test_a_task_is_one_wave_in_the_papers_ranges(k, size, grid, seed):
    tasks = mm.Sinusoid(grid=grid)
    batches = tasks.sample(np.random.default_rng(seed), 3, mm.MinibatchSchedule(k, size))
    assert batches.x.shape == batches.y.shape == (k, 3, size, 1)
    amplitude, phase = tasks.waves(np.random.default_rng(seed), 3)
    assert ((amplitude >= 0.1) & (amplitude <= 5) & (phase >= 0) & (phase <= 2 * math.pi)).all()
    assert np.array_equal(batches.y, amplitude[:, :, None] * np.sin(batches.x + phase[:, :, None]))
    assert (abs(batches.x) <= 5).all()
    if grid:
        steps = (batches.x + 5) / 10 * 49
        assert np.allclose(steps, steps.round(), atol=1e-12)


def test_the_maml_papers_phases_stop_at_pi():
    _, phase = mm.Sinusoid(phases=(0, math.pi)).waves(np.random.default_rng(0), 10_000)
    assert phase.max() <= math.pi and phase.max() > 3.1


@given(seeds)
def test_dtype_changes_precision_and_nothing_else(seed):
    schedule = mm.MinibatchSchedule(2, 4, "separate")
    double, single = (
        mm.Sinusoid().sample(np.random.default_rng(seed), 2, schedule, dtype)
        for dtype in (float, np.float32)
    )
    assert single.x.dtype == np.float32 and np.array_equal(double.y.astype(np.float32), single.y)


def test_queries_are_evenly_spaced_over_the_domain():
    episode = mm.Sinusoid().episode(np.random.default_rng(0), 2, 5, 101)
    assert episode.support[0].shape == (2, 5, 1)
    assert np.allclose(episode.query[0][1, :, 0], np.linspace(-5, 5, 101))


def test_a_grid_too_small_is_refused():
    with pytest.raises(mm.SettingsError, match="grid of 50"):
        mm.Sinusoid(grid=50).sample(np.random.default_rng(0), 1, mm.MinibatchSchedule(6, 10))


@pytest.mark.parametrize("name", ["amplitudes", "phases", "domain"])
@pytest.mark.parametrize(
    "interval", [(1, 0), (0, math.inf), (math.nan, 1), (0, 1, 2), 3, None, ("a", "b"), (0j, 1)]
)
def test_an_interval_that_is_none_is_refused(name, interval):
    with pytest.raises(mm.SettingsError, match=f"{name} must be two finite numbers, the lower"):
        mm.Sinusoid(**{name: interval})


@pytest.mark.parametrize("grid", [0, -1, 2.5, True])
def test_a_grid_that_is_no_count_is_refused(grid):
    with pytest.raises(mm.SettingsError, match="grid must be a whole number, 1 or more"):
        mm.Sinusoid(grid=grid)
