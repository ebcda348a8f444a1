"""Conjugate gradients (Hestenes and Stiefel 1952), task by task."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays.backend import Array, array_module


def conjugate_gradients(
    product: Callable[[Array], Array], g: Array, steps: int, tolerance: float = 0.0
) -> Array:
    """A^{-1} g of each task, ``(T, D)``, by ``steps`` steps from 0.

    ``product(v)`` is A v for ``v: (T, D)``. ``g`` is ``(T, D)``. A is symmetric
    and should be positive definite. With r_0 = p_0 = g and x_0 = 0, one step is

        a = <r, r> / <p, A p>,    x' = x + a p,    r' = r - a A p,
        b = <r', r'> / <r, r>,    p' = r' + b p.

    A task stops once |r| <= ``tolerance`` |g|. It also stops at a direction
    with <p, A p> <= 0. Then x keeps the steps before that direction, and x = g
    if that direction is the first.

    A task that has stopped takes steps of length zero, so the host never waits
    for a device to learn which tasks have stopped. A NaN fails both tests for
    stopping. A task with a NaN therefore continues, and its result shows the
    NaN. Every sum is over the row of one task, so tasks are independent.
    Products take no conjugate, so the complex step passes through.
    """
    xp = array_module(g)
    solution, residual, along = xp.zeros_like(g), g, g
    square = _dots(g, g)
    enough = tolerance**2 * square.real
    live = ~(square.real <= enough)
    at_rest = 1.0  # the first step's length where <g, A g> <= 0, which gives x = g
    for _ in range(steps):
        bent = product(along)
        curvature = _dots(along, bent)
        live = live & ~(curvature.real <= 0)
        length = xp.where(live, square / xp.where(live, curvature, 1), at_rest)
        at_rest = 0.0
        solution = solution + length[:, None] * along
        residual = residual - length[:, None] * bent
        before, square = square, _dots(residual, residual)
        live = live & ~(square.real <= enough)
        turn = xp.where(live, square / xp.where(live, before, 1), 0.0)
        along = residual + turn[:, None] * along
    return solution


def _dots(a: Array, b: Array) -> Array:
    """The per-task <a, b>, ``(T,)``, without a conjugate."""
    return (a * b).sum(axis=1)
