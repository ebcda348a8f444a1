"""Trajectories: the pullback is a gradient with respect to start and rates.

It is the gradient of any function of the last iterate.
"""

import gc
import tracemalloc
import weakref
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.inner import STORES, adapt
from minimeta.testing import assert_same, check_trajectory
from minimeta.testing.strategies import inner_rules, problems, seeds


@given(problems(), inner_rules, seeds)
def test_pullback_is_the_transpose_of_the_whole_inner_loop(problem, rule, seed):
    objective, phi, batches = problem
    check_trajectory(objective, phi, batches, rule, seed=seed)


kinds_of_rates = st.sampled_from(["number", "vector", "tuple", "rows", "column"])


def _rates(kind, k, size, rng):
    """Random rates for k steps, in the form ``kind``."""
    shape = {"number": (), "vector": (size,), "tuple": (k,), "rows": (k, size), "column": (k, 1)}[
        kind
    ]
    lr = rng.uniform(0.01, 0.1, shape)
    return tuple(lr) if kind == "tuple" else lr


@given(problems(), kinds_of_rates, st.booleans(), seeds)
def test_rate_gradient_for_every_way_to_give_rates(problem, kind, through_adam, seed):
    objective, phi, batches = problem
    lr = _rates(kind, len(batches), objective.size, np.random.default_rng(seed))
    check_trajectory(
        objective, phi, batches, mm.Adam(lr, eps=1e-3) if through_adam else mm.SGD(lr), seed=seed
    )


@pytest.mark.parametrize("make", [mm.SGD, lambda lr: mm.Adam(lr, eps=1e-3)], ids=["sgd", "adam"])
def test_rate_gradient_of_a_loop_that_goes_on_from_a_state(make):
    """A task starts at the first rate, also with a state from earlier tasks."""
    rng = np.random.default_rng(0)
    objective, phi, rule = mm.Quadratic(3), rng.standard_normal(3), make((0.1, 0.2, 0.3))
    batches = mm.Minibatches(np.tile(np.eye(3), (2, 1, 1, 1, 1)), rng.standard_normal((2, 1, 1, 3)))
    _, state = rule.step(phi, rng.standard_normal((1, 3)))
    check_trajectory(objective, phi, batches, rule, state=state)
    trajectory = mm.unroll(objective, phi, batches, rule, state=state)
    _, dlr = trajectory.pullback(rng.standard_normal((1, 3)))
    assert dlr[0, :2].all() and dlr[0, 2] == 0


def _assert_same_numbers(trajectory, kept, v):
    """All results of a trajectory agree, however often it is pulled back."""
    for name in ("iterates", "states", "grads"):
        got, want = list(getattr(trajectory, name)), list(getattr(kept, name))
        assert len(got) == len(want), name
        for a, b in zip(got, want, strict=True):
            assert type(a) is type(b), name
            for part, expected in zip(
                *(each if isinstance(each, tuple) else (each,) for each in (a, b)), strict=True
            ):
                assert_same(np.asarray(part), np.asarray(expected), name)
    assert_same(trajectory.last, kept.last, "last")
    for pullback in (trajectory.pullback(v), trajectory.pullback(v)):
        for a, b in zip(pullback, kept.pullback(v), strict=True):
            assert_same(a, b, "pullback")


@pytest.mark.usefixtures("either_kernels")
@given(problems(), inner_rules, seeds)
def test_storing_less_gives_the_same_numbers(problem, rule, seed):
    objective, phi, batches = problem
    v = np.random.default_rng(seed).standard_normal((batches.tasks, objective.size))
    kept = mm.unroll(objective, phi, batches, rule)
    for store in STORES[1:]:
        _assert_same_numbers(mm.unroll(objective, phi, batches, rule, store), kept, v)
    assert_same(adapt(objective, phi, batches, rule), kept.last + np.zeros_like(v), "adapt")


