"""The four passes of BatchNorm and ReLU, computed together.

A max pooling may stand between them. Both select: y = R z, where z is what
BatchNorm gives, and R = M with M the mask of z > 0, or R = M P with P the
largest of each 2x2 window. The passes are those of layers/batch_norm.py, in the
same symbols, with dz = R^T dy and dz_dot = R^T dy_dot in the place of their dy
and dy_dot, and y = R z and y_dot = R z_dot as results. u = x - mu and u_dot are
nowhere stored: each is computed from x where it is needed, in the same pass
over memory.

``x: (T, N, height, width, C)`` or ``(T, P, C)``. ``gamma`` and ``beta`` are
``(T or 1, C)``. mu, r, their dots and the gradients are ``(T, C)``. R is stored
as ``chosen``, integers of the shape of y: 1 where M keeps a number and 0 where
it clears it; with pooling, 0 where M clears it and otherwise the number of the
selected pixel, 1 + i + 2 j for the pixel i below and j to the right of the
window's first.

A function ``..._of_task`` takes one task, images ``(N, height, width, C)``, so
that a convolution can be computed in the same call (host_convnet.py). Pixels
are taken several at a time, as ``rows``: ``(P / R, R C)`` for R = ``together``.
Numbers of a channel that are needed together are rows of one matrix: of
separate arrays compiled code would have to ask too often whether they overlap.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import ShapeError
from .compiled import compiles, helper
from .host_rows import contiguous, fold, of_task, spread
from .rows import pixels_together
from .windows import pooled_shape


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
    shape = pooled_shape(x.shape) if pooled else x.shape
    y, chosen = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    made = mu, r, _images(y), _images(chosen)
    _forward(x.dtype, pooled, pixels_together(x.shape), gamma, beta, eps, _images(x), *made)
    return y, Cache(x, mu, r, chosen)


def backward(
    gamma: np.ndarray, cache: Cache, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dgamma and dbeta."""
    x, mu, r, chosen = cache
    _expect(cache, {"scale": gamma}, dy=dy)
    dx, (dgamma, dbeta) = np.empty(x.shape, x.dtype), np.empty((2, *r.shape), x.dtype)
    given = pixels_together(x.shape), gamma, _images(x), mu, r, _images(chosen)
    _backward(x.dtype, *given, _images(contiguous(dy)), _images(dx), dgamma, dbeta)
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
    x_dot, y_dot = contiguous(x_dot), np.empty(chosen.shape, x.dtype)
    mu_dot, r_dot = np.empty((2, *r.shape), x.dtype)
    moving = gamma, gamma_dot, beta_dot, _images(x), mu, r, _images(chosen), _images(x_dot)
    _forward_tangent(x.dtype, pixels_together(x.shape), *moving, mu_dot, r_dot, _images(y_dot))
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
    dx_dot, (dgamma_dot, dbeta_dot) = np.empty(x.shape, x.dtype), np.empty((2, *r.shape), x.dtype)
    given = gamma, gamma_dot, _images(x), mu, r, _images(chosen), _images(x_dot), mu_dot, r_dot
    pulled = (_images(contiguous(each)) for each in (dy, dy_dot))
    made = _images(dx_dot), dgamma_dot, dbeta_dot
    _backward_tangent(x.dtype, pixels_together(x.shape), *given, *pulled, *made)
    return dx_dot, dgamma_dot, dbeta_dot


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


def _images(a: np.ndarray) -> np.ndarray:
    """A contiguous array as images, of one pixel where it is ``(T, P, C)``."""
    return a if a.ndim == 5 else a.reshape(a.shape[0], -1, 1, 1, a.shape[-1])


@compiles(
    "b1", "intp", "in t[:, :]", "in t[:, :]", "r", "in t[:, :, :, :, ::1]", "t[:, ::1]",
    "t[:, ::1]", "t[:, :, :, :, ::1]", "u1[:, :, :, :, ::1]",
)  # fmt: skip
def _forward(pooled, together, gamma, beta, eps, x, mu, r, y, chosen):
    for t in range(x.shape[0]):
        channels = of_task(gamma, t), of_task(beta, t)
        forward_of_task(pooled, together, *channels, eps, x[t], mu[t], r[t], y[t], chosen[t])


@compiles(
    "intp", "in t[:, :]", "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in u1[:, :, :, :, ::1]", "in t[:, :, :, :, ::1]", "t[:, :, :, :, ::1]", "t[:, ::1]",
    "t[:, ::1]",
)  # fmt: skip
def _backward(together, gamma, x, mu, r, chosen, dy, dx, dgamma, dbeta):
    for t in range(x.shape[0]):
        select_transpose(chosen[t], dy[t], dx[t])
        given = of_task(gamma, t), x[t], mu[t], r[t]
        backward_of_task(together, *given, dx[t], dgamma[t], dbeta[t])


