"""The outer loop: step sizes, streams of tasks, combined directions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.arrays import threads
from minimeta.errors import DivergenceError
from minimeta.testing import assert_same
from minimeta.training.meta_training import MetaTraining, checked_mean


def _training(**options):
    defaults = dict(
        objective=mm.Objective(mm.mlp([1, 5, 1]), mm.MeanSquaredError()),
        algorithm=mm.Reptile(mm.SGD(0.02)),
        tasks=mm.Sinusoid(),
        schedule=mm.MinibatchSchedule(3, 4),
        outer=mm.SGD(0.5),
        iterations=10,
        workers=1,
    )
    return MetaTraining(**(defaults | options))


@given(st.integers(1, 50), st.floats(0, 1), st.floats(0, 1))
def test_epsilon_falls_linearly(iterations, epsilon, final):
    training = _training(iterations=iterations, outer=mm.SGD(epsilon), epsilon_final=final)
    steps = [training.epsilon_at(i) for i in range(iterations + 1)]
    assert np.allclose(steps, np.linspace(epsilon, final, iterations + 1), atol=1e-15)


def test_a_meta_step_is_the_papers_interpolation():
    training = _training(meta_batch=4)
    state = training.start()
    with training.stepper() as step:
        after, _ = step(state)
    adapted = training.algorithm.adapt(training.objective, state.meta, training.sample(0))
    want = state.meta + 0.5 * (adapted.mean(axis=0) - state.meta)
    assert np.allclose(after.meta, want, atol=1e-6)  # float32


def test_tasks_of_a_meta_step_depend_on_seed_and_iteration_alone():
    one, two, other = _training(), _training(outer=mm.SGD(0.1)), _training(seed=1)
    assert_same(one.sample(3).x, two.sample(3).x, "tasks")
    assert not np.array_equal(one.sample(3).x, one.sample(4).x)
    assert not np.array_equal(one.sample(3).x, other.sample(3).x)


def test_adams_moments_pass_from_task_to_task_only_where_asked():
    for carry in (True, False):
        training = _training(
            algorithm=mm.Reptile(mm.Adam(0.01)), carry_inner_state=carry, meta_batch=2
        )
        with training.stepper() as step:
            state, _ = step(training.start())
        assert (state.inner.steps == 6) if carry else state.inner is None


@pytest.mark.parametrize("algorithm", [mm.MAML, mm.FOMAML])
@pytest.mark.parametrize("workers", [1, 2])
def test_without_inner_steps_adams_moments_stay_as_they_are(algorithm, workers):
    training = _training(
        algorithm=algorithm(mm.Adam(0.01)),
        schedule=mm.MinibatchSchedule(1, 4),
        meta_batch=2,
        workers=workers,
    )
    with training.stepper() as step:
        state, _ = step(training.start())
        state, _ = step(state)
    assert state.inner is None


def test_one_rate_per_step_and_carried_moments_go_together():
    training = _training(algorithm=mm.Reptile(mm.Adam((1e-3, 2e-3, 3e-3))), meta_batch=2)
    with training.stepper() as step:
        state, _ = step(training.start())
        state, _ = step(state)
    assert state.inner.steps == 12


def test_moments_of_dead_units_do_not_stop_a_long_run():
    training = _training(
        algorithm=mm.Reptile(mm.Adam(0.001, beta2=0.9)),
        meta_batch=32,
        iterations=50,
        schedule=mm.MinibatchSchedule(5, 10),
    )
    state, losses = training.start(), []
    with training.stepper() as step:
        for _ in range(50):
            state, loss = step(state)
            losses.append(loss)
            assert (state.inner.v >= 0).all()
    checked_mean(losses, 1)


@given(st.integers(1, 40), st.integers(1, 40))
def test_chunks_are_even_and_cover_everything(total, parts):
    chunks = threads.even_chunks(total, parts)
    assert [i for start, stop in chunks for i in range(start, stop)] == list(range(total))
    lengths = [stop - start for start, stop in chunks]
    assert max(lengths) - min(lengths) <= 1 and len(chunks) == min(total, parts)


def test_divergence_names_the_first_bad_meta_step():
    losses = [np.ones(2), np.array([1.0, np.inf]), np.array([np.nan, 1.0])]
    with pytest.raises(DivergenceError, match="inf at meta-step 12"):
        checked_mean(losses, 11)
    assert checked_mean(losses[:1], 11) == 1.0
