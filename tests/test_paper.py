"""The numbered equations of the Reptile paper (arXiv 1803.02999), section by section, on smooth objectives in float64.

L_i is mini-batch i's loss, gbar_i and Hbar_i its gradient and Hessian at phi_1; Hbar_i v is a Hessian-vector product.
An equation that holds up to O(alpha^2) is tested by its rate: the remainder falls with slope 2 on a log-log plot.
"""

from itertools import product

import numpy as np
import pytest

import minimeta as mm
from minimeta.testing import assert_close

ALPHAS = np.logspace(-3.5, -2.5, 6)


def _problem(kind, k, tasks=2):
    rng = np.random.default_rng(k)
    if kind == "polynomial":
        objective = mm.Polynomial(4)
        batches = mm.Minibatches(rng.standard_normal((k, tasks, 3, 4)) / 4, rng.standard_normal((k, tasks, 3, 5)))
    else:
        objective = mm.Objective(mm.mlp([2, 6, 6, 2], kind), mm.MeanSquaredError())
        batches = mm.Minibatches(rng.standard_normal((k, tasks, 5, 2)), 2 * rng.standard_normal((k, tasks, 5, 2)))
    return objective, objective.init(rng, np.float64), batches


def _slope(remainders):
    return np.polyfit(np.log(ALPHAS), np.log(remainders), 1)[0]


def _at_start(objective, phi, batches):
    points = [objective.at(phi, batch) for batch in batches]
    return [point.grad for point in points], [point.hvp for point in points]


KINDS = ("polynomial", "tanh", "softplus")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_equations_9_to_16_each_inner_gradient_to_first_order(kind, k):
    """g_i = gbar_i - alpha Hbar_i sum_{j<i} gbar_j + O(alpha^2)."""
    objective, phi, batches = _problem(kind, k)
    gbar, hbar = _at_start(objective, phi, batches)
    predicted = [lambda a, i=i: gbar[i] - a * hbar[i](sum(gbar[:i], np.zeros_like(gbar[0]))) for i in range(k)]
    grads = {alpha: mm.unroll(objective, phi, batches, mm.SGD(alpha)).grads for alpha in ALPHAS}
    assert np.array_equal(grads[ALPHAS[0]][0], gbar[0])
    for i in range(1, k):
        remainders = [np.abs(grads[alpha][i] - predicted[i](alpha)).max() for alpha in ALPHAS]
        assert _slope(remainders) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 3, 5])
def test_equations_17_to_24_mamls_gradient_to_first_order(kind, k):
    """g_MAML = gbar_k - alpha sum_{j<k} Hbar_j gbar_k - alpha Hbar_k sum_{j<k} gbar_j + O(alpha^2)."""
    objective, phi, batches = _problem(kind, k)
    gbar, hbar = _at_start(objective, phi, batches)
    first = sum(h(gbar[-1]) for h in hbar[:-1]) + hbar[-1](sum(gbar[:-1]))
    remainders = [
        np.abs(mm.MAML(mm.SGD(alpha)).direction(objective, phi, batches)[0] - (gbar[-1] - alpha * first)).max()
        for alpha in ALPHAS
    ]
    assert _slope(remainders) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_equations_25_to_27_the_three_gradients_for_two_minibatches(kind):
    objective, phi, batches = _problem(kind, 2)
    (g1, g2), (h1, h2) = _at_start(objective, phi, batches)
    predicted = {
        "maml": lambda a: g2 - a * h2(g1) - a * h1(g2),
        "fomaml": lambda a: g2 - a * h2(g1),
        "reptile": lambda a: g1 + g2 - a * h2(g1),
    }
    for name, prediction in predicted.items():
        remainders = [np.abs(_gradient(name, objective, phi, batches, a) - prediction(a)).max() for a in ALPHAS]
        assert _slope(remainders) == pytest.approx(2, abs=0.1), name