@compiles(
    "intp", "in t[:, :]", "in t[:, :]", "in t[:, :]", "in t[:, :, :, :, ::1]", "in t[:, ::1]",
    "in t[:, ::1]", "in u1[:, :, :, :, ::1]", "in t[:, :, :, :, ::1]", "t[:, ::1]", "t[:, ::1]",
    "t[:, :, :, :, ::1]",
)  # fmt: skip
def _forward_tangent(
    together, gamma, gamma_dot, beta_dot, x, mu, r, chosen, x_dot, mu_dot, r_dot, y_dot
):
    for t in range(x.shape[0]):
        channels = of_task(gamma, t), of_task(gamma_dot, t), of_task(beta_dot, t)
        given = x[t], mu[t], r[t], chosen[t], x_dot[t]
        forward_tangent_of_task(together, *channels, *given, mu_dot[t], r_dot[t], y_dot[t])


@compiles(
    "intp", "in t[:, :]", "in t[:, :]", "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in u1[:, :, :, :, ::1]", "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in t[:, :, :, :, ::1]", "in t[:, :, :, :, ::1]", "t[:, :, :, :, ::1]", "t[:, ::1]",
    "t[:, ::1]",
)  # fmt: skip
def _backward_tangent(
    together, gamma, gamma_dot, x, mu, r, chosen, x_dot, mu_dot, r_dot, dy, dy_dot,
    dx_dot, dgamma_dot, dbeta_dot,
):  # fmt: skip
    dx = np.empty(x.shape[1:], x.dtype)
    for t in range(x.shape[0]):
        select_transpose(chosen[t], dy[t], dx)
        select_transpose(chosen[t], dy_dot[t], dx_dot[t])
        given = of_task(gamma, t), of_task(gamma_dot, t), x[t], mu[t], r[t]
        moving = x_dot[t], mu_dot[t], r_dot[t]
        made = dx, dx_dot[t], dgamma_dot[t], dbeta_dot[t]
        backward_tangent_of_task(together, *given, *moving, *made)


@helper
def forward_of_task(pooled, together, gamma, beta, eps, x, mu, r, y, chosen):
    """Write mu, r, y and chosen."""
    rows, channels = _rows(x, together), mu.shape[0]
    count, width = rows.shape[0] * together, rows.shape[1]
    _moments(rows, together, mu, r)
    factors, a, m, b = np.empty((3, width), x.dtype), 0, 1, 2
    for c in range(channels):
        r[c] = 1 / np.sqrt(r[c] / count + eps)
        factors[a, c], factors[m, c], factors[b, c] = gamma[c] * r[c], mu[c], beta[c]
    if pooled:
        _select_largest(x, factors, y, chosen)
        return
    spread(factors, channels)
    into, kept = _rows(y, together), _rows(chosen, together)
    for p in range(rows.shape[0]):
        for c in range(width):
            z = factors[a, c] * (rows[p, c] - factors[m, c]) + factors[b, c]
            positive = z.real > 0
            kept[p, c] = positive
            into[p, c] = z if positive else z * 0


@helper
def backward_of_task(together, gamma, x, mu, r, dz, dgamma, dbeta):
    """Write dgamma and dbeta, and dx in the place of dz."""
    rows, pulled, channels = _rows(x, together), _rows(dz, together), mu.shape[0]
    lines, width = rows.shape
    sums, sigma, total = np.zeros((4, width), x.dtype), 0, 1
    factors, a, m, of_u, shift = np.empty((4, width), x.dtype), 0, 1, 2, 3
    factors[m, :channels] = mu
    spread(factors, channels)
    for first in range(0, lines, 64):
        for p in range(first, min(first + 64, lines)):
            for c in range(width):
                v = pulled[p, c]
                sums[2, c] += v * (rows[p, c] - factors[m, c])
                sums[3, c] += v
        _add_part(sums)
    fold(sums, channels)
    count = lines * together
    for c in range(channels):
        s = r[c]
        factors[a, c] = gamma[c] * s
        factors[of_u, c] = -factors[a, c] * (s * s * sums[sigma, c] / count)
        factors[shift, c] = -factors[a, c] * sums[total, c] / count
        dgamma[c] = s * sums[sigma, c]
        dbeta[c] = sums[total, c]
    spread(factors, channels)
    for p in range(lines):
        for c in range(width):
            u = rows[p, c] - factors[m, c]
            pulled[p, c] = factors[a, c] * pulled[p, c] + factors[of_u, c] * u + factors[shift, c]