@pytest.mark.usefixtures("either_kernels")
@given(
    st.integers(0, 17),
    kinds_of_rates,
    st.sampled_from([mm.SGD, mm.Adam, lambda lr: mm.Adam(lr, 0.5)]),
    st.booleans(),
    seeds,
)
def test_storing_less_gives_the_same_numbers_through_many_steps(k, kind, make, goes_on, seed):
    """Every segment length gives the same results.

    The last segment may be shorter. The loop starts fresh or after a step.
    """
    rng = np.random.default_rng(seed)
    objective = mm.Objective(mm.mlp([2, 3, 1], "tanh"), mm.MeanSquaredError())
    phi, rule = objective.init(rng, np.float64), make(_rates(kind, k + 1, objective.size, rng))
    batches = mm.Minibatches(rng.standard_normal((k, 2, 4, 2)), rng.standard_normal((k, 2, 4, 1)))
    v, g = rng.standard_normal((2, 2, objective.size))
    state = rule.step(phi, g)[1] if goes_on else None
    kept, *others = (mm.unroll(objective, phi, batches, rule, store, state) for store in STORES)
    for trajectory in others:
        _assert_same_numbers(trajectory, kept, v)


@given(st.integers(1, 5), st.integers(0, 4), st.floats(0.01, 0.2), seeds)
def test_sgd_on_quadratics_multiplies_by_the_product_of_i_minus_alpha_h(dim, k, alpha, seed):
    """Equations (17)-(21): the pullback is (I - alpha H_1) ... (I - alpha H_k)
    v.

    The last factor is applied first.
    """
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((k, 1, 2, dim, dim))
    batches = mm.Minibatches(root + root.swapaxes(3, 4), rng.standard_normal((k, 1, 2, dim)))
    v = rng.standard_normal((1, dim))
    got, _ = mm.unroll(
        mm.Quadratic(dim), rng.standard_normal(dim), batches, mm.SGD(alpha)
    ).pullback(v)
    want = v[0]
    for x, _ in reversed(list(batches)):
        want = (np.eye(dim) - alpha * x[0].mean(axis=0)) @ want
    assert np.allclose(got[0], want, rtol=1e-12, atol=1e-12)


def _peak_bytes(objective, phi, k, store):
    """The peak memory of MAML's direction through k inner steps.

    Python keeps freed tuples for later, up to thousands of them, and a full
    collection of garbage gives them back. So the direction is computed once
    before, which leaves such tuples, and nothing is collected until the second
    has ended. What is still counted of them is little beside a copy of phi.
    """
    batch = (np.zeros((1, 20, 14, 14, 1)), np.zeros((1, 20), dtype=int))
    maml = mm.MAML(mm.SGD(0.1), store)
    gc.collect()
    gc.disable()
    try:
        maml.direction(objective, phi, [batch] * (k + 1))
        tracemalloc.start()
        maml.direction(objective, phi, [batch] * (k + 1))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.usefixtures("either_kernels")
def test_without_stored_points_memory_grows_by_parameters_and_not_by_activations():
    conv = mm.layers.Conv2D(1, 8)
    network = mm.Network(
        (14, 14, 1), (conv, mm.layers.Tanh(), mm.layers.Flatten(), mm.layers.Dense(8 * 14 * 14, 9))
    )
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(np.random.default_rng(0), np.float64)
    peak = {
        (k, store): _peak_bytes(objective, phi, k, store) for k in (5, 25, 100) for store in STORES
    }
    activations = 20 * 14 * 14 * 8 * phi.itemsize  # of the first layer alone
    assert peak[25, "points"] - peak[5, "points"] > 20 * activations
    # One copy of phi a step, and Python's objects around it.
    assert phi.nbytes < activations / 2
    assert peak[25, "iterates"] - peak[5, "iterates"] < 1.1 * 20 * phi.nbytes
    # 2 sqrt(k) copies.
    assert peak[100, "checkpoints"] - peak[25, "checkpoints"] < 1.1 * (20 - 10) * phi.nbytes


class Alive:
    """Counts the registered objects that are alive, now and at most."""

    def __init__(self):
        self.now = self.most = self.shown = 0

    def watch(self, thing):
        self.shown += 1
        self.now += 1
        self.most = max(self.most, self.now)
        weakref.finalize(thing, self._end)

    def _end(self):
        self.now -= 1


@dataclass(frozen=True)
class CountedPoints:
    objective: Any
    alive: Alive = field(default_factory=Alive)

    def at(self, phi, batch):
        point = self.objective.at(phi, batch)
        self.alive.watch(point)
        return point


