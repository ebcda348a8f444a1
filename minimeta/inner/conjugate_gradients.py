"""Conjugate gradients (Hestenes and Stiefel 1952), task by task."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays.backend import Array, array_module


def conjugate_gradients(
    product: Callable[[Array], Array], g: Array, steps: int, tolerance: float = 0.0
) -> Array:
    """A^{-1} g of each task, ``(T, D)``, by ``steps`` steps from 0. ``product(v)`` is A v.

    A is symmetric and should be positive definite. With r_0 = p_0 = g and x_0 = 0,
    one step is

        a = <r, r> / <p, A p>,    x' = x + a p,    r' = r - a A p,
        b = <r', r'> / <r, r>,    p' = r' + b p.

    A task rests once |r| <= ``tolerance`` |g|. A direction with <p, A p> <= 0 ends its
    solve too: the steps before it stand, and where it is the first, x = g.

    A task at rest takes steps of length zero, so the host never waits for a device
    to say which tasks rest. Both ways to rest are comparisons that a NaN fails: such
    a task goes on, and its result shows the NaN. Every sum is over the row of one
    task, so no task sees another. Products take no conjugate, so the complex step
    passes through.
    """
    xp = array_module(g)
    solution, residual, along = xp.zeros_like(g), g, g
    square = _dots(g, g)
    enough = tolerance**2 * square.real
    live = ~(square.real <= enough)
    at_rest = 1.0  # the length of the first step where A bends down along g: then x = g
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
    """<a, b> task by task, ``(T,)``, without a conjugate."""
    return (a * b).sum(axis=1)
