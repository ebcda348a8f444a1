"""The numbered equations of the Reptile paper (arXiv 1803.02999), on smooth
objectives in float64.

An equation that holds up to O(alpha^n) is tested by its rate: the remainder
falls with slope n on a log-log plot.
"""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.testing import assert_close
from minimeta.testing.strategies import rates, seeds
from minimeta.theory import taylor

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
    """The paper's g_MAML, g_FOMAML and g_Reptile = (phi - phi~) / alpha, ``(T,
    D)``, by the algorithm itself."""
    if name == "reptile":
        return sum(mm.unroll(objective, phi, batches, mm.SGD(alpha)).grads)
    algorithm = {"maml": mm.MAML, "fomaml": mm.FOMAML}[name]
    return algorithm(mm.SGD(alpha)).direction(objective, phi, batches)[0]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", range(2, 9))
def test_equations_9_to_16_each_inner_gradient(kind, k, order):
    """g_i = gbar_i - alpha Hbar_i sum_{j<i} gbar_j + O(alpha^2), and the
    alpha^2 term after it."""
    objective, phi, batches = _problem(kind, k)
    predicted = taylor.expand(objective, phi, batches, order).inner
    grads = [mm.unroll(objective, phi, batches, mm.SGD(alpha)).grads for alpha in ALPHAS]
    assert np.array_equal(grads[0][0], predicted[0](ALPHAS[0]))
    remainders = [
        max(np.abs(g[i] - predicted[i](alpha)).max() for i in range(1, k))
        for g, alpha in zip(grads, ALPHAS, strict=True)
    ]
    assert _slope(remainders) == pytest.approx(order + 1, abs=SLOPE)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", range(2, 9))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_equations_17_to_27_the_three_gradients(name, kind, k, order):
    """g_MAML = gbar_k - alpha sum_{j<k} Hbar_j gbar_k - alpha Hbar_k sum_{j<k}
    gbar_j + O(alpha^2), and so on."""
    objective, phi, batches = _problem(kind, k)
    predicted = getattr(taylor.expand(objective, phi, batches, order), name)
    remainders = [
        np.abs(_gradient(name, objective, phi, batches, a) - predicted(a)).max() for a in ALPHAS
    ]
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
def test_equations_28_to_32_avg_grad_inner_is_half_the_gradient_of_the_inner_product(
    kind, distinct
):
    """E[Hbar_2 gbar_1] = 1/2 E[Hbar_2 gbar_1 + Hbar_1 gbar_2] = 1/2 E[d/dphi
    (gbar_1 . gbar_2)]."""
    objective, phi, batches = _problem(kind, 3)
    first, second = taylor.sequences(batches, 2, distinct)
    v = np.random.default_rng(0).standard_normal(phi.shape)
    shifted = phi + 1e-30j * v
    products = (objective.at(shifted, first).grad * objective.at(shifted, second).grad).sum(axis=1)
    inner = taylor.avg_grad_inner(objective, phi, batches, distinct)
    assert inner @ v == pytest.approx(products.mean().imag / 1e-30 / 2, rel=1e-10)
    assert_close(
        taylor.avg_grad(objective, phi, batches),
        objective.at(phi, first).grad.mean(axis=0),
        1e-13,
        "AvgGrad",
    )


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("name", ALGORITHMS)
def test_equations_33_to_41_expected_updates(name, k, distinct):
    """E[g] = c1 AvgGrad - c2 alpha AvgGradInner + O(alpha^2), over all
    sequences of k mini-batches."""
    objective, phi, batches = _problem("tanh", 4)
    c1, c2 = taylor.coefficients(name, k)
    avg_grad = taylor.avg_grad(objective, phi, batches)
    avg_grad_inner = taylor.avg_grad_inner(objective, phi, batches, distinct)
    every = taylor.sequences(batches, k, distinct)
    remainders = [
        np.abs(
            _gradient(name, objective, phi, every, a).mean(axis=0)
            - (c1 * avg_grad - c2 * a * avg_grad_inner)
        ).max()
        for a in ALPHAS
    ]
    assert _slope(remainders) == pytest.approx(2, abs=SLOPE)


@pytest.mark.parametrize("k", range(2, 9))
@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_papers_coefficients_are_recovered_from_expected_updates(name, k):
    """The regression recovers c1 and c2 without knowing them.

    Its error is alpha^8, about 1e-6 here, plus rounding.
    """
    objective, phi, batches = _problem("tanh", 2)
    every, alphas = taylor.sequences(batches, k), np.linspace(0.00125, 0.01, 8)
    updates = [_gradient(name, objective, phi, every, alpha).mean(axis=0) for alpha in alphas]
    averages = (
        taylor.avg_grad(objective, phi, batches),
        taylor.avg_grad_inner(objective, phi, batches),
    )
    recovered = taylor.recover_coefficients(alphas, updates, *averages)
    assert recovered == pytest.approx(taylor.coefficients(name, k), abs=1e-3)