@helper
def forward_tangent_of_task(
    together, gamma, gamma_dot, beta_dot, x, mu, r, chosen, x_dot, mu_dot, r_dot, y_dot
):
    """Write mu_dot, r_dot and y_dot."""
    rows, moving, channels = _rows(x, together), _rows(x_dot, together), mu.shape[0]
    lines, width = rows.shape
    count = lines * together
    sums = np.zeros((2, width), x.dtype)
    for first in range(0, lines, 64):
        for p in range(first, min(first + 64, lines)):
            for c in range(width):
                sums[1, c] += moving[p, c]
        _add_part(sums)
    fold(sums, channels)
    factors, a, a_dot, m, m_dot, shift = np.empty((5, width), x.dtype), 0, 1, 2, 3, 4
    for c in range(channels):
        mu_dot[c] = sums[0, c] / count
        factors[m, c], factors[m_dot, c] = mu[c], mu_dot[c]
    spread(factors, channels)
    sums[:] = 0
    for first in range(0, lines, 64):
        for p in range(first, min(first + 64, lines)):
            for c in range(width):
                u, u_dot = rows[p, c] - factors[m, c], moving[p, c] - factors[m_dot, c]
                sums[1, c] += u * u_dot
        _add_part(sums)
    fold(sums, channels)
    for c in range(channels):
        s = r[c]
        r_dot[c] = -(s * s * s) * sums[0, c] / count
        factors[a, c], factors[shift, c] = gamma[c] * s, beta_dot[c]
        factors[a_dot, c] = gamma_dot[c] * s + gamma[c] * r_dot[c]
    spread(factors, channels)
    pooled = chosen.shape != x.shape
    z_dot = np.empty(x.shape, x.dtype) if pooled else y_dot
    into = _rows(z_dot, together)
    for p in range(lines):
        for c in range(width):
            u, u_dot = rows[p, c] - factors[m, c], moving[p, c] - factors[m_dot, c]
            into[p, c] = factors[a, c] * u_dot + factors[a_dot, c] * u + factors[shift, c]
    if pooled:
        _select(chosen, z_dot, y_dot)
        return
    kept = _rows(chosen, together)
    for p in range(lines):
        for c in range(width):
            into[p, c] = into[p, c] * kept[p, c]


@helper
def backward_tangent_of_task(
    together, gamma, gamma_dot, x, mu, r, x_dot, mu_dot, r_dot, dz, dz_dot, dgamma_dot, dbeta_dot
):
    """Write dgamma_dot and dbeta_dot, and dx and dx_dot in the places of dz and
    dz_dot."""
    rows, moving, channels = _rows(x, together), _rows(x_dot, together), mu.shape[0]
    pulled, pulled_dot = _rows(dz, together), _rows(dz_dot, together)
    lines, width = rows.shape
    count = lines * together
    factors = np.empty((8, width), x.dtype)
    a, a_dot, m, m_dot, of_u, of_u_dot, shift, shift_dot = 0, 1, 2, 3, 4, 5, 6, 7
    factors[m, :channels], factors[m_dot, :channels] = mu, mu_dot
    spread(factors, channels)
    sums, sigma, total, sigma_dot, total_dot = np.zeros((8, width), x.dtype), 0, 1, 2, 3
    for first in range(0, lines, 64):
        for p in range(first, min(first + 64, lines)):
            for c in range(width):
                v, v_dot = pulled[p, c], pulled_dot[p, c]
                u, u_dot = rows[p, c] - factors[m, c], moving[p, c] - factors[m_dot, c]
                sums[4, c] += v * u
                sums[5, c] += v
                sums[6, c] += v_dot * u + v * u_dot
                sums[7, c] += v_dot
        _add_part(sums)
    fold(sums, channels)
    for c in range(channels):
        s, s_dot = r[c], r_dot[c]
        A, A_dot = gamma[c] * s, gamma_dot[c] * s + gamma[c] * s_dot
        k = s * s * sums[sigma, c] / count
        k_dot = (2 * s * s_dot * sums[sigma, c] + s * s * sums[sigma_dot, c]) / count
        factors[a, c], factors[a_dot, c] = A, A_dot
        factors[of_u, c], factors[of_u_dot, c] = -A * k, -A_dot * k - A * k_dot
        factors[shift, c] = -A * sums[total, c] / count
        factors[shift_dot, c] = -(A_dot * sums[total, c] + A * sums[total_dot, c]) / count
        dgamma_dot[c] = s_dot * sums[sigma, c] + s * sums[sigma_dot, c]
        dbeta_dot[c] = sums[total_dot, c]
    spread(factors, channels)
    for p in range(lines):
        for c in range(width):
            v, v_dot = pulled[p, c], pulled_dot[p, c]
            u, u_dot = rows[p, c] - factors[m, c], moving[p, c] - factors[m_dot, c]
            along_dot = factors[of_u, c] * u_dot + factors[of_u_dot, c] * u + factors[shift_dot, c]
            pulled[p, c] = factors[a, c] * v + factors[of_u, c] * u + factors[shift, c]
            pulled_dot[p, c] = factors[a, c] * v_dot + factors[a_dot, c] * v + along_dot


