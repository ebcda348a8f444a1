"""Trajectories: the pullback is the gradient of anything at the end with respect to the start and the rates."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.testing import assert_same, check_trajectory
from minimeta.testing.strategies import inner_rules, problems, seeds


@given(problems(), inner_rules, seeds)
def test_pullback_is_the_transpose_of_the_whole_inner_loop(problem, rule, seed):
    objective, phi, batches = problem
    check_trajectory(objective, phi, batches, rule, seed=seed)


@given(problems(), st.sampled_from(["number", "vector", "tuple", "rows", "column"]), st.booleans(), seeds)
def test_rate_gradient_for_every_way_to_give_rates(problem, kind, through_adam, seed):
    objective, phi, batches = problem
    k, size = len(batches), objective.size
    shape = {"number": (), "vector": (size,), "tuple": (k,), "rows": (k, size), "column": (k, 1)}[kind]
    lr = np.random.default_rng(seed).uniform(0.01, 0.1, shape)
    lr = tuple(lr) if kind == "tuple" else lr
    check_trajectory(objective, phi, batches, mm.Adam(lr, eps=1e-3) if through_adam else mm.SGD(lr), seed=seed)


@pytest.mark.parametrize("make", [mm.SGD, lambda lr: mm.Adam(lr, eps=1e-3)], ids=["sgd", "adam"])
def test_rate_gradient_of_a_loop_that_goes_on_from_a_state(make):
    """The second and third rate are used, and theirs is the gradient."""
    rng = np.random.default_rng(0)
    objective, phi, rule = mm.Quadratic(3), rng.standard_normal(3), make((0.1, 0.2, 0.3))
    batches = mm.Minibatches(np.tile(np.eye(3), (2, 1, 1, 1, 1)), rng.standard_normal((2, 1, 1, 3)))
    _, state = rule.step(phi, rng.standard_normal((1, 3)))
    check_trajectory(objective, phi, batches, rule, state=state)
    _, dlr = mm.unroll(objective, phi, batches, rule, state=state).pullback(rng.standard_normal((1, 3)))
    assert dlr[0, 0] == 0 and dlr[0, 1:].all()


@given(problems(), inner_rules, seeds)
def test_storing_iterates_gives_the_same_numbers(problem, rule, seed):
    objective, phi, batches = problem
    v = np.random.default_rng(seed).standard_normal((batches.tasks, objective.size))
    kept, recomputed = (mm.unroll(objective, phi, batches, rule, store) for store in ("points", "iterates"))
    assert_same(recomputed.last, kept.last, "last iterate")
    for a, b in zip(recomputed.grads, kept.grads, strict=True):
        assert_same(a, b, "a gradient")
    for a, b in zip(recomputed.pullback(v), kept.pullback(v), strict=True):
        assert_same(a, b, "pullback")
    assert_same(mm.adapt(objective, phi, batches, rule), kept.last + np.zeros_like(v), "adapt")


@given(st.integers(1, 5), st.integers(0, 4), st.floats(0.01, 0.2), seeds)
def test_sgd_on_quadratics_multiplies_by_the_product_of_i_minus_alpha_h(dim, k, alpha, seed):
    """Equations (17)-(21): v is multiplied by (I - alpha H_1) ... (I - alpha H_k), the last factor first."""
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((k, 1, 2, dim, dim))
    batches = mm.Minibatches(root + root.swapaxes(3, 4), rng.standard_normal((k, 1, 2, dim)))
    v = rng.standard_normal((1, dim))
    got, _ = mm.unroll(mm.Quadratic(dim), rng.standard_normal(dim), batches, mm.SGD(alpha)).pullback(v)
    want = v[0]
    for x, _ in reversed(list(batches)):
        want = (np.eye(dim) - alpha * x[0].mean(axis=0)) @ want
    assert np.allclose(got[0], want, rtol=1e-12, atol=1e-12)


def _peak_bytes(objective, phi, k, store):
    """The most memory that MAML's direction holds at once, through k inner steps."""
    batch = (np.zeros((1, 20, 14, 14, 1)), np.zeros((1, 20), dtype=int))
    tracemalloc.start()
    try:
        mm.MAML(mm.SGD(0.1), store).direction(objective, phi, [batch] * (k + 1))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_with_stored_iterates_memory_grows_by_parameters_and_not_by_activations():
    conv = mm.layers.Conv2D(1, 8)
    network = mm.Network((14, 14, 1), (conv, mm.layers.Tanh(), mm.layers.Flatten(), mm.layers.Dense(8 * 14 * 14, 3)))
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(np.random.default_rng(0), np.float64)
    per_step = {
        store: (_peak_bytes(objective, phi, 25, store) - _peak_bytes(objective, phi, 5, store)) / 20
        for store in ("points", "iterates")
    }
    activations = 20 * 14 * 14 * 8 * phi.itemsize  # of the first layer alone
    assert per_step["points"] > activations
    # One copy of phi a step, and Python's objects around it.
    assert per_step["iterates"] < 1.1 * phi.nbytes < activations / 2


def test_stored_iterates_do_not_hold_the_activations():
    objective = mm.Objective(mm.omniglot_convnet(5, filters=4), mm.SoftmaxCrossEntropy())
    rng = np.random.default_rng(0)
    batches = mm.Minibatches(rng.random((3, 1, 4, 28, 28, 1)), rng.integers(0, 5, (3, 1, 4)))
    trajectory = mm.unroll(objective, objective.init(rng), batches, mm.SGD(0.1), store="iterates")
    assert trajectory.points[0] is not trajectory.points[0]
    with pytest.raises(IndexError):
        trajectory.points[3]
    with pytest.raises(mm.SettingsError, match="store"):
        mm.unroll(objective, objective.init(rng), batches, mm.SGD(0.1), store="nothing")
