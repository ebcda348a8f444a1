"""Objectives: gradients and Hessian-vector products, and closed forms.

The complex step checks the derivatives.
"""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.inner import adapt
from minimeta.testing import assert_close, assert_same, check_objective
from minimeta.testing.strategies import problems, seeds


@given(problems(max_k=1), st.booleans(), seeds)
def test_gradient_and_hessian_products(problem, own_copies, seed):
    objective, phi, batches = problem
    if own_copies:
        phi = phi + 0.1 * np.random.default_rng(seed).standard_normal(
            (batches.tasks, objective.size)
        )
    check_objective(objective, phi, batches[0], seed=seed)


@pytest.mark.parametrize(
    "network",
    [mm.omniglot_convnet(5), mm.mini_imagenet_convnet(5)],
    ids=["omniglot", "mini-imagenet"],
)
def test_the_papers_networks_at_full_size(network):
    rng = np.random.default_rng(0)
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(rng, np.float64)
    check_objective(
        objective, phi, (rng.random((2, 3, *network.input_shape)), rng.integers(0, 5, (2, 3)))
    )


@given(problems(max_k=1), seeds)
def test_a_task_in_a_batch_and_a_shared_phi_are_exact_to_the_last_bit(problem, seed):
    objective, phi, batches = problem
    (x, y), tasks = batches[0], batches.tasks
    v = np.random.default_rng(seed).standard_normal((tasks, objective.size))
    together, copies = objective.at(phi, (x, y)), objective.at(np.tile(phi, (tasks, 1)), (x, y))
    for task in range(tasks):
        one = slice(task, task + 1)
        alone = objective.at(phi, (x[one], y[one]))
        for point in (together, copies):
            assert_same(alone.loss, point.loss[one], "loss")
            assert_same(alone.grad, point.grad[one], "grad")
            assert_same(alone.hvp(v[one]), point.hvp(v)[one], "hvp")


@given(problems(max_k=1), st.sampled_from([np.float32, np.float64]))
def test_phi_alone_sets_the_precision(problem, dtype):
    objective, phi, batches = problem
    for data_dtype in (np.float32, np.float64):
        batch = tuple(
            part.astype(data_dtype) if part.dtype.kind == "f" else part for part in batches[0]
        )
        point = objective.at(phi.astype(dtype), batch)
        hv = point.hvp(phi.astype(dtype))
        assert {point.loss.dtype, point.grad.dtype, hv.dtype} == {np.dtype(dtype)}


def test_integer_data_take_the_precision_of_phi_too():
    network, images = mm.mlp([2, 3, 1]), np.arange(8, dtype=np.uint8).reshape(1, 4, 2)
    phi, target = network.init(np.random.default_rng(0)), np.arange(4).reshape(1, 4, 1)
    assert network.forward(phi, images).dtype == np.float32
    assert (
        mm.Objective(network, mm.MeanSquaredError()).at(phi, (images, target)).grad.dtype
        == np.float32
    )
    norm = mm.Network((2,), (mm.layers.BatchNorm(2),))
    phi, large = norm.init(np.random.default_rng(0), np.float64), 60 * images
    assert np.array_equal(norm.forward(phi, large), norm.forward(phi, large.astype(float)))


@given(st.integers(1, 5), st.integers(0, 6), st.floats(0.01, 0.3), seeds)
def test_sgd_on_a_quadratic_is_its_closed_form(dim, steps, lr, seed):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((2, 3, dim, dim))
    batch = (root @ root.swapaxes(2, 3) + np.eye(dim), rng.standard_normal((2, 3, dim)))
    objective, phi = mm.Quadratic(dim), rng.standard_normal(dim)
    adapted = adapt(objective, np.tile(phi, (2, 1)), [batch] * steps, mm.SGD(lr))
    # 1e-10: six products with matrices of norm up to 1 + 0.3 * 50 lose up to
    # seven digits to growth.
    assert_close(
        adapted, objective.descend(phi, batch, lr, steps) + 0 * adapted, 1e-10, "k steps of SGD"
    )


@given(st.integers(1, 4), seeds)
def test_a_quadratic_is_its_definition(dim, seed):
    rng = np.random.default_rng(seed)
    root, centres = rng.standard_normal((2, 3, dim, dim)), rng.standard_normal((2, 3, dim))
    matrices = root + root.swapaxes(2, 3)

    def loss(phi):
        offset = phi[:, None] - centres
        return np.einsum("tni,tnij,tnj->t", offset, matrices, offset) / 6

    check_objective(
        mm.Quadratic(dim),
        rng.standard_normal(dim),
        (matrices, centres),
        true_loss=loss,
        tolerance=1e-9,
    )


@given(st.integers(1, 4), st.integers(0, 6), seeds)
def test_a_polynomial_is_its_definition(dim, degree, seed):
    rng = np.random.default_rng(seed)
    directions, coefficients = (
        rng.standard_normal((2, 3, dim)),
        rng.standard_normal((2, 3, degree + 1)),
    )

    def loss(phi):
        u = np.einsum("tnd,td->tn", directions, phi)
        return (coefficients * u[..., None] ** np.arange(degree + 1)).sum(axis=2).mean(axis=1)

    batch = (directions, coefficients)
    check_objective(
        mm.Polynomial(dim), rng.standard_normal(dim), batch, true_loss=loss, tolerance=1e-9
    )


@pytest.mark.parametrize("objective", [mm.Quadratic(3), mm.Polynomial(3)], ids=repr)
@pytest.mark.parametrize("shape", [(1,), (4, 3), (2, 2)])
def test_a_phi_that_does_not_fit_is_refused_and_not_broadcast(objective, shape):
    y = np.ones((1, 2, 3))
    x = np.ones((1, 2, 3, 3)) if isinstance(objective, mm.Quadratic) else y
    with pytest.raises(mm.ShapeError, match="phi must have shape"):
        objective.at(np.ones(shape), (x, y))


def test_wrong_data_are_refused():
    with pytest.raises(mm.ShapeError, match="Quadratic"):
        mm.Quadratic(2).at(np.zeros(2), (np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2))))
    with pytest.raises(mm.ShapeError, match="Polynomial"):
        mm.Polynomial(2).at(np.zeros(2), (np.zeros((1, 1, 3)), np.zeros((1, 1, 4))))


def test_two_threads_compute_their_gradients_at_the_same_time():
    together = threading.Barrier(2)

    class Meets(mm.MeanSquaredError):
        def backward(self, cache):
            together.wait(
                timeout=60
            )  # broken, unless the other thread gets here while this one is inside
            return super().backward(cache)

    objective = mm.Objective(mm.mlp([1, 1]), Meets())
    batch = (np.ones((1, 1, 1)),) * 2
    with ThreadPoolExecutor(2) as pool:
        grads = list(pool.map(lambda phi: objective.at(phi, batch).grad, [np.zeros(2), np.ones(2)]))
    assert [grad.tolist() for grad in grads] == [[[-2.0, -2.0]], [[2.0, 2.0]]]
