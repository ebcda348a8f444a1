"""What a layer, a loss, an objective and an algorithm must satisfy. Each check raises an AssertionError that names the
pass and the term at fault."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..algorithms import Algorithm
from ..layers import Layer
from ..losses import Loss
from ..objectives import Batch, Differentiable
from ..tasks import Minibatches
from .complex_step import STEP, assert_close, complex_step, imaginary

TOLERANCE = 1e-10  # float64 rounding (1e-16) through sums of a few thousand terms and a few divisions


def check_layer(
    layer: Layer,
    input_shape: tuple[int, ...],
    *,
    tasks: int = 2,
    examples: int = 3,
    shared: bool = False,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """The four passes agree with each other and with the complex step, at random float64 inputs.

    ``forward_tangent`` is the derivative of ``forward``; ``backward`` is its transpose, <dy, J u> = <J^T dy, u> task by
    task; ``backward_tangent`` is the derivative of ``backward``; no pass changes its inputs; a task's results do not depend
    on the tasks beside it; with ``shared`` parameters (leading axis 1) the results are those of equal copies.
    """
    name = type(layer).__name__
    rng = np.random.default_rng(seed)

    def parameters(count: int) -> dict[str, np.ndarray]:
        return {key: rng.standard_normal((count, *shape)) for key, shape in layer.shapes.items()}

    theta, theta_dot = parameters(1 if shared else tasks), parameters(tasks)
    x, x_dot = rng.standard_normal((2, tasks, examples, *input_shape))
    y, cache = layer.forward(theta, x)
    assert y.shape == (tasks, examples, *layer.output_shape(input_shape)), f"{name}.forward: y has shape {y.shape}"
    dy, dy_dot = rng.standard_normal((2, *y.shape))
    before = copy.deepcopy((theta, theta_dot, x, x_dot, dy, dy_dot))

    y_dot, cache_dot = layer.forward_tangent(theta, theta_dot, cache, x_dot)
    want = complex_step(lambda p, z: layer.forward(p, z)[0], (theta, x), (theta_dot, x_dot))
    assert_close(y_dot, want, tolerance, f"{name}.forward_tangent: y_dot")

    dx, dtheta = layer.backward(theta, cache, dy)
    assert set(dtheta) == set(layer.shapes), f"{name}.backward: dtheta names {set(dtheta)}, not {set(layer.shapes)}"
    moved = _dots(dx, x_dot) + sum((_dots(dtheta[key], theta_dot[key]) for key in dtheta), np.zeros(tasks))
    sizes = _dots(abs(dx), abs(x_dot)) + _dots(abs(dy), abs(y_dot))
    assert (abs(moved - _dots(dy, y_dot)) <= tolerance * sizes).all(), f"{name}.backward is not forward_tangent's transpose"

    dx_dot, dtheta_dot = layer.backward_tangent(theta, theta_dot, cache, cache_dot, dy, dy_dot)
    shifted = {key: theta[key] + 1j * STEP * theta_dot[key] for key in theta}
    _, shifted_cache = layer.forward(shifted, x + 1j * STEP * x_dot)
    want_dx, want_dtheta = layer.backward(shifted, shifted_cache, dy + 1j * STEP * dy_dot)
    assert_close(dx_dot, imaginary(want_dx), tolerance, f"{name}.backward_tangent: dx_dot")
    for key in layer.shapes:
        what = f"{name}.backward_tangent: dtheta_dot[{key!r}]"
        assert_close(dtheta_dot[key], imaginary(want_dtheta[key]), tolerance, what)

    for old, new in zip(_arrays(before), _arrays((theta, theta_dot, x, x_dot, dy, dy_dot)), strict=True):
        assert np.array_equal(old, new), f"{name}: a pass changed its inputs in place"
    alone = {key: value if shared else value[:1] for key, value in theta.items()}
    assert_same(layer.forward(alone, x[:1])[0], y[:1], f"{name}.forward: task 0 depends on other tasks")
    if shared:
        copies = {key: np.repeat(value, tasks, axis=0) for key, value in theta.items()}
        assert_same(layer.forward(copies, x)[0], y, f"{name}.forward: shared parameters differ from equal copies")


def check_loss(loss: Loss, z: np.ndarray, target: np.ndarray, *, seed: int = 0, tolerance: float = TOLERANCE) -> None:
    """``backward`` and ``backward_tangent`` are the first and second derivative of ``forward`` at float64 ``z``."""
    name = type(loss).__name__
    z_dot = np.random.default_rng(seed).standard_normal(z.shape)
    value, cache = loss.forward(z, target)
    assert value.shape == z.shape[:1], f"{name}.forward: loss has shape {value.shape}, expected {z.shape[:1]}"
    dz = loss.backward(cache)
    want = complex_step(lambda p: loss.forward(p, target)[0], (z,), (z_dot,))
    assert (abs(_dots(dz, z_dot) - want) <= tolerance * _dots(abs(dz), abs(z_dot))).all(), f"{name}.backward: dz is wrong"
    want = complex_step(lambda p: loss.backward(loss.forward(p, target)[1]), (z,), (z_dot,))
    assert_close(loss.backward_tangent(cache, z_dot), want, tolerance, f"{name}.backward_tangent: dz_dot")


def check_objective(
    objective: Differentiable, phi: np.ndarray, batch: Batch, *, seed: int = 0, tolerance: float = TOLERANCE
) -> None:
    """``grad`` and ``hvp`` are the derivatives of ``loss`` and ``grad``; hvp is linear and symmetric."""
    rng = np.random.default_rng(seed)
    point = objective.at(phi, batch)
    tasks = len(point.loss)
    u, v = rng.standard_normal((2, tasks, objective.size))
    rows = np.broadcast_to(phi, (tasks, objective.size))

    want = complex_step(lambda p: objective.at(p, batch).loss, (rows,), (v,))
    assert (abs(_dots(point.grad, v) - want) <= tolerance * _dots(abs(point.grad), abs(v))).all(), "grad is wrong"
    hv, hu = point.hvp(v), point.hvp(u)
    assert_close(hv, complex_step(lambda p: objective.at(p, batch).grad, (rows,), (v,)), tolerance, "hvp")
    sizes = _dots(abs(u), abs(hv))
    assert (abs(_dots(u, hv) - _dots(v, hu)) <= tolerance * sizes).all(), "hvp is not symmetric: <u, H v> != <v, H u>"
    assert_close(point.hvp(2 * u - 3 * v), 2 * hu - 3 * hv, tolerance, "hvp is not linear: H(2u - 3v)")
    assert_same(objective.at(rows.copy(), batch).grad, point.grad, "grad: shared parameters differ from equal copies")
    first = tuple(data[:1] for data in batch)
    assert_same(objective.at(rows[:1], first).grad, point.grad[:1], "grad: task 0 depends on other tasks")
    assert_same(objective.at(rows[:1], first).hvp(v[:1]), hv[:1], "hvp: task 0 depends on other tasks")


def check_algorithm(
    algorithm: Algorithm,
    objective: Differentiable,
    meta: np.ndarray,
    minibatches: Minibatches,
    *,
    true_objective: Callable[[np.ndarray], np.ndarray] | None = None,
    seed: int = 0,
    tolerance: float = TOLERANCE,
) -> None:
    """``direction`` is the gradient of ``true_objective`` (meta to losses ``(T,)``), where one is given; ``meta`` is not
    changed; a task's direction does not depend on the tasks beside it."""
    name = type(algorithm).__name__
    before = meta.copy()
    direction, loss = algorithm.direction(objective, meta, minibatches)
    tasks = minibatches.tasks
    assert direction.shape == (tasks, meta.shape[-1]), f"{name}.direction has shape {direction.shape}"
    assert loss.shape == (tasks,), f"{name}.direction: losses have shape {loss.shape}"
    assert np.array_equal(before, meta), f"{name}.direction changed meta in place"
    alone, _ = algorithm.direction(objective, meta, minibatches.of_tasks(0, 1))
    assert_same(alone, direction[:1], f"{name}.direction: task 0 depends on other tasks")
    if true_objective is not None:
        v = np.random.default_rng(seed).standard_normal(meta.shape)
        want = complex_step(true_objective, (meta,), (v,))
        error, sizes = abs(direction @ v - want), abs(direction) @ abs(v)
        assert (error <= tolerance * sizes).all(), f"{name}.direction differs by {(error / sizes).max():.1e} relative"


def assert_same(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Raise an AssertionError unless ``got`` and ``want`` are equal to the last bit."""
    assert np.array_equal(got, want), f"{what} (by {np.abs(got - want).max():.1e})"


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """<a, b> task by task, ``(T,)``."""
    return (a * b).reshape(len(a), -1).sum(axis=1)


def _arrays(tree: Any) -> Sequence[np.ndarray]:
    if isinstance(tree, dict):
        return [array for value in tree.values() for array in _arrays(value)]
    if isinstance(tree, tuple):
        return [array for value in tree for array in _arrays(value)]
    return [tree]
