"""Objectives: gradients and Hessian-vector products against the complex step; closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.testing import assert_close, assert_same, check_objective, complex_step
from minimeta.testing.strategies import problems, seeds


@given(problems(max_k=1), st.booleans(), seeds)
def test_gradient_and_hessian_products(problem, own_copies, seed):
    objective, phi, batches = problem
    if own_copies:
        phi = phi + 0.1 * np.random.default_rng(seed).standard_normal((batches.tasks, objective.size))
    check_objective(objective, phi, batches[0], seed=seed)


@pytest.mark.parametrize("network", [mm.omniglot_convnet(5), mm.mini_imagenet_convnet(5)], ids=["omniglot", "mini-imagenet"])
def test_the_papers_networks_at_full_size(network):
    rng = np.random.default_rng(0)
    objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
    phi = objective.init(rng, np.float64)
    check_objective(objective, phi, (rng.random((2, 3, *network.input_shape)), rng.integers(0, 5, (2, 3))))


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


@given(problems(max_k=1), seeds)
def test_input_gradient(problem, seed):
    objective, phi, batches = problem
    x, y = batches[0]
    point = objective.at(phi, (x, y))
    if hasattr(point, "input_grad"):
        x_dot = np.random.default_rng(seed).standard_normal(x.shape)
        want = complex_step(lambda z: objective.at(phi, (z, y)).loss, (x,), (x_dot,))
        got = (point.input_grad * x_dot).reshape(len(x), -1).sum(axis=1)
        sizes = abs(point.input_grad * x_dot).reshape(len(x), -1).sum(axis=1)
        assert (abs(got - want) <= 1e-10 * sizes).all()


@given(problems(max_k=1), st.sampled_from([np.float32, np.float64]))
def test_phi_alone_sets_the_precision(problem, dtype):
    objective, phi, batches = problem
    for data_dtype in (np.float32, np.float64):
        batch = tuple(part.astype(data_dtype) if part.dtype.kind == "f" else part for part in batches[0])
        point = objective.at(phi.astype(dtype), batch)
        hv = point.hvp(phi.astype(dtype))
        assert {point.loss.dtype, point.grad.dtype, hv.dtype} == {np.dtype(dtype)}


def test_integer_data_take_the_precision_of_phi_too():
    network, images = mm.mlp([2, 3, 1]), np.arange(8, dtype=np.uint8).reshape(1, 4, 2)
    phi, target = network.init(np.random.default_rng(0)), np.arange(4).reshape(1, 4, 1)
    assert network.forward(phi, images).dtype == np.float32
    assert mm.Objective(network, mm.MeanSquaredError()).at(phi, (images, target)).grad.dtype == np.float32
    norm = mm.Network((2,), (mm.layers.BatchNorm(2),))
    phi, large = norm.init(np.random.default_rng(0), np.float64), 60 * images
    assert np.array_equal(norm.forward(phi, large), norm.forward(phi, large.astype(float)))


@given(st.integers(1, 5), st.integers(0, 6), st.floats(0.01, 0.3), seeds)
def test_sgd_on_a_quadratic_is_its_closed_form(dim, steps, lr, seed):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((2, 3, dim, dim))
    batch = (root @ root.swapaxes(2, 3) + np.eye(dim), rng.standard_normal((2, 3, dim)))
    objective, phi = mm.Quadratic(dim), rng.standard_normal(dim)
    adapted = mm.adapt(objective, np.tile(phi, (2, 1)), [batch] * steps, mm.SGD(lr))
    # 1e-10: six products with matrices of norm up to 1 + 0.3 * 50 lose up to seven digits to growth.
    assert_close(adapted, objective.descend(phi, batch, lr, steps) + 0 * adapted, 1e-10, "k steps of SGD")


@given(st.integers(1, 4), st.integers(1, 6), seeds)
def test_polynomial_third_derivative(dim, degree, seed):
    rng = np.random.default_rng(seed)
    batch = (rng.standard_normal((2, 3, dim)), rng.standard_normal((2, 3, degree + 1)))
    objective, phi = mm.Polynomial(dim), rng.standard_normal((2, dim))
    v, w = rng.standard_normal((2, 2, dim))
    want = complex_step(lambda p: objective.at(p, batch).hvp(v), (phi,), (w,))
    got = objective.at(phi, batch).third(v, w)
    assert_close(got, want, 1e-10, "third") if degree > 2 else np.testing.assert_array_equal(got, 0)


def test_wrong_data_are_refused():
    with pytest.raises(mm.ShapeError, match="Quadratic"):
        mm.Quadratic(2).at(np.zeros(2), (np.zeros((1, 1, 2, 3)), np.zeros((1, 1, 2))))
    with pytest.raises(mm.ShapeError, match="Polynomial"):
        mm.Polynomial(2).at(np.zeros(2), (np.zeros((1, 1, 3)), np.zeros((1, 1, 4))))
