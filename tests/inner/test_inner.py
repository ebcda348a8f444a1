"""Inner rules: adjoints against the complex step, exact cases, merged
states."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.inner import AdamState
from minimeta.testing import assert_close, check_rule
from minimeta.testing.strategies import inner_rules, rates, seeds, small


def _warm(rule, rng, shape, steps):
    """A rule's state after some steps on random gradients."""
    state = None
    for _ in range(steps):
        _, state = rule.step(np.zeros(shape), rng.standard_normal(shape), state)
    return state


@given(inner_rules, st.integers(0, 3), small, small, seeds)
def test_adjoint_is_the_transpose_of_the_steps_derivative(rule, steps, tasks, dim, seed):
    check_rule(rule, tasks=tasks, size=dim, steps=steps, seed=seed)


@pytest.mark.parametrize(
    "make", [mm.SGD, lambda lr: mm.Adam(lr, eps=1e-3), lambda lr: mm.Adam(lr, 0.9, eps=1e-3)]
)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (2, 3)], ids=str)
def test_adjoint_for_every_way_to_give_rates(make, shape):
    check_rule(make(np.random.default_rng(0).uniform(0.01, 0.1, shape)))


@given(rates, st.sampled_from([0.0, 0.9]), st.integers(1, 20), seeds)
def test_adam_is_its_definition(lr, beta1, steps, seed):
    rule, rng = mm.Adam(lr, beta1, 0.99, 1e-3), np.random.default_rng(seed)
    phi = want = rng.standard_normal(4)
    state, m, v = None, 0.0, 0.0
    for t in range(1, steps + 1):
        g = rng.standard_normal(4)
        phi, state = rule.step(phi, g, state)
        m, v = beta1 * m + (1 - beta1) * g, 0.99 * v + 0.01 * g**2
        want = want - lr * m / (1 - beta1**t) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
    assert_close(phi, want, 1e-13, "phi")


@given(rates, seeds)
def test_adam_and_its_adjoint_survive_gradients_that_are_zero(lr, seed):
    rule, g = mm.Adam(lr), np.array([[0.0, 1.0]])
    phi, _ = rule.step(np.zeros((1, 2)), g, None)
    assert phi[0, 0] == 0
    adjoint = rule.adjoint(g, None, 0, np.ones((1, 2)))
    # Where g = 0: phi' = phi - lr g / eps to first order.
    assert adjoint.g[0, 0] == pytest.approx(-lr / rule.eps) and np.isfinite(adjoint.g).all()


@given(
    rates,
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.9, 0.999]),
    st.integers(1, 30),
    small,
    st.booleans(),
    seeds,
)
def test_merged_moments_are_those_of_one_task_after_another(
    lr, beta1, beta2, tasks, k, fresh, seed
):
    """The merge is exact for gradients that do not depend on phi."""
    rule, rng = mm.Adam(lr, beta1, beta2), np.random.default_rng(seed)
    shared = None if fresh else _warm(rule, rng, 3, 2)
    gradients = rng.standard_normal((tasks, k, 3))
    serial = shared
    for g in gradients.reshape(-1, 3):
        _, serial = rule.step(np.zeros(3), g, serial)
    side_by_side = shared
    for j in range(k):
        _, side_by_side = rule.step(np.zeros((tasks, 3)), gradients[:, j], side_by_side)
    merged = rule.merge(shared, side_by_side, tasks)
    assert merged.steps == serial.steps
    assert_close(
        merged.v, serial.v, 1e-11, "v"
    )  # differences of nearly equal powers of beta2 cost four digits
    assert_close(merged.m, serial.m, 1e-11, "m")


@given(
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([0.5, 0.9, 0.999]),
    st.integers(1, 60),
    st.integers(1, 10),
    seeds,
)
def test_merging_tasks_without_gradients_shrinks_the_moments_and_never_below_zero(
    dtype, beta2, tasks, k, seed
):
    """Dead units: v' = beta2^(kT) v, which rounding must not make negative."""
    rule, v = mm.Adam(0.1, beta2=beta2), np.random.default_rng(seed).random(20).astype(dtype)
    side_by_side = shared = AdamState(3, 0 * v, v)
    for _ in range(k):
        _, side_by_side = rule.step(
            np.zeros((tasks, 20), dtype), np.zeros((tasks, 20), dtype), side_by_side
        )
    merged = rule.merge(shared, side_by_side, tasks)
    assert merged.v.dtype == dtype
    assert (merged.v >= 0).all()
    # Every task's k roundings may each leave up to one unit in the last place
    # of v.
    assert np.abs(merged.v - beta2 ** (k * tasks) * v).max() <= 2 * k * tasks * np.finfo(dtype).eps


def test_a_state_without_a_step_is_merged_to_itself():
    state = AdamState(3, np.zeros(2), np.ones(2))
    assert mm.Adam(0.1).merge(state, state, 4) is state
    assert mm.Adam(0.1).merge(None, None, 4) is None


@pytest.mark.parametrize("make", [mm.SGD, mm.Adam])
def test_a_numpy_scalar_rate_does_not_change_the_dtype(make):
    phi, _ = make(np.float64(0.1)).step(np.ones(3, np.float32), np.ones(3, np.float32))
    assert phi.dtype == np.float32


def test_a_tuple_of_vectors_is_refused():
    with pytest.raises(mm.SettingsError, match=r"array \(k, D\)"):
        mm.SGD((np.ones(2), np.ones(2))).step(np.ones(2), np.ones(2))


def test_one_rate_per_step_runs_out_with_a_sentence():
    rule = mm.SGD((0.1, 0.2))
    phi = np.ones(1)
    for j in (0, 1):
        phi, _ = rule.step(phi, np.ones(1), None, j)
    assert phi == pytest.approx(0.7)
    with pytest.raises(mm.SettingsError, match="2 inner steps, but the inner loop takes step 3"):
        rule.step(phi, np.ones(1), None, 2)
