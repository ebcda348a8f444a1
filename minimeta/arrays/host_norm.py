"""The four passes of BatchNorm and ReLU, computed together.

A max pooling may stand between them. Both select: y = R z, where z is what
BatchNorm gives, and R = M with M the mask of z > 0, or R = M P with P the
largest of each 2x2 window. The passes are those of layers/batch_norm.py, in the
same symbols, with dz = R^T dy and dz_dot = R^T dy_dot in the place of their dy
and dy_dot, and y = R z and y_dot = R z_dot as results. u = x - mu and u_dot are
nowhere stored, and z and dz are stored in the tangents alone: each is computed
from x, dy and R where it is needed, in the same pass over memory.

``x: (T, N, height, width, C)`` or ``(T, P, C)``. ``gamma`` and ``beta`` are
``(T or 1, C)``. mu, r, their dots and the gradients are ``(T, C)``. R is stored
as ``chosen``, integers of the shape of y: 1 where M keeps a number and 0 where
it clears it; with pooling, 0 where M clears it and otherwise the number of the
selected pixel, 1 + i + 2 j for the pixel i below and j to the right of the
window's first.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from ..errors import ShapeError
from .compiled import OPTIONS, compiles
from .host_kernels import contiguous, fill

_helper = numba.njit(**OPTIONS)


class Cache(NamedTuple):
    """What the other passes need of the forward pass."""

    x: np.ndarray
    mu: np.ndarray
    r: np.ndarray
    chosen: np.ndarray


class CacheDot(NamedTuple):
    """What the last pass needs of the forward tangent."""

    x_dot: np.ndarray
    mu_dot: np.ndarray
    r_dot: np.ndarray


def forward(
    gamma: np.ndarray, beta: np.ndarray, x: np.ndarray, eps: float, pooled: bool
) -> tuple[np.ndarray, Cache]:
    """y and the cache."""
    _expect_channels({"scale": gamma, "shift": beta}, x.shape[0], x.shape[-1])
    x = contiguous(x)
    mu, r = np.empty((2, x.shape[0], x.shape[-1]), x.dtype)
    shape = _pooled_shape(x.shape) if pooled else x.shape
    y, chosen = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    if pooled:
        _forward_pooled(x.dtype, gamma, beta, x, eps, mu, r, y, chosen)
    else:
        _forward(x.dtype, gamma, beta, _rows(x), eps, mu, r, _rows(y), _rows(chosen))
    return y, Cache(x, mu, r, chosen)


def backward(
    gamma: np.ndarray, cache: Cache, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dgamma and dbeta."""
    x, mu, r, chosen = cache
    _expect(cache, {"scale": gamma}, dy=dy)
    dx, (dgamma, dbeta) = np.empty(x.shape, x.dtype), np.empty((2, *r.shape), x.dtype)
    if chosen.shape == x.shape:
        arrays = _rows(x), mu, r, _rows(chosen), _rows(contiguous(dy)), _rows(dx)
        _backward(x.dtype, gamma, *arrays, dgamma, dbeta)
    else:
        _backward_pooled(x.dtype, gamma, x, mu, r, chosen, contiguous(dy), dx, dgamma, dbeta)
    return dx, dgamma, dbeta


def forward_tangent(
    gamma: np.ndarray,
    gamma_dot: np.ndarray,
    beta_dot: np.ndarray,
    cache: Cache,
    x_dot: np.ndarray,
) -> tuple[np.ndarray, CacheDot]:
    """y_dot and the dot of the cache."""
    x, mu, r, chosen = cache
    _expect(
        cache,
        {"scale": gamma, "scale's direction": gamma_dot, "shift's direction": beta_dot},
        x_dot=x_dot,
    )
    x_dot, z_dot = contiguous(x_dot), np.empty(x.shape, x.dtype)
    mu_dot, r_dot = np.empty((2, *r.shape), x.dtype)
    moving = gamma, gamma_dot, beta_dot, _rows(x), mu, r, _rows(x_dot)
    _forward_tangent(x.dtype, *moving, mu_dot, r_dot, _rows(z_dot))
    y_dot = z_dot if chosen.shape == x.shape else np.empty(chosen.shape, x.dtype)
    if chosen.shape == x.shape:
        _keep(x.dtype, chosen.reshape(-1), z_dot.reshape(-1))
    else:
        _select(x.dtype, chosen, z_dot, y_dot)
    return y_dot, CacheDot(x_dot, mu_dot, r_dot)


