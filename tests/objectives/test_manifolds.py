"""Section 5.2 of the Reptile paper: tasks as solution manifolds.

Reptile descends the squared distance to the manifolds.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta as mm
from minimeta.testing import assert_close, check_objective
from minimeta.testing.strategies import seeds


def _directions(rng, shape):
    """Unit vectors along the last axis."""
    v = rng.standard_normal(shape)
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def _linear_manifolds(rng, tasks=4, dim=5, codimension=3):
    """W_t = {w : B_t (w - c_t) = 0} as quadratics, A_t = B_t^T B_t: mini-batch
    arrays ``(T, 1, D, D)`` and ``(T, 1, D)``.

    A shared shift of the centres puts the manifolds away from 0; their own
    shifts leave them without a common point.
    """
    rows = np.stack(
        [np.linalg.qr(rng.standard_normal((dim, codimension)))[0].T for _ in range(tasks)]
    )
    return (rows.swapaxes(1, 2) @ rows)[:, None], 3 + rng.standard_normal((tasks, 1, dim))


def _least_mean_squared_distance(projectors, centres):
    """The phi of least mean 1/2 D(phi, W_t)^2: (sum_t A_t) phi = sum_t A_t
    c_t."""
    a, c = projectors[:, 0], centres[:, 0]
    return np.linalg.solve(a.sum(axis=0), np.einsum("tde,te->d", a, c))


@pytest.mark.parametrize("k", [1, 5])
def test_batched_reptile_converges_to_the_point_of_least_mean_squared_distance(k):
    """The limit point does not depend on k.

    k steps of alpha move by the fraction 1 - (1 - alpha)^k of the distance to a
    linear manifold.
    """
    manifolds = _linear_manifolds(np.random.default_rng(0))
    objective, algorithm, phi = mm.Quadratic(5), mm.Reptile(mm.SGD(0.3)), np.zeros(5)
    batches = [manifolds] * k
    moved, *_ = algorithm.direction(objective, phi, batches)
    assert_close(
        moved,
        (1 - 0.7**k) * objective.at(phi, manifolds).grad,
        1e-14,
        "k steps towards each manifold",
    )
    for _ in range(300):
        phi = phi - mm.mean(algorithm.direction(objective, phi, batches)[0])
    assert_close(phi, _least_mean_squared_distance(*manifolds), 1e-12, "the limit")


@pytest.mark.parametrize("k", [1, 5])
def test_serial_reptile_with_a_decreasing_step_converges_to_the_same_point(k):
    """One manifold per step, in turn.

    With a constant epsilon phi circles the point for ever. With epsilon 1 / i
    phi converges to the point.
    """
    manifolds = _linear_manifolds(np.random.default_rng(1))
    optimum = _least_mean_squared_distance(*manifolds)
    objective, algorithm = mm.Quadratic(5), mm.Reptile(mm.SGD(0.3))

    def relative_distance_after(steps, epsilon):
        phi = np.zeros(5)
        for i in range(steps):
            one = tuple(part[i % 4 : i % 4 + 1] for part in manifolds)
            phi = phi - epsilon(i) * mm.mean(algorithm.direction(objective, phi, [one] * k)[0])
        return np.linalg.norm(phi - optimum) / np.linalg.norm(optimum)

    assert relative_distance_after(4000, lambda i: 0.5) > 0.01
    distances = [
        relative_distance_after(steps, lambda i: 1 / (1 + i / 50)) for steps in (400, 4000)
    ]
    assert distances[1] < 2e-3
    assert distances[1] < distances[0] / 5


@given(st.integers(1, 4), st.integers(1, 3), st.booleans(), seeds)
def test_the_squared_distance_to_spheres_has_the_derivatives_it_states(
    dim, count, own_copies, seed
):
    rng = np.random.default_rng(seed)
    phi = rng.standard_normal((2, dim) if own_copies else dim)
    # Centres stay away from phi, where the distance has a kink.
    offsets = rng.uniform(0.5, 3, (2, count, 1)) * _directions(rng, (2, count, dim))
    check_objective(
        mm.Sphere(dim), phi, (phi[..., None, :] + offsets, rng.random((2, count))), seed=seed
    )


@given(st.integers(2, 4), st.integers(1, 8), st.floats(0.05, 0.9), seeds)
def test_k_steps_towards_a_sphere_go_straight_to_the_nearest_point(dim, k, alpha, seed):
    """phi - U^k(phi) = (1 - (1 - alpha)^k) (phi - P(phi)), P(phi) = c + r m.

    The inner loop moves along a straight line, because the normal m is
    constant.
    """
    rng = np.random.default_rng(seed)
    normal, centre, radius = (
        _directions(rng, (3, dim)),
        rng.standard_normal((3, dim)),
        0.5 + rng.random(3),
    )
    phi = centre + rng.uniform(0.2, 3, (3, 1)) * normal
    objective, batch = mm.Sphere(dim), (centre[:, None], radius[:, None])
    from_nearest = phi - (centre + radius[:, None] * normal)
    point = objective.at(phi, batch)
    assert np.allclose(point.grad, from_nearest, rtol=0, atol=1e-13)
    assert np.allclose(point.loss, (from_nearest**2).sum(axis=1) / 2, rtol=0, atol=1e-13)
    moved, *_ = mm.Reptile(mm.SGD(alpha)).direction(objective, phi, [batch] * k)
    assert np.allclose(moved, (1 - (1 - alpha) ** k) * from_nearest, rtol=0, atol=1e-12)


def test_alternating_moves_towards_two_circles_end_halfway_between_them():
    """Figure 2: the point of least mean squared distance to two disjoint
    circles is the middle of their gap."""
    circles = np.array([[[0.0, 3.0]], [[1.0, -2.0]]]), np.array([[2.0], [1.5]])
    between = circles[0][1, 0] - circles[0][0, 0]
    gap = np.linalg.norm(between) - circles[1].sum()
    optimum = circles[0][0, 0] + (circles[1][0, 0] + gap / 2) * between / np.linalg.norm(between)
    objective, algorithm, phi = mm.Sphere(2), mm.Reptile(mm.SGD(0.3)), np.array([-3.0, 0.5])
    for i in range(2000):
        one = tuple(part[i % 2 : i % 2 + 1] for part in circles)
        phi = phi - mm.mean(algorithm.direction(objective, phi, [one] * 5)[0]) / (1 + i / 10)
    assert np.linalg.norm(phi - optimum) < 0.01
    assert np.abs(objective.at(phi, circles).grad.sum(axis=0)).max() < 0.01


def test_wrong_spheres_are_refused():
    with pytest.raises(mm.ShapeError, match=r"Sphere\(2\) expects x \(T, N, 2\) and y \(T, N\)"):
        mm.Sphere(2).at(np.zeros(2), (np.zeros((1, 1, 2)), np.zeros((1, 2))))