@helper
def _rows(images, together):
    """The pixels of a task as rows of several."""
    width = together * images.shape[3]
    return images.reshape(images.size // width, width)


@helper
def _add_part(sums):
    """Add the second half of the rows to the first, and clear it."""
    half = sums.shape[0] // 2
    for k in range(half):
        for c in range(sums.shape[1]):
            sums[k, c] += sums[half + k, c]
            sums[half + k, c] = 0


@helper
def _moments(rows, together, mean, square):
    """The mean of each channel, and the sum of (x - mean)^2.

    Blocks of 16 rows have their own, which are merged (Chan, Golub and LeVeque
    1979): one pass over memory, without cancellation. So are those of the
    pixels side by side.
    """
    lines, width = rows.shape
    channels, real = mean.shape[0], mean.real.dtype.type
    found, m, s, part = np.zeros((3, width), rows.dtype), 0, 1, 2
    for first in range(0, lines, 16):
        stop = min(first + 16, lines)
        for p in range(first, stop):
            for c in range(width):
                found[part, c] += rows[p, c]
        share = real(1 / (stop - first))
        for c in range(width):
            found[part, c] *= share
        for p in range(first, stop):
            for c in range(width):
                v = rows[p, c] - found[part, c]
                found[s, c] += v * v
        of_mean, of_square = real((stop - first) / stop), real((stop - first) * first / stop)
        for c in range(width):
            delta = found[part, c] - found[m, c]
            found[m, c] += delta * of_mean
            found[s, c] += delta * delta * of_square
            found[part, c] = 0
    for c in range(channels):
        mean[c] = 0
        square[c] = 0
    for k in range(together):
        for c in range(channels):
            mean[c] += found[m, k * channels + c]
            square[c] += found[s, k * channels + c]
    for c in range(channels):
        mean[c] = mean[c] / together
    for k in range(together):
        for c in range(channels):
            delta = found[m, k * channels + c] - mean[c]
            square[c] += delta * delta * lines


@helper
def _select_largest(x, factors, y, chosen):
    """y = M P z and chosen, for z = a (x - m) + b and a, m, b the ``factors``.

    A window over the edge sees its last pixels twice. The first of equal ones
    is selected.
    """
    none, one, two = np.uint8(0), np.uint8(1), np.uint8(2)
    for n in range(y.shape[0]):
        for h in range(y.shape[1]):
            top, below = 2 * h, min(2 * h + 1, x.shape[1] - 1)
            for w in range(y.shape[2]):
                left, right = 2 * w, min(2 * w + 1, x.shape[2] - 1)
                for c in range(y.shape[3]):
                    a, m, b = factors[0, c], factors[1, c], factors[2, c]
                    best, which = a * (x[n, top, left, c] - m) + b, one
                    z = a * (x[n, below, left, c] - m) + b
                    larger = z.real > best.real
                    best, which = (z if larger or z != z else best), (two if larger else which)
                    z = a * (x[n, top, right, c] - m) + b
                    larger = z.real > best.real
                    best = z if larger or z != z else best
                    which = np.uint8(3) if larger else which
                    z = a * (x[n, below, right, c] - m) + b
                    larger = z.real > best.real
                    best = z if larger or z != z else best
                    which = np.uint8(4) if larger else which
                    positive = best.real > 0
                    y[n, h, w, c] = best if positive else best * 0
                    chosen[n, h, w, c] = which if positive else none


@helper
def _select(chosen, z, y):
    """y = R z, for windows."""
    for n in range(y.shape[0]):
        for h in range(y.shape[1]):
            top, below = 2 * h, min(2 * h + 1, z.shape[1] - 1)
            for w in range(y.shape[2]):
                left, right = 2 * w, min(2 * w + 1, z.shape[2] - 1)
                for c in range(y.shape[3]):
                    which = chosen[n, h, w, c]
                    upper = z[n, top, left, c] * (which == 1) + z[n, top, right, c] * (which == 3)
                    lower = z[n, below, left, c] * (which == 2)
                    y[n, h, w, c] = upper + (lower + z[n, below, right, c] * (which == 4))


@helper
def select_transpose(chosen, dy, dz):
    """dz = R^T dy."""
    if chosen.shape == dz.shape:
        kept, given, into = chosen.reshape(-1), dy.reshape(-1), dz.reshape(-1)
        for i in range(into.shape[0]):
            into[i] = given[i] * kept[i]
        return
    for n in range(dz.shape[0]):
        for i in range(dz.shape[1]):
            h = i // 2
            for j in range(dz.shape[2]):
                w, number = j // 2, np.uint8(1 + i % 2 + 2 * (j % 2))
                for c in range(dz.shape[3]):
                    dz[n, i, j, c] = dy[n, h, w, c] * (chosen[n, h, w, c] == number)
