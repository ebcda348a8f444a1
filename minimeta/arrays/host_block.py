"""A convolution with the BatchNorm and ReLU above it, task by task.

The functions are those of host_kernels.py and host_norm.py. One call takes a
task through all of them, so that its numbers are still in the core's cache, and
threads wait for each other at fewer calls. With v = (S x) W + 1 b^T, and R and
the norm of host_norm.py,

    y = R norm(v),  dv = the norm's dx for this dy,
    dW = (S x)^T dv,  db = 1^T dv,  dx = S^T (dv W^T).

The tangents are the product rule, and those of the norm:

    v_dot = (S x) W_dot + (S x_dot) W + 1 b_dot^T,  y_dot = R norm_dot(v_dot),
    dW_dot = (S x)^T dv_dot + (S x_dot)^T dv,  db_dot = 1^T dv_dot,
    dx_dot = S^T (dv_dot W^T + dv W_dot^T).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..errors import ShapeError
from .compiled import compiles, helper
from .host_blas import gemm_address
from .host_kernels import _convolve, _convolve_transpose, _correlate, _matrices, _sums, geometry
from .host_norm import (
    backward_of_task,
    backward_tangent_of_task,
    forward_of_task,
    forward_tangent_of_task,
    select_transpose,
)
from .host_rows import contiguous, of_task
from .rows import pixels_together
from .windows import pooled_shape

_convolved = helper(_convolve.function)
_correlated = helper(_correlate.function)
_transposed = helper(_convolve_transpose.function)
_summed = helper(_sums.function)


class Cache(NamedTuple):
    """x, and what the norm needs of its input v."""

    x: np.ndarray
    v: np.ndarray
    mu: np.ndarray
    r: np.ndarray
    chosen: np.ndarray


class CacheDot(NamedTuple):
    """x_dot, and what the norm needs of v_dot."""

    x_dot: np.ndarray
    v_dot: np.ndarray
    mu_dot: np.ndarray
    r_dot: np.ndarray


class Block(NamedTuple):
    """The numbers of a convolution and of its norm."""

    kernel: int
    stride: int
    eps: float
    pooled: bool


class Parameters(NamedTuple):
    """``W: (T or 1, kernel^2 C, outputs)``; the others are
    ``(T or 1, outputs)``."""

    W: np.ndarray
    b: np.ndarray
    gamma: np.ndarray
    beta: np.ndarray


def forward(phi: Parameters, x: np.ndarray, block: Block) -> tuple[np.ndarray, Cache]:
    """y and the cache, for ``x: (T, N, height, width, C)``."""
    x, place = contiguous(x), geometry(x.shape, block.kernel, block.stride)
    tasks, examples, outputs = *x.shape[:2], phi.W.shape[2]
    images = tasks, examples, place.high, place.wide, outputs
    _expect(x.shape, block, phi)
    v, (mu, r) = np.empty(images, x.dtype), np.empty((2, tasks, outputs), x.dtype)
    shape = pooled_shape(images) if block.pooled else images
    y, chosen = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    numbers = gemm_address(x.dtype), pixels_together(images), block.pooled, block.eps
    given = _lines(x), _matrices(phi.W), *phi[1:]
    _forward(x.dtype, *numbers, *given, v, mu, r, y, chosen, *place)
    return y, Cache(x, v, mu, r, chosen)


def backward(
    phi: Parameters, cache: Cache, dy: np.ndarray, block: Block, on_data: bool
) -> tuple[np.ndarray | None, Parameters]:
    """dx, or None with ``on_data``; and the gradients, of T tasks."""
    x, v, mu, r, chosen = cache
    _expect(x.shape, block, phi)
    _expect_like(chosen, dy=dy)
    dx, dphi = _gradients(phi, cache, on_data)
    numbers = gemm_address(x.dtype), pixels_together(v.shape), on_data
    given = _lines(x), _matrices(phi.W), phi.gamma, v, mu, r, chosen, contiguous(dy)
    place = geometry(x.shape, block.kernel, block.stride)
    _backward(x.dtype, *numbers, *given, _lines(dx), *dphi, *place)
    return None if on_data else dx, dphi


def forward_tangent(
    phi: Parameters,
    phi_dot: Parameters,
    cache: Cache,
    x_dot: np.ndarray,
    block: Block,
    on_data: bool,
) -> tuple[np.ndarray, CacheDot]:
    """y_dot and the dot of the cache. With ``on_data``, x_dot is zero."""
    x, v, mu, r, chosen = cache
    _expect(x.shape, block, phi, phi_dot)
    _expect_like(x, x_dot=x_dot)
    x_dot, v_dot, y_dot = (
        contiguous(x_dot),
        np.empty(v.shape, x.dtype),
        np.empty(chosen.shape, x.dtype),
    )
    mu_dot, r_dot = np.empty((2, *r.shape), x.dtype)
    numbers = gemm_address(x.dtype), pixels_together(v.shape), on_data
    given = _lines(x), _matrices(phi.W), phi.gamma, v, mu, r, chosen
    moving = _lines(x_dot), _matrices(phi_dot.W), *phi_dot[1:]
    place = geometry(x.shape, block.kernel, block.stride)
    _forward_tangent(x.dtype, *numbers, *given, *moving, v_dot, mu_dot, r_dot, y_dot, *place)
    return y_dot, CacheDot(x_dot, v_dot, mu_dot, r_dot)


def backward_tangent(
    phi: Parameters,
    phi_dot: Parameters,
    cache: Cache,
    cache_dot: CacheDot,
    dy: np.ndarray,
    dy_dot: np.ndarray,
    block: Block,
    on_data: bool,
) -> tuple[np.ndarray | None, Parameters]:
    """dx_dot, or None with ``on_data``; and the dots of the gradients."""
    x, v, mu, r, chosen = cache
    x_dot, v_dot, mu_dot, r_dot = cache_dot
    _expect(x.shape, block, phi, phi_dot)
    _expect_like(x, x_dot=x_dot)
    _expect_like(v, v_dot=v_dot)
    _expect_like(r, mu_dot=mu_dot, r_dot=r_dot)
    _expect_like(chosen, dy=dy, dy_dot=dy_dot)
    dx_dot, dphi_dot = _gradients(phi, cache, on_data)
    numbers = gemm_address(x.dtype), pixels_together(v.shape), on_data
    given = _lines(x), _matrices(phi.W), phi.gamma, v, mu, r, chosen, contiguous(dy)
    moving = _lines(x_dot), _matrices(phi_dot.W), phi_dot.gamma, v_dot, mu_dot, r_dot
    place = geometry(x.shape, block.kernel, block.stride)
    made = _lines(dx_dot), *dphi_dot
    _backward_tangent(x.dtype, *numbers, *given, *moving, contiguous(dy_dot), *made, *place)
    return None if on_data else dx_dot, dphi_dot


def _gradients(phi: Parameters, cache: Cache, on_data: bool) -> tuple[np.ndarray, Parameters]:
    """Arrays for dx, empty with ``on_data``, and for the gradients."""
    x, r = cache.x, cache.r
    dx = np.empty((0, 1, 1, 1, 1) if on_data else x.shape, x.dtype)
    dW = np.empty((x.shape[0], *phi.W.shape[1:]), x.dtype)
    return dx, Parameters(dW, *np.empty((3, *r.shape), x.dtype))


def _expect(shape: tuple[int, ...], block: Block, *given: Parameters) -> None:
    """Check parameters and directions against x of ``shape``, since compiled
    functions look at no shapes."""
    outputs = given[0].W.shape[-1]
    tasks, taps = shape[0], block.kernel**2 * shape[4]
    for W, *others in given:
        if W.shape not in ((1, taps, outputs), (tasks, taps, outputs)):
            raise ShapeError(
                f"weight must have shape (1 or {tasks}, {taps}, {outputs}), got {W.shape}"
            )
        for name, v in zip(("bias", "scale", "shift"), others, strict=True):
            if v.shape not in ((1, outputs), (tasks, outputs)):
                raise ShapeError(f"{name} must have shape (1 or {tasks}, {outputs}), got {v.shape}")


def _expect_like(a: np.ndarray, **others: np.ndarray) -> None:
    for name, other in others.items():
        if other.shape != a.shape:
            raise ShapeError(f"{name} must have shape {a.shape}, got {other.shape}")


def _lines(x: np.ndarray) -> np.ndarray:
    """Images with the pixels of a row side by side."""
    return x.reshape(*x.shape[:3], math.prod(x.shape[3:]))


@helper
def _one(a, t):
    """Row t of an array whose first axis is T or 1, as an array of one task."""
    return a[t : t + 1] if a.shape[0] > 1 else a[0:1]


@helper
def _pixels(images):
    """The images of a task as an array of one task, ``(1, P, C)``."""
    examples, height, width, channels = images.shape
    return images.reshape(1, examples * height * width, channels)


@compiles(
    "intp", "intp", "b1", "r", "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]", "in t[:, :]",
    "in t[:, :]", "t[:, :, :, :, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, :, :, :, ::1]",
    "u1[:, :, :, :, ::1]", "intp", "intp", "intp", "intp", "intp", "intp", "intp",
)  # fmt: skip
def _forward(
    address, together, pooled, eps, x, W, b, gamma, beta, v, mu, r, y, chosen,
    channels, kernel, stride, top, left, high, wide,
):  # fmt: skip
    for t in range(x.shape[0]):
        given, weight = x[t : t + 1], _one(W, t)
        _convolved(
            address, 1, given, weight, given, weight, _one(b, t), _pixels(v[t]),
            channels, kernel, stride, top, left, high, wide,
        )  # fmt: skip
        made = mu[t], r[t], y[t], chosen[t]
        forward_of_task(pooled, together, of_task(gamma, t), of_task(beta, t), eps, v[t], *made)


@compiles(
    "intp", "intp", "b1", "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]",
    "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in u1[:, :, :, :, ::1]",
    "in t[:, :, :, :, ::1]", "t[:, :, :, ::1]", "t[:, :, ::1]", "t[:, ::1]", "t[:, ::1]",
    "t[:, ::1]", "intp", "intp", "intp", "intp", "intp", "intp", "intp",
)  # fmt: skip
def _backward(
    address, together, on_data, x, W, gamma, v, mu, r, chosen, dy, dx, dW, db, dgamma, dbeta,
    channels, kernel, stride, top, left, high, wide,
):  # fmt: skip
    images = np.empty(v.shape[1:], v.dtype)
    dv = _pixels(images)
    for t in range(x.shape[0]):
        select_transpose(chosen[t], dy[t], images)
        norm = of_task(gamma, t), v[t], mu[t], r[t]
        backward_of_task(together, *norm, images, dgamma[t], dbeta[t])
        given, weight = x[t : t + 1], _one(W, t)
        _correlated(
            address, 1, given, dv, given, dv, dW[t : t + 1],
            channels, kernel, stride, top, left, high, wide,
        )  # fmt: skip
        _summed(dv, db[t : t + 1])
        if not on_data:
            _transposed(
                address, 1, dv, weight, dv, weight, dx[t : t + 1],
                channels, kernel, stride, top, left, high, wide,
            )  # fmt: skip


@compiles(
    "intp", "intp", "b1", "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]",
    "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in u1[:, :, :, :, ::1]",
    "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]", "in t[:, :]", "in t[:, :]",
    "t[:, :, :, :, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, :, :, :, ::1]",
    "intp", "intp", "intp", "intp", "intp", "intp", "intp",
)  # fmt: skip
def _forward_tangent(
    address, together, on_data, x, W, gamma, v, mu, r, chosen,
    x_dot, W_dot, b_dot, gamma_dot, beta_dot, v_dot, mu_dot, r_dot, y_dot,
    channels, kernel, stride, top, left, high, wide,
):  # fmt: skip
    for t in range(x.shape[0]):
        _convolved(
            address, 1 if on_data else 2, x[t : t + 1], _one(W_dot, t), x_dot[t : t + 1],
            _one(W, t), _one(b_dot, t), _pixels(v_dot[t]),
            channels, kernel, stride, top, left, high, wide,
        )  # fmt: skip
        scales = of_task(gamma, t), of_task(gamma_dot, t), of_task(beta_dot, t)
        given, made = (v[t], mu[t], r[t], chosen[t]), (mu_dot[t], r_dot[t], y_dot[t])
        forward_tangent_of_task(together, *scales, *given, v_dot[t], *made)


@compiles(
    "intp", "intp", "b1", "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]",
    "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in u1[:, :, :, :, ::1]",
    "in t[:, :, :, :, ::1]", "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]",
    "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, :, :, :, ::1]",
    "t[:, :, :, ::1]", "t[:, :, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
    "intp", "intp", "intp", "intp", "intp", "intp", "intp",
)  # fmt: skip
def _backward_tangent(
    address, together, on_data, x, W, gamma, v, mu, r, chosen, dy,
    x_dot, W_dot, gamma_dot, v_dot, mu_dot, r_dot, dy_dot,
    dx_dot, dW_dot, db_dot, dgamma_dot, dbeta_dot,
    channels, kernel, stride, top, left, high, wide,
):  # fmt: skip
    count = 1 if on_data else 2
    images, images_dot = np.empty(v.shape[1:], v.dtype), np.empty(v.shape[1:], v.dtype)
    dv, dv_dot = _pixels(images), _pixels(images_dot)
    for t in range(x.shape[0]):
        select_transpose(chosen[t], dy[t], images)
        select_transpose(chosen[t], dy_dot[t], images_dot)
        scales = of_task(gamma, t), of_task(gamma_dot, t)
        norm = v[t], mu[t], r[t], v_dot[t], mu_dot[t], r_dot[t]
        backward_tangent_of_task(
            together, *scales, *norm, images, images_dot, dgamma_dot[t], dbeta_dot[t]
        )
        _correlated(
            address, count, x[t : t + 1], dv_dot, x_dot[t : t + 1], dv, dW_dot[t : t + 1],
            channels, kernel, stride, top, left, high, wide,
        )  # fmt: skip
        _summed(dv_dot, db_dot[t : t + 1])
        if not on_data:
            _transposed(
                address, 2, dv_dot, _one(W, t), dv, _one(W_dot, t), dx_dot[t : t + 1],
                channels, kernel, stride, top, left, high, wide,
            )  # fmt: skip