@dataclass(frozen=True)
class CountedAdam(mm.Adam):
    """Counts iterates and second moments, except the caller's at the start."""

    iterates: Alive = field(default_factory=Alive)
    moments: Alive = field(default_factory=Alive)

    def step(self, phi, g, state=None, j=0):
        phi, state = super().step(phi, g, state, j)
        self.iterates.watch(phi)
        self.moments.watch(state.v)
        return phi, state


def _counted_maml(k, store):
    """The objects alive during MAML's direction through k inner steps.

    Returns the count of points, and the rule that counted iterates and moments.
    """
    rng = np.random.default_rng(0)
    objective, rule = CountedPoints(mm.Quadratic(2)), CountedAdam(0.1)
    batches = mm.Minibatches(
        np.tile(np.eye(2), (k + 1, 1, 1, 1, 1)), rng.standard_normal((k + 1, 1, 1, 2))
    )
    mm.MAML(rule, store).direction(objective, np.zeros(2), batches)
    assert objective.alive.now == rule.iterates.now == 0
    return objective.alive, rule


@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5, 7, 12, 16, 17, 30, 100])
def test_what_is_alive_at_once_and_what_is_computed_again(k):
    points, rule = _counted_maml(k, "points")
    assert points.most == points.shown == k + 1  # with the query's
    assert rule.iterates.most == rule.iterates.shown == k

    points, rule = _counted_maml(k, "iterates")
    assert points.most == 1 and points.shown == 2 * k + 1
    assert rule.iterates.most == rule.iterates.shown == k

    points, rule = _counted_maml(k, "checkpoints")
    # sqrt(k), rounded up, so that there are at most as many segments as steps
    # in one.
    length = isqrt(k - 1) + 1 if k else 0
    segments = -(-k // length) if k else 0
    assert points.most == 1
    assert points.shown == 2 * k + 1 + (k - segments)  # first iterates are stored
    # Going backward, the alive iterates are all starts except phi_1, the end of
    # the loop, and the recomputed segment except its start, together 2 sqrt(k)
    # - 1. Going forward, in the last segment, they are all starts except phi_1,
    # and the input and output of one step.
    for alive in (rule.iterates, rule.moments):
        assert alive.most <= max(2 * length - 1, segments + 1)


def test_the_last_iterate_and_state_are_kept():
    rng = np.random.default_rng(0)
    batches = mm.Minibatches(
        rng.standard_normal((7, 1, 1, 2, 2)), rng.standard_normal((7, 1, 1, 2))
    )
    objective = CountedPoints(mm.Quadratic(2))
    trajectory = mm.unroll(objective, np.zeros(2), batches, mm.Adam(0.1), store="checkpoints")
    made = objective.alive.shown
    assert trajectory.last is trajectory.iterates[7] and trajectory.states[-1].steps == 7
    assert objective.alive.shown == made


@pytest.mark.parametrize("store", STORES)
def test_what_is_stored_or_not_is_asked_for_in_the_same_ways(store):
    rng = np.random.default_rng(0)
    batches = mm.Minibatches(
        rng.standard_normal((5, 1, 1, 2, 2)), rng.standard_normal((5, 1, 1, 2))
    )
    trajectory = mm.unroll(mm.Quadratic(2), np.zeros(2), batches, mm.Adam(0.1), store)
    assert [len(each) for each in (trajectory.iterates, trajectory.states, trajectory.points)] == [
        6,
        6,
        5,
    ]
    first, *after = trajectory.states
    assert first is None and [state.steps for state in after] == [1, 2, 3, 4, 5]
    assert trajectory.states[-3].steps == 3
    assert [state.steps for state in trajectory.states[1:5:2]] == [1, 3]
    assert (trajectory.points[-1].grad == trajectory.grads[4]).all()
    for sequence in (trajectory.iterates, trajectory.states, trajectory.points):
        for j in (len(sequence), -len(sequence) - 1):
            with pytest.raises(IndexError):
                sequence[j]


def test_an_unknown_store_is_an_error():
    with pytest.raises(
        mm.SettingsError, match="store must be one of points, iterates, checkpoints, got 'nothing'"
    ):
        mm.unroll(
            mm.Quadratic(2), np.zeros(2), mm.Minibatches([], []), mm.SGD(0.1), store="nothing"
        )
