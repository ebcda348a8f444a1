"""Conjugate gradients.

They are exact after as many steps as unknowns, optimal at every earlier step,
and independent for every task.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimeta.inner import conjugate_gradients
from minimeta.testing import assert_close, assert_same, complex_step
from minimeta.testing.strategies import seeds, task_counts

dims = st.integers(1, 6)


def _systems(seed, tasks, dim, low=0.5, high=4.0):
    """Symmetric A ``(T, D, D)`` with eigenvalues in [low, high], and g ``(T,
    D)``."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((tasks, dim, dim)))[0]
    eigenvalues = rng.uniform(low, high, (tasks, 1, dim))
    return (q * eigenvalues) @ q.swapaxes(1, 2), rng.standard_normal((tasks, dim))


def _product(a):
    return lambda v: (a @ v[..., None])[..., 0]


def _error(a, x, exact):
    """The A-norm of x - exact of each task."""
    gap = x - exact
    return np.sqrt((gap * _product(a)(gap)).sum(axis=1))


@given(seeds, task_counts, dims)
def test_as_many_steps_as_unknowns_solve_the_system(seed, tasks, dim):
    a, g = _systems(seed, tasks, dim)
    exact = np.linalg.solve(a, g[..., None])[..., 0]
    # Rounding spoils the conjugacy of directions: two steps more. Condition
    # numbers are below 8.
    assert_close(conjugate_gradients(_product(a), g, dim + 2), exact, 1e-11, "the solution")


@given(seeds, task_counts, dims)
def test_the_error_falls_at_least_as_fast_as_the_condition_number_says(seed, tasks, dim):
    """|x_n - x|_A <= 2 ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^n |x|_A."""
    a, g = _systems(seed, tasks, dim)
    exact = np.linalg.solve(a, g[..., None])[..., 0]
    root = np.sqrt(np.linalg.cond(a))
    start, before = _error(a, 0 * g, exact), np.inf
    for steps in range(1, dim + 1):
        error = _error(a, conjugate_gradients(_product(a), g, steps), exact)
        assert (error <= 2 * ((root - 1) / (root + 1)) ** steps * start + 1e-12 * start).all()
        assert (error <= before + 1e-12 * start).all()
        before = error


@given(seeds, st.integers(2, 4), dims, st.integers(1, 6))
def test_no_task_sees_another_to_the_last_bit(seed, tasks, dim, steps):
    a, g = _systems(seed, tasks, dim)
    together = conjugate_gradients(_product(a), g, steps)
    for task in range(tasks):
        one = slice(task, task + 1)
        alone = conjugate_gradients(_product(a[one]), g[one], steps)
        assert_same(alone, together[one], f"task {task}")


@given(seeds, dims)
def test_its_derivative_is_that_of_the_solution(seed, dim):
    a, g = _systems(seed, 2, dim)
    g_dot = np.random.default_rng(seed).standard_normal(g.shape)
    slope = complex_step(lambda v: conjugate_gradients(_product(a), v, dim + 2), (g,), (g_dot,))
    want = np.linalg.solve(a, g_dot[..., None])[..., 0]
    assert_close(slope, want, 1e-9, "the slope")  # that of the rounding errors of the steps, too


def test_a_task_within_the_tolerance_rests():
    a, g = np.tile(np.diag([1.0, 2.0, 3.0]), (2, 1, 1)), np.array([[1.0, 0, 0], [1.0, 1.0, 1.0]])
    one, more = (conjugate_gradients(_product(a), g, steps, 1e-6) for steps in (1, 5))
    assert_same(more[0], one[0], "the task that one step solves")
    assert not np.array_equal(more[1], one[1])


@pytest.mark.parametrize("steps", [1, 4])
def test_a_direction_in_which_the_matrix_bends_down_ends_a_solve(steps):
    a, g = np.tile(-np.eye(3), (1, 1, 1)), np.array([[1.0, 2.0, 3.0]])
    assert_same(conjugate_gradients(_product(a), g, steps), g, "x = g")


def test_a_matrix_that_is_not_finite_is_seen_in_the_solution():
    solution = conjugate_gradients(lambda v: np.nan * v, np.ones((1, 2)), 3)
    assert np.isnan(solution).all()
