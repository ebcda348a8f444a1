"""A convolution with the BatchNorm and ReLU above it, task by task.

The functions are those of host_kernels.py and host_norm.py. One call takes a
task through all of them, so that its numbers are still in the core's cache, and
threads wait for each other at fewer calls. With v = (S x) W + 1 b^T, and R and
the norm of host_norm.py,

    y = R norm(v),  dv = the norm's dx for this dy,
    dW = (S x)^T dv,  db = 1^T dv,  dx = S^T (dv W^T).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from ..errors import ShapeError
from . import host_kernels, host_norm
from .compiled import OPTIONS, compiles
from .host_blas import gemm_address
from .host_kernels import contiguous, geometry

_helper = numba.njit(**OPTIONS)
_convolve = _helper(host_kernels._convolve.function)
_correlate = _helper(host_kernels._correlate.function)
_convolve_transpose = _helper(host_kernels._convolve_transpose.function)
_sums = _helper(host_kernels._sums.function)
_norm = _helper(host_norm._forward.function)
_norm_pooled = _helper(host_norm._forward_pooled.function)
_norm_back = _helper(host_norm._backward.function)
_norm_back_pooled = _helper(host_norm._backward_pooled.function)


class Cache(NamedTuple):
    """x, and what the norm needs of its input v."""

    x: np.ndarray
    v: np.ndarray
    mu: np.ndarray
    r: np.ndarray
    chosen: np.ndarray


class Block(NamedTuple):
    """The numbers of a convolution and of its norm."""

    kernel: int
    stride: int
    eps: float
    pooled: bool


Parameters = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # W, b, gamma, beta


def forward(parameters: Parameters, x: np.ndarray, block: Block) -> tuple[np.ndarray, Cache]:
    """y and the cache. ``W: (T or 1, kernel^2 C, outputs)``; the others are
    ``(T or 1, outputs)``; ``x: (T, N, height, width, C)``."""
    x, place = contiguous(x), geometry(x.shape, block.kernel, block.stride)
    W, tasks, examples = parameters[0], *x.shape[:2]
    images = tasks, examples, place.high, place.wide, W.shape[2]
    _expect_parameters(parameters, x.shape, block)
    v, (mu, r) = np.empty(images, x.dtype), np.empty((2, tasks, images[4]), x.dtype)
    shape = host_norm._pooled_shape(images) if block.pooled else images
    y, chosen = np.empty(shape, x.dtype), np.empty(shape, np.uint8)
    given = gemm_address(x.dtype), block.pooled, block.eps, _lines(x), *_whole(parameters)
    _forward(x.dtype, *given, v, mu, r, y, chosen, *place)
    return y, Cache(x, v, mu, r, chosen)


def backward(
    parameters: Parameters, cache: Cache, dy: np.ndarray, block: Block, on_data: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """dx, or None with ``on_data``; dW, db, dgamma and dbeta, all of T
    tasks."""
    x, v, mu, r, chosen = cache
    _expect_parameters(parameters, x.shape, block)
    if dy.shape != chosen.shape:
        raise ShapeError(f"dy must have shape {chosen.shape}, got {dy.shape}")
    W, _, gamma, _ = _whole(parameters)
    dx = np.empty((0, 1, 1, 1, 1) if on_data else x.shape, x.dtype)
    dW = np.empty((x.shape[0], *W.shape[1:]), x.dtype)
    db, dgamma, dbeta = np.empty((3, *r.shape), x.dtype)
    given = gemm_address(x.dtype), block.pooled, on_data, _lines(x), W, gamma
    made = _lines(dx), dW, db, dgamma, dbeta
    place = geometry(x.shape, block.kernel, block.stride)
    _backward(x.dtype, *given, v, mu, r, chosen, contiguous(dy), *made, *place)
    return None if on_data else dx, dW, db, dgamma, dbeta


def _whole(parameters: Parameters) -> Parameters:
    W, *others = parameters
    return host_kernels._matrices(W), *others


def _expect_parameters(parameters: Parameters, shape: tuple[int, ...], block: Block) -> None:
    """Check parameters against x, since compiled functions look at no
    shapes."""
    W, *others = parameters
    tasks, taps = shape[0], block.kernel**2 * shape[4]
    if W.ndim != 3 or W.shape[1] != taps or W.shape[0] not in (1, tasks):
        raise ShapeError(f"weight must have shape (1 or {tasks}, {taps}, outputs), got {W.shape}")
    for name, v in zip(("bias", "scale", "shift"), others, strict=True):
        if v.shape not in ((1, W.shape[2]), (tasks, W.shape[2])):
            raise ShapeError(f"{name} must have shape (1 or {tasks}, {W.shape[2]}), got {v.shape}")


def _lines(x: np.ndarray) -> np.ndarray:
    """Images with the pixels of a row side by side."""
    return x.reshape(*x.shape[:3], math.prod(x.shape[3:]))


@_helper
def _of_task(a, t):
    """Row t of an array whose first axis is T or 1, as an array of one task."""
    return a[t : t + 1] if a.shape[0] > 1 else a[0:1]


@compiles(
    "intp", "b1", "r", "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]", "in t[:, :]",
    "in t[:, :]", "t[:, :, :, :, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, :, :, :, ::1]",
    "u1[:, :, :, :, ::1]", "intp", "intp", "intp", "intp", "intp", "intp", "intp",
)  # fmt: skip
def _forward(
    address, pooled, eps, x, W, b, gamma, beta, v, mu, r, y, chosen,
    channels, kernel, stride, top, left, high, wide,
):  # fmt: skip
    outputs, count = W.shape[2], x.shape[1] * high * wide
    for t in range(x.shape[0]):
        given, weight = x[t : t + 1], _of_task(W, t)
        g, s = _of_task(gamma, t), _of_task(beta, t)
        rows, m, q = v[t].reshape(1, count, outputs), mu[t : t + 1], r[t : t + 1]
        _convolve(
            address, 1, given, weight, given, weight, _of_task(b, t), rows,
            channels, kernel, stride, top, left, high, wide,
        )  # fmt: skip
        if pooled:
            _norm_pooled(g, s, v[t : t + 1], eps, m, q, y[t : t + 1], chosen[t : t + 1])
        else:
            into = y[t].reshape(1, count, outputs)
            _norm(g, s, rows, eps, m, q, into, chosen[t].reshape(1, count, outputs))


@compiles(
    "intp", "b1", "b1", "in t[:, :, :, ::1]", "in t[:, :, :]", "in t[:, :]",
    "in t[:, :, :, :, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in u1[:, :, :, :, ::1]",
    "in t[:, :, :, :, ::1]", "t[:, :, :, ::1]", "t[:, :, ::1]", "t[:, ::1]", "t[:, ::1]",
    "t[:, ::1]", "intp", "intp", "intp", "intp", "intp", "intp", "intp",
)  # fmt: skip
def _backward(
    address, pooled, on_data, x, W, gamma, v, mu, r, chosen, dy, dx, dW, db, dgamma, dbeta,
    channels, kernel, stride, top, left, high, wide,
):  # fmt: skip
    examples, height = x.shape[1], x.shape[2]
    outputs, count = W.shape[2], examples * high * wide
    images = np.empty((1, examples, high, wide, outputs), dW.dtype)
    dv = images.reshape(1, count, outputs)
    none = np.zeros((1, channels), dW.dtype)
    for t in range(x.shape[0]):
        given, weight, g = x[t : t + 1], _of_task(W, t), _of_task(gamma, t)
        m, q, dg, ds = mu[t : t + 1], r[t : t + 1], dgamma[t : t + 1], dbeta[t : t + 1]
        if pooled:
            _norm_back_pooled(
                g, v[t : t + 1], m, q, chosen[t : t + 1], dy[t : t + 1], images, dg, ds
            )
        else:
            rows, kept = v[t].reshape(1, count, outputs), chosen[t].reshape(1, count, outputs)
            _norm_back(g, rows, m, q, kept, dy[t].reshape(1, count, outputs), dv, dg, ds)
        _correlate(
            address, 1, given, dv, given, dv, dW[t : t + 1],
            channels, kernel, stride, top, left, high, wide,
        )  # fmt: skip
        _sums(dv, db[t : t + 1])
        if on_data:
            continue
        if stride == 1:
            turned = _turned(weight[0], kernel, channels)
            above = dv.reshape(1, examples, high, wide * outputs)
            into = dx[t].reshape(1, examples * height * wide, channels)
            _convolve(
                address, 1, above, turned, above, turned, none, into,
                outputs, kernel, 1, kernel - 1 - top, kernel - 1 - left, high, wide,
            )  # fmt: skip
        else:
            _convolve_transpose(
                address, 1, dv, weight, dv, weight, dx[t : t + 1],
                channels, kernel, stride, top, left, high, wide,
            )  # fmt: skip


@_helper
def _turned(W, kernel, channels):
    """W with its taps in the opposite order, and each tap transposed (as
    ``host_kernels._turned``)."""
    outputs, taps = W.shape[1], kernel * kernel
    turned = np.empty((1, taps * outputs, channels), W.dtype)
    for tap in range(taps):
        for o in range(outputs):
            into = turned[0, (taps - 1 - tap) * outputs + o]
            for c in range(channels):
                into[c] = W[tap * channels + c, o]
    return turned