def backward_tangent(
    gamma: np.ndarray,
    gamma_dot: np.ndarray,
    cache: Cache,
    cache_dot: CacheDot,
    dy: np.ndarray,
    dy_dot: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx_dot, dgamma_dot and dbeta_dot."""
    x, mu, r, chosen = cache
    x_dot, mu_dot, r_dot = cache_dot
    _expect(
        cache,
        {"scale": gamma, "scale's direction": gamma_dot, "mu_dot": mu_dot, "r_dot": r_dot},
        x_dot=x_dot,
        dy=dy,
        dy_dot=dy_dot,
    )
    dz, dz_dot = (_pulled(chosen, each, x) for each in (dy, dy_dot))
    dx_dot, (dgamma_dot, dbeta_dot) = np.empty(x.shape, x.dtype), np.empty((2, *r.shape), x.dtype)
    given = _rows(x), mu, r, _rows(x_dot), mu_dot, r_dot, _rows(dz), _rows(dz_dot)
    _backward_tangent(x.dtype, gamma, gamma_dot, *given, _rows(dx_dot), dgamma_dot, dbeta_dot)
    return dx_dot, dgamma_dot, dbeta_dot


def _pulled(chosen: np.ndarray, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """R^T dy, of the shape of x."""
    if chosen.shape == x.shape:
        dz = np.array(dy, x.dtype, order="C")
        _keep(x.dtype, chosen.reshape(-1), dz.reshape(-1))
        return dz
    dz = np.empty(x.shape, x.dtype)
    _select_transpose(x.dtype, chosen, contiguous(dy), dz)
    return dz


def _expect(cache: Cache, channels: dict[str, np.ndarray], **others: np.ndarray) -> None:
    """Check that arrays have the shapes of a cache, since compiled functions do
    not look at shapes.

    ``channels`` are ``(T or 1, C)``. dy and dy_dot have the shape of y, and
    x_dot that of x.
    """
    x, mu, r, chosen = cache
    if mu.shape != (len(x), x.shape[-1]) or r.shape != mu.shape:
        raise ShapeError(f"a cache of x {x.shape} has mu {mu.shape} and r {r.shape}")
    _expect_channels(channels, *mu.shape)
    for name, v in others.items():
        shape = x.shape if name == "x_dot" else chosen.shape
        if v.shape != shape:
            raise ShapeError(f"{name} must have shape {shape}, got {v.shape}")


def _expect_channels(named: dict[str, np.ndarray], tasks: int, channels: int) -> None:
    for name, v in named.items():
        if v.shape != (tasks, channels) and v.shape != (1, channels):
            raise ShapeError(f"{name} must have shape (1 or {tasks}, {channels}), got {v.shape}")


def _pooled_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    tasks, examples, height, width, channels = shape
    return tasks, examples, -(-height // 2), -(-width // 2), channels


def _rows(a: np.ndarray) -> np.ndarray:
    """A contiguous ``(T, ..., C)`` as rows, ``(T, P, C)``."""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])


@_helper
def _moments(rows, mean, square, part):
    """The mean of each channel, and the sum of (row - mean)^2.

    Blocks of 64 rows have their own, which are merged (Chan, Golub and LeVeque
    1979): one pass over memory, without cancellation.
    """
    count, channels = rows.shape
    for c in range(channels):
        mean[c] = 0
        square[c] = 0
    for first in range(0, count, 64):
        stop = min(first + 64, count)
        many = stop - first
        for c in range(channels):
            part[c] = 0
        for p in range(first, stop):
            row = rows[p]
            for c in range(channels):
                part[c] += row[c]
        for c in range(channels):
            part[c] = part[c] / many
        for p in range(first, stop):
            row = rows[p]
            for c in range(channels):
                v = row[c] - part[c]
                square[c] += v * v
        for c in range(channels):
            delta = part[c] - mean[c]
            mean[c] += delta * many / stop
            square[c] += delta * delta * first * many / stop


@_helper
def _scales(square, count, eps, gamma, r, a):
    """r and a = gamma r."""
    for c in range(r.shape[0]):
        r[c] = 1 / np.sqrt(square[c] / count + eps)
        a[c] = gamma[c] * r[c]


@compiles(
    "in t[:, :]", "in t[:, :]", "in t[:, :, ::1]", "r", "t[:, ::1]", "t[:, ::1]",
    "t[:, :, ::1]", "u1[:, :, ::1]",
)  # fmt: skip
def _forward(gamma, beta, x, eps, mu, r, y, chosen):
    tasks, count, channels = x.shape
    g, b, a, square, part = np.empty((5, channels), x.dtype)
    for t in range(tasks):
        fill(gamma, t, g)
        fill(beta, t, b)
        m = mu[t]
        _moments(x[t], m, square, part)
        _scales(square, count, eps, g, r[t], a)
        for p in range(count):
            row, into, kept = x[t, p], y[t, p], chosen[t, p]
            for c in range(channels):
                z = a[c] * (row[c] - m[c]) + b[c]
                positive = z.real > 0
                kept[c] = positive
                into[c] = z if positive else z * 0


@compiles(
    "in t[:, :]", "in t[:, :]", "in t[:, :, :, :, ::1]", "r", "t[:, ::1]", "t[:, ::1]",
    "t[:, :, :, :, ::1]", "u1[:, :, :, :, ::1]",
)  # fmt: skip
def _forward_pooled(gamma, beta, x, eps, mu, r, y, chosen):
    tasks, examples, height, width, channels = x.shape
    count, none = examples * height * width, np.uint8(0)
    g, b, a, square, part = np.empty((5, channels), x.dtype)
    for t in range(tasks):
        fill(gamma, t, g)
        fill(beta, t, b)
        m = mu[t]
        _moments(x[t].reshape(count, channels), m, square, part)
        _scales(square, count, eps, g, r[t], a)
        for n in range(examples):
            for h in range(y.shape[2]):
                for w in range(y.shape[3]):
                    best, which, row = y[t, n, h, w], chosen[t, n, h, w], x[t, n, 2 * h, 2 * w]
                    for c in range(channels):
                        best[c] = a[c] * (row[c] - m[c]) + b[c]
                        which[c] = 1
                    for k in range(1, 4):
                        down, across = 2 * h + k % 2, 2 * w + k // 2
                        if down < height and across < width:
                            row, number = x[t, n, down, across], np.uint8(k + 1)
                            for c in range(channels):
                                z, known = a[c] * (row[c] - m[c]) + b[c], best[c]
                                larger = z.real > known.real
                                best[c] = z if larger or z != z else known
                                which[c] = number if larger else which[c]
                    for c in range(channels):
                        z = best[c]
                        positive = z.real > 0
                        best[c] = z if positive else z * 0
                        which[c] = which[c] if positive else none


@_helper
def _factors(g, r, sigma, total, count, a, of_u, shift, dgamma, dbeta):
    """a, -a c and -a mean(dz), the factors of dx; and the gradients."""
    for c in range(g.shape[0]):
        a[c] = g[c] * r[c]
        of_u[c] = -a[c] * (r[c] * r[c] * sigma[c] / count)
        shift[c] = -a[c] * total[c] / count
        dgamma[c] = r[c] * sigma[c]
        dbeta[c] = total[c]


@compiles(
    "in t[:, :]", "in t[:, :, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in u1[:, :, ::1]",
    "in t[:, :, ::1]", "t[:, :, ::1]", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _backward(gamma, x, mu, r, chosen, dy, dx, dgamma, dbeta):
    tasks, count, channels = x.shape
    g, a, of_u, shift, sigma, total, part, part_dot = np.empty((8, channels), x.dtype)
    for t in range(tasks):
        fill(gamma, t, g)
        m = mu[t]
        sigma[:] = 0
        total[:] = 0
        for first in range(0, count, 64):
            part[:] = 0
            part_dot[:] = 0
            for p in range(first, min(first + 64, count)):
                row, kept, given = x[t, p], chosen[t, p], dy[t, p]
                for c in range(channels):
                    dz = given[c] * kept[c]
                    part[c] += dz
                    part_dot[c] += dz * (row[c] - m[c])
            for c in range(channels):
                total[c] += part[c]
                sigma[c] += part_dot[c]
        _factors(g, r[t], sigma, total, count, a, of_u, shift, dgamma[t], dbeta[t])
        for p in range(count):
            row, kept, given, into = x[t, p], chosen[t, p], dy[t, p], dx[t, p]
            for c in range(channels):
                dz = given[c] * kept[c]
                into[c] = a[c] * dz + of_u[c] * (row[c] - m[c]) + shift[c]


@compiles(
    "in t[:, :]", "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in u1[:, :, :, :, ::1]", "in t[:, :, :, :, ::1]", "t[:, :, :, :, ::1]", "t[:, ::1]",
    "t[:, ::1]",
)  # fmt: skip
def _backward_pooled(gamma, x, mu, r, chosen, dy, dx, dgamma, dbeta):
    tasks, examples, height, width, channels = x.shape
    count = examples * height * width
    g, a, of_u, shift, sigma, total, part, part_dot = np.empty((8, channels), x.dtype)
    for t in range(tasks):
        fill(gamma, t, g)
        m = mu[t]
        sigma[:] = 0
        total[:] = 0
        for n in range(examples):
            for h in range(dy.shape[2]):
                part[:] = 0
                part_dot[:] = 0
                for w in range(dy.shape[3]):
                    given, which = dy[t, n, h, w], chosen[t, n, h, w]
                    for k in range(4):
                        down, across = 2 * h + k % 2, 2 * w + k // 2
                        if down < height and across < width:
                            row, number = x[t, n, down, across], np.uint8(k + 1)
                            for c in range(channels):
                                dz = given[c] * (which[c] == number)
                                part[c] += dz
                                part_dot[c] += dz * (row[c] - m[c])
                for c in range(channels):
                    total[c] += part[c]
                    sigma[c] += part_dot[c]
        _factors(g, r[t], sigma, total, count, a, of_u, shift, dgamma[t], dbeta[t])
        for n in range(examples):
            for h in range(dy.shape[2]):
                for w in range(dy.shape[3]):
                    given, which = dy[t, n, h, w], chosen[t, n, h, w]
                    for k in range(4):
                        down, across = 2 * h + k % 2, 2 * w + k // 2
                        if down < height and across < width:
                            row, into = x[t, n, down, across], dx[t, n, down, across]
                            number = np.uint8(k + 1)
                            for c in range(channels):
                                dz = given[c] * (which[c] == number)
                                into[c] = a[c] * dz + of_u[c] * (row[c] - m[c]) + shift[c]


@compiles(
    "in t[:, :]", "in t[:, :]", "in t[:, :]", "in t[:, :, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in t[:, :, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, :, ::1]",
)  # fmt: skip
def _forward_tangent(gamma, gamma_dot, beta_dot, x, mu, r, x_dot, mu_dot, r_dot, z_dot):
    tasks, count, channels = x.shape
    g, g_dot, b_dot, a, a_dot, dot, part = np.empty((7, channels), x.dtype)
    for t in range(tasks):
        fill(gamma, t, g)
        fill(gamma_dot, t, g_dot)
        fill(beta_dot, t, b_dot)
        m, m_dot = mu[t], mu_dot[t]
        m_dot[:] = 0
        dot[:] = 0
        for first in range(0, count, 64):
            part[:] = 0
            for p in range(first, min(first + 64, count)):
                moving = x_dot[t, p]
                for c in range(channels):
                    part[c] += moving[c]
            for c in range(channels):
                m_dot[c] += part[c]
        for c in range(channels):
            m_dot[c] = m_dot[c] / count
        for first in range(0, count, 64):
            part[:] = 0
            for p in range(first, min(first + 64, count)):
                row, moving = x[t, p], x_dot[t, p]
                for c in range(channels):
                    part[c] += (row[c] - m[c]) * (moving[c] - m_dot[c])
            for c in range(channels):
                dot[c] += part[c]
        for c in range(channels):
            s = r[t, c]
            r_dot[t, c] = -(s * s * s) * dot[c] / count
            a[c] = g[c] * s
            a_dot[c] = g_dot[c] * s + g[c] * r_dot[t, c]
        for p in range(count):
            row, moving, into = x[t, p], x_dot[t, p], z_dot[t, p]
            for c in range(channels):
                u, u_dot = row[c] - m[c], moving[c] - m_dot[c]
                into[c] = a[c] * u_dot + a_dot[c] * u + b_dot[c]


@compiles(
    "in t[:, :]", "in t[:, :]", "in t[:, :, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in t[:, :, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, :, ::1]", "in t[:, :, ::1]",
    "t[:, :, ::1]", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _backward_tangent(
    gamma, gamma_dot, x, mu, r, x_dot, mu_dot, r_dot, dz, dz_dot, dx_dot, dgamma_dot, dbeta_dot
):
    tasks, count, channels = x.shape
    g, g_dot, a, a_dot, of_u, of_u_dot, shift = np.empty((7, channels), x.dtype)
    sigma, total, sigma_dot, total_dot = np.empty((4, channels), x.dtype)
    parts = np.empty((4, channels), x.dtype)
    one, two, three, four = parts
    for t in range(tasks):
        fill(gamma, t, g)
        fill(gamma_dot, t, g_dot)
        m, m_dot = mu[t], mu_dot[t]
        sigma[:] = 0
        total[:] = 0
        sigma_dot[:] = 0
        total_dot[:] = 0
        for first in range(0, count, 64):
            parts[:] = 0
            for p in range(first, min(first + 64, count)):
                row, moving, v, v_dot = x[t, p], x_dot[t, p], dz[t, p], dz_dot[t, p]
                for c in range(channels):
                    u = row[c] - m[c]
                    one[c] += v[c] * u
                    two[c] += v[c]
                    three[c] += v_dot[c] * u + v[c] * (moving[c] - m_dot[c])
                    four[c] += v_dot[c]
            for c in range(channels):
                sigma[c] += one[c]
                total[c] += two[c]
                sigma_dot[c] += three[c]
                total_dot[c] += four[c]
        for c in range(channels):
            s, s_dot = r[t, c], r_dot[t, c]
            a[c], a_dot[c] = g[c] * s, g_dot[c] * s + g[c] * s_dot
            k = s * s * sigma[c] / count
            k_dot = (2 * s * s_dot * sigma[c] + s * s * sigma_dot[c]) / count
            of_u_dot[c], of_u[c] = -a[c] * k, -a_dot[c] * k - a[c] * k_dot
            shift[c] = -(a_dot[c] * total[c] + a[c] * total_dot[c]) / count
            dgamma_dot[t, c] = s_dot * sigma[c] + s * sigma_dot[c]
            dbeta_dot[t, c] = total_dot[c]
        for p in range(count):
            row, moving, v, v_dot = x[t, p], x_dot[t, p], dz[t, p], dz_dot[t, p]
            into = dx_dot[t, p]
            for c in range(channels):
                u, u_dot = row[c] - m[c], moving[c] - m_dot[c]
                along = of_u_dot[c] * u_dot + of_u[c] * u + shift[c]
                into[c] = a[c] * v_dot[c] + a_dot[c] * v[c] + along


@compiles("in u1[::1]", "t[::1]")
def _keep(chosen, values):
    """Clear the values that M clears."""
    for i in range(values.shape[0]):
        values[i] = values[i] * chosen[i]


@compiles("in u1[:, :, :, :, ::1]", "in t[:, :, :, :, ::1]", "t[:, :, :, :, ::1]")
def _select(chosen, z, y):
    """y = M P z."""
    tasks, examples, height, width, channels = z.shape
    for t in range(tasks):
        for n in range(examples):
            for h in range(y.shape[2]):
                for w in range(y.shape[3]):
                    into, which = y[t, n, h, w], chosen[t, n, h, w]
                    for c in range(channels):
                        into[c] = 0
                    for k in range(4):
                        down, across = 2 * h + k % 2, 2 * w + k // 2
                        if down < height and across < width:
                            row, number = z[t, n, down, across], np.uint8(k + 1)
                            for c in range(channels):
                                into[c] += row[c] * (which[c] == number)


@compiles("in u1[:, :, :, :, ::1]", "in t[:, :, :, :, ::1]", "t[:, :, :, :, ::1]")
def _select_transpose(chosen, dy, dz):
    """dz = P^T M dy."""
    tasks, examples, height, width, channels = dz.shape
    for t in range(tasks):
        for n in range(examples):
            for h in range(dy.shape[2]):
                for w in range(dy.shape[3]):
                    given, which = dy[t, n, h, w], chosen[t, n, h, w]
                    for k in range(4):
                        down, across = 2 * h + k % 2, 2 * w + k // 2
                        if down < height and across < width:
                            into, number = dz[t, n, down, across], np.uint8(k + 1)
                            for c in range(channels):
                                into[c] = given[c] * (which[c] == number)