def _gradient(name, objective, phi, batches, alpha):
    """The paper's g_MAML, g_FOMAML and g_Reptile = (phi - phi~) / alpha, ``(T, D)``."""
    if name == "reptile":
        return sum(mm.unroll(objective, phi, batches, mm.SGD(alpha)).grads)
    algorithm = {"maml": mm.MAML, "fomaml": mm.FOMAML}[name]
    return algorithm(mm.SGD(alpha)).direction(objective, phi, batches)[0]


def _all_sequences(batches, k):
    """Every ordered choice of k of a task's mini-batches, with repetition, each as a task of its own.

    Its mean over tasks is the exact expectation over independent mini-batches.
    """
    choices = list(product(range(batches.tasks), product(range(len(batches)), repeat=k)))
    return mm.Minibatches(
        *(
            np.stack([np.stack([data[chosen[i], task] for task, chosen in choices]) for i in range(k)])
            for data in (batches.x, batches.y)
        )
    )


@pytest.mark.parametrize("kind", KINDS)
def test_equations_28_to_32_avg_grad_inner_is_half_the_gradient_of_the_inner_product(kind):
    """E[Hbar_2 gbar_1] = 1/2 E[Hbar_2 gbar_1 + Hbar_1 gbar_2] = 1/2 E[d/dphi (gbar_1 . gbar_2)]."""
    objective, phi, batches = _problem(kind, 3)
    pairs = _all_sequences(batches, 2)
    (g1, g2), (h1, h2) = _at_start(objective, phi, pairs)
    inner = h2(g1).mean(axis=0)
    step = 1e-30
    v = np.random.default_rng(0).standard_normal(phi.shape)
    (c1, c2), _ = _at_start(objective, phi + 1j * step * v, pairs)
    derivative = (c1 * c2).sum(axis=1).mean().imag / step
    assert inner @ v == pytest.approx(derivative / 2, rel=1e-10)
    assert_close(inner, (h2(g1) + h1(g2)).mean(axis=0) / 2, 1e-10, "AvgGradInner")


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("name", ["maml", "fomaml", "reptile"])
def test_equations_33_to_41_expected_updates(name, k):
    """E[g] = c1 AvgGrad - c2 alpha AvgGradInner + O(alpha^2), with the paper's c1 and c2."""
    c1, c2 = {"maml": (1, 2 * (k - 1)), "fomaml": (1, k - 1), "reptile": (k, k * (k - 1) / 2)}[name]
    objective, phi, batches = _problem("tanh", 3)
    (g1, _), (_, h2) = _at_start(objective, phi, _all_sequences(batches, 2))
    avg_grad, avg_grad_inner = g1.mean(axis=0), h2(g1).mean(axis=0)
    sequences = _all_sequences(batches, k)
    remainders = [
        np.abs(_gradient(name, objective, phi, sequences, a).mean(axis=0) - (c1 * avg_grad - c2 * a * avg_grad_inner)).max()
        for a in ALPHAS
    ]
    assert _slope(remainders) == pytest.approx(2, abs=0.1)


def test_equations_42_to_47_a_step_towards_a_manifold_is_a_step_on_its_squared_distance():
    """W = {w : B (w - c) = 0} with orthonormal rows B: P(phi) = phi - B^T B (phi - c), D^2 = |phi - P(phi)|^2.

    1/2 D^2 is the quadratic with A = B^T B; its gradient is phi - P(phi); one SGD step of size epsilon gives
    (1 - epsilon) phi + epsilon P(phi).
    """
    rng = np.random.default_rng(0)
    rows = np.linalg.qr(rng.standard_normal((5, 2)))[0].T
    centre, phi, epsilon = rng.standard_normal(5), rng.standard_normal(5), 0.3
    objective, batch = mm.Quadratic(5), ((rows.T @ rows)[None, None], centre[None, None])
    projection = phi - rows.T @ rows @ (phi - centre)
    point = objective.at(phi, batch)
    assert point.loss[0] == pytest.approx(((phi - projection) ** 2).sum() / 2, rel=1e-14)
    assert_close(point.grad[0], phi - projection, 1e-14, "gradient")
    stepped = mm.adapt(objective, phi, [batch], mm.SGD(epsilon))[0]
    assert_close(stepped, (1 - epsilon) * phi + epsilon * projection, 1e-14, "step")
