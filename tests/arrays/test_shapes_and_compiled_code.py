"""Compiled code looks at no shapes: what does not fit is broadcast or refused
before."""

import numpy as np
import pytest

import minimeta as mm
from minimeta.arrays import kernels
from minimeta.arrays.compiled import twins
from minimeta.arrays.threads import workers
from minimeta.layers import BatchNorm, Conv2D, Dense, MaxPool2D, ReLU
from minimeta.layers.perceptron import Perceptron
from minimeta.testing import assert_same

NORM = mm.Network((3,), (BatchNorm(3), ReLU()))
POOL = mm.Network((4, 5, 2), (BatchNorm(2), MaxPool2D(), ReLU()))
DENSE = mm.Network((3,), (Dense(3, 4), ReLU(), Dense(4, 1)))


@pytest.fixture(autouse=True)
def _compiled():
    with twins(True):
        yield


def passes(network, tasks=3):
    """Its theta for shared parameters, y, caches, and zeros of the shape of
    x."""
    x = np.random.default_rng(0).random((tasks, 5, *network.input_shape))
    theta = network.theta(np.ones(network.size), x)
    return theta, *network.forward_cached(theta, x), np.zeros_like(x)


@pytest.mark.parametrize("network", [NORM, POOL, DENSE])
def test_parameters_and_directions_of_other_tasks_are_refused(network):
    theta, y, caches, still = passes(network)
    others = network.theta(np.ones((2, network.size)), still)
    moving = network.dot(theta, np.ones((2, network.size)))
    with pytest.raises(mm.ShapeError, match=r"must have shape \(1 or 3, "):
        network.backward(others, caches, y)
    with pytest.raises(mm.ShapeError, match=r"must have shape \(1 or 3, "):
        network.forward_tangent(theta, moving, caches, still)
    _, _, dys = network.backward(theta, caches, y)
    _, dots = network.forward_tangent(
        theta, network.dot(theta, np.ones(network.size)), caches, still
    )
    with pytest.raises(mm.ShapeError, match=r"must have shape \(1 or 3, "):
        network.backward_tangent(theta, moving, caches, dots, dys, y)


@pytest.mark.parametrize("network", [NORM, POOL, DENSE])
def test_gradients_and_directions_of_other_shapes_are_refused(network):
    theta, y, caches, still = passes(network)
    with pytest.raises(mm.ShapeError):
        network.backward(theta, caches, y[:2])
    with pytest.raises(mm.ShapeError):
        network.forward_tangent(theta, theta.parameters, caches, still[:, :4])


def test_parameters_of_another_length_are_refused():
    with pytest.raises(mm.ShapeError, match=r"phi must have shape \(1 or 2, 302\)"):
        Perceptron((3, 50, 2)).forward({"phi": np.ones((1, 5))}, np.ones((2, 4, 3)))


def test_what_plain_code_broadcasts_is_broadcast():
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 5, 2)), rng.random((1, 5, 2))
    assert np.allclose(kernels.channel_dots(a, b), (a * b).sum(axis=1), rtol=1e-14)
    with pytest.raises(ValueError, match="broadcast"):
        kernels.channel_dots(a, b[:, :4])
    x, W = rng.random((1, 2, 4, 4, 3)), rng.random((3, 27, 4))
    seen = kernels.patches(x, 3, 1)
    want = np.asarray(seen) @ W
    assert np.allclose(kernels.product_sum((seen, W)), want, rtol=1e-14)
    three = kernels.product_sum(*[(seen, W[:1])] * 3)
    assert np.allclose(three, 3 * (np.asarray(seen) @ W[:1]), rtol=1e-14)
    assert_same(kernels.masked(a, a > 0.5), a * (a > 0.5), "a boolean mask")
    assert_same(kernels.masked(a, a), a * a, "a mask of numbers")


def test_the_stride_of_an_axis_of_length_one_may_be_any():
    W = np.broadcast_to(np.array([1.0, 2.0, 3.0]), (1, 1, 3))
    seen = kernels.patches(np.ones((1, 1, 2, 2, 1)), 1, 1)
    assert_same(kernels.product_sum((seen, W)), np.tile(W, (1, 4, 1)), "the product")
    back = kernels.patches_transpose(
        (W, np.ones((1, 9, 3))), image_shape=(1, 1, 1, 1, 1), kernel=3, stride=2
    )
    assert back.item() == 6


def test_a_task_without_examples_has_no_gradient():
    network = mm.Network((2, 2, 1), (Conv2D(1, 3), ReLU(), Conv2D(3, 2)))
    x = np.empty((2, 0, 2, 2, 1))
    theta = network.theta(np.ones(network.size), x)
    y, caches = network.forward_cached(theta, x)
    dx, dphi, _ = network.backward(theta, caches, y)
    assert dx.shape == x.shape and not dphi.any()


@pytest.mark.parametrize("kind", ["longdouble", "float64"])
def test_a_real_direction_has_a_real_product(kind):
    objective = mm.Objective(mm.mlp([1, 4, 1]), mm.MeanSquaredError())
    point = objective.at(np.ones(objective.size), (np.ones((1, 2, 1)), np.ones((1, 2, 1))))
    assert point.hvp(np.ones((1, objective.size), kind)).dtype.kind == "f"


def test_a_share_of_the_calling_thread_leaves_no_context_behind():
    from contextvars import ContextVar

    told = ContextVar("told", default=0)
    with workers(2) as starmap:
        starmap(told.set, [(1,), (2,)])
    assert told.get() == 0
