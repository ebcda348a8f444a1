"""iMAML: the direction is the gradient of the loss at the regularised
optimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.algorithms import Outcome
from minimeta.algorithms.imaml import Regularized
from minimeta.inner import adapt
from minimeta.testing import (
    assert_close,
    assert_same,
    check_algorithm,
    check_objective,
    strict,
    without_hessian,
)
from minimeta.testing.complex_step import complex_step
from minimeta.testing.strategies import inner_rules, problems, seeds, task_counts

LARGEST = 2.0  # eigenvalue of the quadratics below
dims = st.integers(1, 8)
strengths = st.floats(0.3, 30)


def _symmetric(rng, tasks, dim, smallest=0.0):
    """(T, 1, D, D) with eigenvalues in [smallest, LARGEST]."""
    q = np.linalg.qr(rng.standard_normal((tasks, dim, dim)))[0]
    return ((q * rng.uniform(smallest, LARGEST, (tasks, 1, dim))) @ q.swapaxes(1, 2))[:, None]


def _quadratic(seed, tasks, dim, steps):
    """Objective, phi and mini-batches for ``steps`` inner steps.

    Every inner step is on the whole training set.
    """
    rng = np.random.default_rng(seed)
    train = _symmetric(rng, tasks, dim), rng.standard_normal((tasks, 1, dim))
    test = _symmetric(rng, tasks, dim), rng.standard_normal((tasks, 1, dim))
    batches = mm.Minibatches([train[0]] * steps + [test[0]], [train[1]] * steps + [test[1]])
    return mm.Quadratic(dim), rng.standard_normal(dim), batches


def _optimum(batches, strength):
    """phi -> theta* = (A + lambda I)^{-1} (A c + lambda phi), ``(T, D)``."""
    matrix, centre = batches.x[0][:, 0], batches.y[0][:, 0]
    linear = (matrix @ centre[..., None])[..., 0]

    def theta(phi):
        return np.linalg.solve(
            matrix + strength * np.eye(phi.shape[-1]), (linear + strength * phi)[..., None]
        )[..., 0]

    return theta


def _to_convergence(strength):
    """An SGD rule, and the number of steps that reduce errors to 1e-13.

    A step contracts errors by at most 1 - lambda / (lambda + LARGEST).
    """
    return mm.SGD(1 / (strength + LARGEST)), int(
        30 / -np.log1p(-strength / (strength + LARGEST))
    ) + 1


def _krylov(dim):
    """Settings that solve a system of ``dim`` unknowns to rounding.

    They take a few steps more than exact arithmetic needs.
    """
    return dict(cg_steps=dim + 5, tolerance=1e-14)


@given(seeds, task_counts, dims, strengths)
def test_on_quadratics_the_direction_is_the_gradient_of_the_loss_at_the_optimum(
    seed, tasks, dim, strength
):
    rule, steps = _to_convergence(strength)
    objective, phi, batches = _quadratic(seed, tasks, dim, steps)
    algorithm = mm.IMAML(rule, strength, **_krylov(dim))
    theta = _optimum(batches, strength)
    g = objective.at(theta(phi), batches[-1]).grad
    exact = np.linalg.solve(np.eye(dim) + batches.x[0][:, 0] / strength, g[..., None])[..., 0]
    direction, *_ = algorithm.direction(objective, phi, batches)
    assert_close(direction, exact, 1e-9, "the direction")

    def true_objective(phi):
        return objective.at(theta(phi), batches[-1]).loss

    slopes = [complex_step(true_objective, (phi,), (axis,)) for axis in np.eye(dim)]
    assert_close(
        direction, np.stack(slopes, axis=1), 1e-9, "the direction, from the complex step's"
    )
    check_algorithm(
        algorithm, objective, phi, batches, true_objective=true_objective, tolerance=1e-9
    )
    assert_close(algorithm.adapt(objective, phi, batches[:-1]), theta(phi), 1e-9, "the adapted phi")


@given(seeds, dims, strengths)
def test_as_many_steps_as_unknowns_are_exact_on_quadratics_and_each_is_best_in_its_krylov_space(
    seed, dim, strength
):
    objective, phi, batches = _quadratic(seed, 1, dim, 1)
    rule = mm.SGD(0.1)
    adapted = mm.IMAML(rule, strength).adapt(objective, phi, batches[:-1])
    g = objective.at(adapted, batches[-1]).grad[0]
    matrix = np.eye(dim) + batches.x[0][0, 0] / strength
    exact = np.linalg.solve(matrix, g)
    for steps in range(1, dim + 1):
        (direction,), *_ = mm.IMAML(rule, strength, steps, 0.0).direction(objective, phi, batches)
        # The least A-norm of the error over span(g, A g, ..., A^(steps-1) g):
        # that projection, by an orthonormal basis.
        basis = np.linalg.qr(
            np.stack([np.linalg.matrix_power(matrix, i) @ g for i in range(steps)], axis=1)
        )[0]
        best = basis @ np.linalg.solve(basis.T @ matrix @ basis, basis.T @ g)
        # The powers of A are nearly dependent once the error is small; then
        # both are exact to the same digits.
        assert_close(direction, best, 1e-6, f"{steps} steps")
    assert_close(direction, exact, 1e-9, "as many steps as unknowns")


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@given(seed=seeds)
def test_with_a_large_lambda_it_is_fomaml_less_the_hessians_product_over_lambda(activation, seed):
    """(I + H/lambda)^{-1} g = g - H g / lambda + O(1 / lambda^2).

    Steps of 1 / lambda^2 keep the iterates near FOMAML's, since the pull of
    lambda moves them by 1 / lambda^3. The solve has no tolerance, because
    lambda would multiply the remaining residual.
    """
    rng = np.random.default_rng(seed)
    objective = mm.Objective(mm.mlp([2, 4, 2], activation), mm.MeanSquaredError())
    phi = objective.init(rng, np.float64)
    batches = mm.Minibatches(rng.standard_normal((3, 2, 4, 2)), rng.standard_normal((3, 2, 4, 2)))
    errors = []
    for strength in (1e3, 1e4, 1e5):
        rule = mm.SGD(1 / strength**2)
        adapted = adapt(objective, phi, batches[:-1], rule)
        fomaml, *_ = mm.FOMAML(rule).direction(objective, phi, batches)
        first = objective.at(adapted, batches[-2]).hvp(fomaml)
        imaml, *_ = mm.IMAML(rule, strength, tolerance=0).direction(objective, phi, batches)
        errors.append(np.abs(strength * (fomaml - imaml) - first).max() / np.abs(first).max())
        assert errors[-1] < 100 / strength
    assert errors[1] < 0.12 * errors[0] and errors[2] < 0.12 * errors[1]


class _Pulled:
    """L(theta) + lambda/2 |theta - c|^2 on vectors (theta, c), ``(T, 2D)``: the
    optimum moves with c as well."""

    def __init__(self, objective, strength):
        self.objective, self.strength, self.size = objective, strength, 2 * objective.size

    def at(self, both, batch):
        return _PulledPoint(self, both, self.objective.at(both[..., : self.objective.size], batch))


class _PulledPoint:
    def __init__(self, pulled, both, point):
        self._strength, self._point = pulled.strength, point
        pull = self._pull(both)
        self.loss = point.loss + (both * pull).sum(axis=-1) / 2
        self.grad = np.concatenate([point.grad, 0 * point.grad], axis=-1) + pull

    def _pull(self, both):
        theta, c = np.split(both, 2, axis=-1)
        return self._strength * np.concatenate([theta - c, c - theta], axis=-1)

    def hvp(self, v):
        product = self._point.hvp(np.ascontiguousarray(np.split(v, 2, axis=-1)[0]))
        return np.concatenate([product, 0 * product], axis=-1) + self._pull(v)


def _unrolled(objective, phi, batches, alpha, strength):
    """MAML's direction through the regularised inner loop.

    phi is both the start and the centre of the pull.
    """
    both = np.concatenate([phi, phi])
    rule = mm.SGD(np.repeat([alpha, 0.0], len(phi)))  # the centre stays
    way = mm.unroll(_Pulled(objective, strength), both, batches[:-1], rule)
    g = objective.at(np.ascontiguousarray(np.split(way.last, 2, axis=-1)[0]), batches[-1]).grad
    start, centre = np.split(
        way.pullback(np.concatenate([g, 0 * g], axis=-1), rates=False)[0], 2, axis=-1
    )
    return start + centre


@given(seeds, st.integers(1, 4), st.integers(5, 20))
def test_the_unrolled_gradient_is_that_of_the_loss_after_regularised_adaptation(seed, dim, steps):
    """The reference of the next test agrees with the complex step."""
    objective, phi, batches = _quadratic(seed, 2, dim, steps)
    algorithm = mm.IMAML(mm.SGD(0.2), 1.5)

    def true_objective(phi):
        return objective.at(algorithm.adapt(objective, phi, batches[:-1]), batches[-1]).loss

    slopes = [complex_step(true_objective, (phi,), (axis,)) for axis in np.eye(dim)]
    assert_close(
        _unrolled(objective, phi, batches, 0.2, 1.5),
        np.stack(slopes, axis=1),
        1e-10,
        "the unrolled gradient",
    )


def _smooth_problem(kind, rng):
    """An objective, phi, and one mini-batch to train on and one to score
    with."""
    if kind == "network":
        objective = mm.Objective(mm.mlp([2, 4, 2], "tanh"), mm.MeanSquaredError())
        return objective, *rng.standard_normal((2, 2, 2, 5, 2))
    coefficients = np.broadcast_to([0.0, 1.0, 0.5, 0.02, 0.05], (2, 2, 5, 5)) * rng.uniform(
        0.5, 1, (2, 2, 5, 1)
    )
    return mm.Polynomial(3), rng.standard_normal((2, 2, 5, 3)) / 2, coefficients


@pytest.mark.parametrize("kind", ["polynomial", "network"])
@given(seed=seeds)
def test_unrolling_the_inner_loop_gives_the_same_and_the_difference_falls_geometrically(kind, seed):
    """One inner step contracts the distance from the optimum by rho, the
    largest |1 - alpha (lambda + h)| of eigenvalues h of H there; a product of k
    such steps, along iterates that come nearer, differs from the optimum's by
    O(k rho^k). Against the first difference: between two later ones, the fast
    modes may cancel the slow ones."""
    rng = np.random.default_rng(seed)
    objective, x, y = _smooth_problem(kind, rng)
    phi, strength, alpha = 0.5 * objective.init(rng, np.float64), 12.0, 0.025
    errors = []
    for steps in (10, 30, 50, 140):
        batches = mm.Minibatches([x[0]] * steps + [x[1]], [y[0]] * steps + [y[1]])
        unrolled = _unrolled(objective, phi, batches, alpha, strength)
        implicit, *_ = mm.IMAML(mm.SGD(alpha), strength, 40, 1e-14).direction(
            objective, phi, batches
        )
        errors.append(np.abs(implicit - unrolled).max() / np.abs(unrolled).max())
    assert errors[0] > 1e-6  # before the inner loop has converged they do differ
    optimum = mm.IMAML(mm.SGD(alpha), strength).adapt(objective, phi, batches[:-1])
    point = objective.at(optimum, batches[0])
    hessian = np.stack([point.hvp(e) for e in np.eye(objective.size)], axis=2)
    rho = np.abs(
        1 - alpha * (strength + np.linalg.eigvalsh((hessian + hessian.swapaxes(1, 2)) / 2))
    ).max()
    assert rho < 0.85
    assert errors[1] < 3 * rho**20 * errors[0] and errors[2] < 5 * rho**40 * errors[0]
    assert errors[3] < 1e-9


@given(problems(), inner_rules, strengths)
def test_without_a_hessian_it_is_the_last_gradient_at_the_regularised_iterate(
    problem, rule, strength
):
    objective, phi, batches = problem
    if len(batches) < 2:
        return
    algorithm, flat = mm.IMAML(rule, strength), without_hessian(objective)

    def expected(phi):
        way = algorithm.iterates(objective, phi, batches)
        assert_same(way[-1], algorithm.adapt(objective, phi, batches), "the last iterate")
        query = objective.at(way[-2], batches[-1])
        return Outcome(query.grad, query.loss, None)

    check_algorithm(algorithm, flat, phi, batches, expected=expected)


@given(seeds, strengths)
def test_adaptation_pulls_towards_the_meta_parameters_at_every_step(seed, strength):
    objective, phi, batches = _quadratic(seed, 2, 3, 3)
    alpha, want = 0.05, [phi]
    for batch in batches:
        theta = want[-1]
        want.append(theta - alpha * (objective.at(theta, batch).grad + strength * (theta - phi)))
    for got, expected in zip(
        mm.IMAML(mm.SGD(alpha), strength).iterates(objective, phi, batches), want, strict=True
    ):
        assert_close(got, expected, 1e-13, "an iterate")


@given(problems(max_k=1), strengths, seeds)
def test_the_regularised_loss_has_its_own_gradient_and_hessian(problem, strength, seed):
    objective, phi, batches = problem
    centre = np.random.default_rng(seed).standard_normal(phi.shape)

    def true_loss(rows):
        return objective.at(rows, batches[0]).loss + strength / 2 * np.sum(
            (rows - centre) ** 2, axis=1
        )

    check_objective(Regularized(objective, centre, strength), phi, batches[0], true_loss=true_loss)


def _network_problem(tasks=4, dtype=np.float64):
    rng = np.random.default_rng(3)
    objective = mm.Objective(mm.mlp([3, 5, 2], "tanh"), mm.MeanSquaredError())
    data = rng.standard_normal((4, tasks, 6, 3)), rng.standard_normal((4, tasks, 6, 2))
    return objective, objective.init(rng, dtype), mm.Minibatches(*data)


@pytest.mark.usefixtures("either_kernels")
@pytest.mark.parametrize("kind", ["network", "quadratic"])
def test_a_task_gives_the_same_bits_whatever_tasks_stand_beside_it(kind):
    """Tasks that stop at different steps do not affect each other.

    One task has negative curvature.
    """
    objective, phi, batches = _network_problem() if kind == "network" else _quadratic(5, 4, 6, 3)
    if kind == "quadratic":
        batches.x[0][2] *= -9  # the same array serves every training mini-batch
    for tolerance in (0.0, 0.03, 1e-10):
        algorithm = mm.IMAML(mm.SGD(0.1), 0.7, 9, tolerance)
        together, losses, *_ = algorithm.direction(objective, phi, batches)
        for start, stop in ((0, 1), (1, 2), (2, 3), (3, 4), (1, 4), (0, 2)):
            some, their, *_ = algorithm.direction(objective, phi, batches.of_tasks(start, stop))
            assert_same(some, together[start:stop], "the direction")
            assert_same(their, losses[start:stop], "the loss")


@given(seeds, st.floats(1e-6, 0.5))
def test_a_task_rests_at_the_first_step_whose_residual_the_tolerance_takes(seed, tolerance):
    dim, strength, rule = 6, 0.5, mm.SGD(0.1)
    objective, phi, batches = _quadratic(seed, 3, dim, 2)
    adapted = mm.IMAML(rule, strength).adapt(objective, phi, batches[:-1])
    g = objective.at(adapted, batches[-1]).grad
    matrices = np.eye(dim) + batches.x[0][:, 0] / strength
    got, *_ = mm.IMAML(rule, strength, 2 * dim, tolerance).direction(objective, phi, batches)
    directions = [
        mm.IMAML(rule, strength, s, 0.0).direction(objective, phi, batches)[0]
        for s in range(1, 2 * dim + 1)
    ]
    for task in range(3):
        size = np.linalg.norm(g[task])
        residuals = [np.linalg.norm(g[task] - matrices[task] @ d[task]) / size for d in directions]
        first = next(
            i for i, residual in enumerate(residuals) if residual <= tolerance * (1 + 1e-7)
        )
        assert_same(got[task], directions[first][task], f"task {task}")


def test_a_direction_that_bends_down_ends_the_solve_before_it():
    """A = diag(3, -11), lambda = 1.

    The solve stops at once along g = (0, 1), with the result g, and after one
    step along g = (1, 0.1).
    """
    matrix = np.broadcast_to(np.diag([2.0, -12.0]), (2, 1, 2, 2))
    centre = np.array([[[0.0, 1.0]], [[1.0, 0.1]]])
    batches = mm.Minibatches(
        [matrix, np.broadcast_to(np.eye(2), matrix.shape)], [0 * centre, -centre]
    )
    direction, *_ = mm.IMAML(mm.SGD(0.1), 1.0).direction(mm.Quadratic(2), np.zeros(2), batches)
    g = centre[:, 0]
    step = (g[1] @ g[1]) / (g[1] @ np.diag([3.0, -11.0]) @ g[1])
    assert_close(direction, np.stack([g[0], step * g[1]]), 1e-14, "the direction")


def test_what_is_not_finite_shows_in_its_tasks_direction_alone():
    objective, phi, batches = _quadratic(1, 3, 4, 1)
    want, *_ = mm.IMAML(mm.SGD(0.1)).direction(objective, phi, batches)
    batches.x[0][1] = np.nan
    direction, *_ = mm.IMAML(mm.SGD(0.1)).direction(objective, phi, batches)
    assert np.isnan(direction[1]).all()
    assert_same(direction[[0, 2]], want[[0, 2]], "the others")


@pytest.mark.parametrize("steps", [1, 5])
def test_a_hessian_that_is_not_finite_is_not_taken_for_one_that_bends_down(steps, monkeypatch):
    objective, phi, batches = _quadratic(1, 2, 4, 1)
    monkeypatch.setattr(type(objective.at(phi, batches[0])), "hvp", lambda self, v: np.nan * v)
    assert np.isnan(
        mm.IMAML(mm.SGD(0.1), cg_steps=steps).direction(objective, phi, batches)[0]
    ).all()


def test_the_inner_rules_state_goes_in_and_comes_out():
    """Adam's moments from earlier tasks affect the steps on the regularised
    loss.

    The moments after k - 1 steps are returned.
    """
    objective, phi, batches = _network_problem()
    rule = mm.Adam(0.01, beta1=0.5, eps=1e-3)
    shared = rule.merge(None, mm.unroll(objective, phi, batches, rule).states[-1], batches.tasks)
    algorithm = mm.IMAML(rule, 0.7)
    way = mm.unroll(Regularized(objective, phi, 0.7), phi, batches, rule, state=shared)
    direction, loss, (steps, m, v), _ = algorithm.direction(objective, phi, batches, shared)
    assert not np.array_equal(direction, algorithm.direction(objective, phi, batches)[0])
    assert_same(loss, objective.at(way.iterates[-2], batches[-1]).loss, "the loss")
    assert steps == shared.steps + len(batches) - 1
    assert_same(m, way.states[-2].m, "the first moment")
    assert_same(v, way.states[-2].v, "the second moment")
    assert_same(algorithm.adapt(objective, phi, batches, shared), way.last, "the adapted phi")
    for got, want in zip(
        algorithm.iterates(objective, phi, batches, shared), way.iterates, strict=True
    ):
        assert_same(got, want, "an iterate")


@pytest.mark.usefixtures("plain_kernels")
@pytest.mark.parametrize("rule", [mm.SGD(0.1), mm.Adam(0.01, beta1=0.5)], ids=["sgd", "adam"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_another_array_module_gives_the_same_numbers_and_the_host_never_waits(rule, dtype):
    objective, phi, batches = _network_problem(dtype=dtype)
    algorithm = mm.IMAML(rule, np.float64(0.7), 9, 1e-3)
    xp = strict.module
    there = mm.Minibatches(xp.asarray(batches.x), xp.asarray(batches.y))
    with strict.no_waiting():
        direction, loss, *_ = algorithm.direction(objective, xp.asarray(phi), there)
        adapted = algorithm.adapt(objective, xp.asarray(phi), there)
        last = algorithm.iterates(objective, xp.asarray(phi), there)[-1]
    want = (
        *algorithm.direction(objective, phi, batches)[:2],
        *[algorithm.adapt(objective, phi, batches)] * 2,
    )
    for got, expected in zip((direction, loss, adapted, last), want, strict=True):
        assert got.dtype == dtype
        assert_same(got.get(), expected, "a result")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"regularization": 0.0}, "above 0 and finite, got 0.0: use about"),
        ({"regularization": -1.0}, "above 0"),
        ({"regularization": np.inf}, "finite"),
        ({"regularization": np.nan}, "above 0"),
        ({"cg_steps": 0}, "1 or more, got 0: use FOMAML"),
        ({"tolerance": -1e-3}, "0 or more and below 1, got -0.001: use 0"),
        ({"tolerance": np.nan}, "0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(mm.SettingsError, match=says):
        mm.IMAML(mm.SGD(0.1), **settings)


@pytest.mark.parametrize("k", [0, 1])
def test_it_needs_a_minibatch_to_train_on_and_one_to_score(k):
    objective, phi, batches = _quadratic(0, 2, 3, 1)
    with pytest.raises(mm.ShapeError, match=f"at least two mini-batches per task, got {k}"):
        mm.IMAML(mm.SGD(0.1)).direction(objective, phi, batches[:k])
