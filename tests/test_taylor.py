"""The numbered equations of the Reptile paper (arXiv 1803.02999), on smooth objectives in float64.

An equation that holds up to O(alpha^n) is tested by its rate: the remainder falls with slope n on a log-log plot.
"""

import numpy as np
import pytest

import minimeta as mm
from minimeta import taylor
from minimeta.testing import assert_close

ALPHAS = np.logspace(-4, -3, 6)
KINDS = ("polynomial", "tanh", "softplus", "convolution and batch norm")
ALGORITHMS = ("maml", "fomaml", "reptile")
SLOPE = 0.1  # of a fit over one decade: the next order bends it by about alpha


def _problem(kind, k, tasks=2):
    rng = np.random.default_rng(k)
    if kind == "polynomial":
        objective = mm.Polynomial(4)
        x, y = rng.standard_normal((k, tasks, 3, 4)) / 4, rng.standard_normal((k, tasks, 3, 5))
    elif kind == "convolution and batch norm":
        stack = mm.layers.Conv2D(1, 2, stride=2), mm.layers.BatchNorm(2), mm.layers.Tanh()
        network = mm.Network((6, 6, 1), (*stack, mm.layers.Flatten(), mm.layers.Dense(18, 3)))
        objective = mm.Objective(network, mm.SoftmaxCrossEntropy())
        x, y = rng.standard_normal((k, tasks, 4, 6, 6, 1)), rng.integers(0, 3, (k, tasks, 4))
    else:
        objective = mm.Objective(mm.mlp([2, 6, 6, 2], kind), mm.MeanSquaredError())
        x, y = rng.standard_normal((2, k, tasks, 5, 2))
    return objective, objective.init(rng, np.float64), mm.Minibatches(x, y)


def _slope(remainders):
    return np.polyfit(np.log(ALPHAS), np.log(remainders), 1)[0]


def _gradient(name, objective, phi, batches, alpha):
    """The paper's g_MAML, g_FOMAML and g_Reptile = (phi - phi~) / alpha, ``(T, D)``, by the algorithm itself."""
    if name == "reptile":
        return sum(mm.unroll(objective, phi, batches, mm.SGD(alpha)).grads)
    algorithm = {"maml": mm.MAML, "fomaml": mm.FOMAML}[name]
    return algorithm(mm.SGD(alpha)).direction(objective, phi, batches)[0]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", range(2, 9))
def test_equations_9_to_16_each_inner_gradient(kind, k, order):
    """g_i = gbar_i - alpha Hbar_i sum_{j<i} gbar_j + O(alpha^2), and the alpha^2 term after it."""
    objective, phi, batches = _problem(kind, k)
    predicted = taylor.expand(objective, phi, batches, order).inner
    grads = [mm.unroll(objective, phi, batches, mm.SGD(alpha)).grads for alpha in ALPHAS]
    assert np.array_equal(grads[0][0], predicted[0](ALPHAS[0]))
    remainders = [
        max(np.abs(g[i] - predicted[i](alpha)).max() for i in range(1, k)) for g, alpha in zip(grads, ALPHAS, strict=True)
    ]
    assert _slope(remainders) == pytest.approx(order + 1, abs=SLOPE)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", range(2, 9))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_equations_17_to_27_the_three_gradients(name, kind, k, order):
    """g_MAML = gbar_k - alpha sum_{j<k} Hbar_j gbar_k - alpha Hbar_k sum_{j<k} gbar_j + O(alpha^2), and so on."""
    objective, phi, batches = _problem(kind, k)
    predicted = getattr(taylor.expand(objective, phi, batches, order), name)
    remainders = [np.abs(_gradient(name, objective, phi, batches, a) - predicted(a)).max() for a in ALPHAS]
    assert _slope(remainders) == pytest.approx(order + 1, abs=SLOPE)


@pytest.mark.parametrize("kind", KINDS)
def test_equations_25_to_27_as_they_stand(kind):
    objective, phi, batches = _problem(kind, 2)
    points = [objective.at(phi, batch) for batch in batches]
    (g1, g2), (h1, h2) = [point.grad for point in points], [point.hvp for point in points]
    a, expansion = 0.1, taylor.expand(objective, phi, batches)
    assert_close(expansion.maml(a), g2 - a * h2(g1) - a * h1(g2), 1e-13, "MAML")
    assert_close(expansion.fomaml(a), g2 - a * h2(g1), 1e-13, "FOMAML")
    assert_close(expansion.reptile(a), g1 + g2 - a * h2(g1), 1e-13, "Reptile")


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equations_28_to_32_avg_grad_inner_is_half_the_gradient_of_the_inner_product(kind, distinct):
    """E[Hbar_2 gbar_1] = 1/2 E[Hbar_2 gbar_1 + Hbar_1 gbar_2] = 1/2 E[d/dphi (gbar_1 . gbar_2)]."""
    objective, phi, batches = _problem(kind, 3)
    first, second = taylor.sequences(batches, 2, distinct)
    v = np.random.default_rng(0).standard_normal(phi.shape)
    shifted = phi + 1e-30j * v
    products = (objective.at(shifted, first).grad * objective.at(shifted, second).grad).sum(axis=1)
    inner = taylor.avg_grad_inner(objective, phi, batches, distinct)
    assert inner @ v == pytest.approx(products.mean().imag / 1e-30 / 2, rel=1e-10)
    assert_close(taylor.avg_grad(objective, phi, batches), objective.at(phi, first).grad.mean(axis=0), 1e-13, "AvgGrad")


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_equations_33_to_41_expected_updates(name, k, distinct):
    """E[g] = c1 AvgGrad - c2 alpha AvgGradInner + O(alpha^2), over all sequences of k mini-batches."""
    objective, phi, batches = _problem("tanh", 4)
    c1, c2 = taylor.coefficients(name, k)
    avg_grad = taylor.avg_grad(objective, phi, batches)
    avg_grad_inner = taylor.avg_grad_inner(objective, phi, batches, distinct)
    every = taylor.sequences(batches, k, distinct)
    remainders = [
        np.abs(_gradient(name, objective, phi, every, a).mean(axis=0) - (c1 * avg_grad - c2 * a * avg_grad_inner)).max()
        for a in ALPHAS
    ]
    assert _slope(remainders) == pytest.approx(2, abs=SLOPE)


@pytest.mark.parametrize("kind", KINDS)
def test_the_third_derivative_is_symmetric_and_homogeneous(kind):
    objective, phi, batches = _problem(kind, 1)
    u, v, w = np.random.default_rng(0).standard_normal((3, 2, objective.size))
    uv, vu, uw = (taylor.third(objective, phi, batches[0], *pair) for pair in ((u, v), (v, u), (u, w)))
    assert_close(uv, vu, 1e-10, "third derivative in exchanged directions")
    sizes = (abs(uv) * abs(w)).sum(axis=1)
    assert (abs((uv * w).sum(axis=1) - (uw * v).sum(axis=1)) <= 1e-10 * sizes).all()
    assert_close(taylor.third(objective, phi, batches[0], 2 * u, -v), -2 * uv, 1e-10, "third derivative of multiples")


def test_what_is_not_known_is_refused():
    objective, phi, batches = _problem("tanh", 2)
    with pytest.raises(mm.SettingsError, match="order 1 and 2, not 3"):
        taylor.expand(objective, phi, batches, order=3)
    with pytest.raises(mm.SettingsError, match="'imaml'"):
        taylor.coefficients("imaml", 2)
    with pytest.raises(mm.SettingsError, match="3 distinct mini-batches"):
        taylor.sequences(batches, 3, distinct=True)


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