@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_regression_finds_coefficients_under_any_higher_terms(order, size):
    """The fit is exact for u = c1 G - c2 alpha J + sum_{n<=order} alpha^n r_n.

    This holds with as many alphas as unknowns and with more. With one parameter
    G and J are parallel, and only their powers of alpha separate them.
    """
    rng = np.random.default_rng(order)
    (avg_grad, avg_grad_inner), higher = (
        rng.standard_normal((2, size)),
        rng.standard_normal((order - 1, size)),
    )
    for count in (order + 1, order + 3):
        alphas = rng.uniform(0.2, 1, count)
        updates = [
            3 * avg_grad - 7 * a * avg_grad_inner + a ** np.arange(2, order + 1) @ higher
            for a in alphas
        ]
        recovered = taylor.recover_coefficients(alphas, updates, avg_grad, avg_grad_inner, order)
        assert recovered == pytest.approx((3, 7), rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_measured_gradients_are_the_algorithms(kind, k):
    objective, phi, batches = _problem(kind, k)
    measured = taylor.gradients(objective, phi, batches, 0.1)
    for name in ALGORITHMS:
        assert_close(
            getattr(measured, name), _gradient(name, objective, phi, batches, 0.1), 1e-14, name
        )
    reptile, *_ = mm.Reptile(mm.SGD(0.1)).direction(objective, phi, batches)
    assert_close(measured.reptile, reptile / 0.1, 1e-13, "(phi - phi~) / alpha")


@given(st.integers(1, 8), st.integers(2, 5), rates, seeds)
def test_on_quadratics_the_three_gradients_are_products_of_matrices(k, dim, alpha, seed):
    """With L_i' = A_i phi - b_i and M_i = I - alpha A_i, k steps of SGD from
    phi_1 = phi are

    phi_i = M_{i-1} ... M_1 phi + alpha sum_{j<i} M_{i-1} ... M_{j+1} b_j,
    g_i = A_i phi_i - b_i,    g_MAML = M_1 ... M_{k-1} g_k,
    g_FOMAML = g_k,           g_Reptile = g_1 + ... + g_k.
    """
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((k, 2, 3, dim, dim))
    a_n, c_n, phi = (
        root + root.swapaxes(3, 4),
        rng.standard_normal((k, 2, 3, dim)),
        rng.standard_normal(dim),
    )
    algorithms = {
        name: _gradient(name, mm.Quadratic(dim), phi, mm.Minibatches(a_n, c_n), alpha)
        for name in ALGORITHMS
    }
    for task in range(2):
        a = a_n[:, task].mean(axis=1)
        b = np.einsum("inde,ine->id", a_n[:, task], c_n[:, task]) / 3
        m = np.eye(dim) - alpha * a

        def product(first, last, m=m):
            """M_last ... M_first, with later steps on the left."""
            return reduce(np.matmul, m[first : last + 1][::-1], np.eye(len(m[0])))

        iterates = [
            product(0, i - 1) @ phi + alpha * sum(product(j + 1, i - 1) @ b[j] for j in range(i))
            for i in range(k)
        ]
        g = [a[i] @ iterates[i] - b[i] for i in range(k)]
        scale = max(np.abs(each).max() for each in (*g, *b)) * max(
            1, np.abs(product(0, k - 2)).max()
        )
        for name, want in (
            ("maml", product(0, k - 2).T @ g[-1]),
            ("fomaml", g[-1]),
            ("reptile", sum(g)),
        ):
            assert np.abs(algorithms[name][task] - want).max() <= 1e-12 * scale, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_equations_6_and_7_one_minibatch_is_joint_training(name, kind):
    """At k = 1 every expected update is AvgGrad for every alpha.

    The series and the coefficients agree.
    """
    objective, phi, batches = _problem(kind, 1)
    joint = taylor.avg_grad(objective, phi, batches)
    for alpha in (1e-3, 1.0):
        assert_close(
            _gradient(name, objective, phi, batches, alpha).mean(axis=0), joint, 1e-14, name
        )
    series = getattr(taylor.expand(objective, phi, batches, order=2), name)
    assert not any(term.any() for term in series.terms[1:])
    assert taylor.coefficients(name, 1) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_third_derivative_is_symmetric_and_homogeneous(kind):
    objective, phi, batches = _problem(kind, 1)
    u, v, w = np.random.default_rng(0).standard_normal((3, 2, objective.size))
    uv, vu, uw = (
        taylor.third(objective, phi, batches[0], *pair) for pair in ((u, v), (v, u), (u, w))
    )
    assert_close(uv, vu, 1e-10, "third derivative in exchanged directions")
    sizes = (abs(uv) * abs(w)).sum(axis=1)
    assert (abs((uv * w).sum(axis=1) - (uw * v).sum(axis=1)) <= 1e-10 * sizes).all()
    assert_close(
        taylor.third(objective, phi, batches[0], 2 * u, -v),
        -2 * uv,
        1e-10,
        "third derivative of multiples",
    )


def test_what_is_not_known_is_refused():
    objective, phi, batches = _problem("tanh", 2)
    with pytest.raises(mm.SettingsError, match="order must be 1 or 2, got 3"):
        taylor.expand(objective, phi, batches, order=3)
    with pytest.raises(mm.SettingsError, match="'imaml'"):
        taylor.coefficients("imaml", 2)
    with pytest.raises(mm.SettingsError, match="M=2 step sizes and 2 updates"):
        taylor.recover_coefficients([0.1, 0.2], [phi, phi], phi, phi, order=2)
    with pytest.raises(mm.SettingsError, match="3 distinct mini-batches"):
        taylor.sequences(batches, 3, distinct=True)


def test_equations_42_to_47_a_step_towards_a_manifold_is_a_step_on_its_squared_distance():
    """W = {w : B (w - c) = 0} with orthonormal rows B: P(phi) = phi - B^T B
    (phi - c), D^2 = |phi - P(phi)|^2.

    1/2 D^2 is the quadratic with A = B^T B; its gradient is phi - P(phi); one
    SGD step of size epsilon gives (1 - epsilon) phi + epsilon P(phi).
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
