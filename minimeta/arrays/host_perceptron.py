"""The four passes of Dense layers with ReLU between them, each in one call.

Small layers take less time than the calls that compute them, so here one
compiled function takes all tasks through all layers. With a_0 = x, the weights
and biases W_l and b_l, and the mask M_l of z_l > 0 for l = 1 .. L - 1,

    z_l = a_{l-1} W_l + 1 b_l^T,  a_l = M_l z_l,  y = z_L.

With e_l = dL/dz_l, and e_L = dy given,

    dW_l = a_{l-1}^T e_l,  db_l = 1^T e_l,  e_{l-1} = M_{l-1} (e_l W_l^T),

and dx is e_0 without a mask. The tangents are the product rule:

    z_l_dot = a_{l-1} W_l_dot + a_{l-1}_dot W_l + 1 b_l_dot^T,
    dW_l_dot = a_{l-1}^T e_l_dot + a_{l-1}_dot^T e_l,  db_l_dot = 1^T e_l_dot,
    e_{l-1}_dot = M_{l-1} (e_l_dot W_l^T + e_l W_l_dot^T).

A row of phi holds W_1, b_1, W_2, ... The widths of x, z_1, ..., z_L are
``widths``. A row of ``a`` holds a_0, ..., a_{L-1}, one after another, each
``(N, width)``; a row of ``e`` holds e_1, ..., e_L.
"""

from __future__ import annotations

from functools import cache

import numba
import numpy as np

from .compiled import OPTIONS, compiles
from .host_blas import gemm, gemm_address

_helper = numba.njit(**OPTIONS)
Widths = tuple[int, ...]


def forward(phi: np.ndarray, x: np.ndarray, widths: Widths) -> tuple[np.ndarray, np.ndarray]:
    """y ``(T, N, C)`` and a."""
    (tasks, count), dtype = x.shape[:2], x.dtype
    a = np.empty((tasks, count * sum(widths[:-1])), dtype)
    y = np.empty((tasks, count, widths[-1]), dtype)
    _forward(dtype, gemm_address(dtype), _array(widths), _c(phi), _c(x), a, y)
    return y, a


def backward(
    phi: np.ndarray, a: np.ndarray, dy: np.ndarray, widths: Widths, on_data: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """dx, or None with ``on_data``; dphi ``(T, D)``; and e."""
    (tasks, count), dtype = dy.shape[:2], dy.dtype
    e = np.empty((tasks, count * sum(widths[1:])), dtype)
    dphi = np.empty((tasks, phi.shape[1]), dtype)
    dx = np.empty((tasks, 0 if on_data else count, widths[0]), dtype)
    given = _array(widths), _c(phi), a, _c(dy), on_data
    _backward(dtype, gemm_address(dtype), *given, e, dphi, dx)
    return None if on_data else dx, dphi, e


def forward_tangent(
    phi: np.ndarray,
    phi_dot: np.ndarray,
    a: np.ndarray,
    x_dot: np.ndarray,
    widths: Widths,
    on_data: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """y_dot and a_dot. With ``on_data``, x_dot is zero."""
    (tasks, count), dtype = x_dot.shape[:2], x_dot.dtype
    a_dot = np.empty((tasks, count * sum(widths[:-1])), dtype)
    y_dot = np.empty((tasks, count, widths[-1]), dtype)
    given = _array(widths), _c(phi), _c(phi_dot), a, _c(x_dot), on_data
    _forward_tangent(dtype, gemm_address(dtype), *given, a_dot, y_dot)
    return y_dot, a_dot


def backward_tangent(
    phi: np.ndarray,
    phi_dot: np.ndarray,
    a: np.ndarray,
    a_dot: np.ndarray,
    e: np.ndarray,
    dy_dot: np.ndarray,
    widths: Widths,
    on_data: bool,
) -> tuple[np.ndarray | None, np.ndarray]:
    """dx_dot, or None with ``on_data``; and dphi_dot ``(T, D)``."""
    (tasks, count), dtype = dy_dot.shape[:2], dy_dot.dtype
    dphi_dot = np.empty((tasks, phi.shape[1]), dtype)
    dx_dot = np.empty((tasks, 0 if on_data else count, widths[0]), dtype)
    given = _array(widths), _c(phi), _c(phi_dot), a, a_dot, e, _c(dy_dot), on_data
    _backward_tangent(dtype, gemm_address(dtype), *given, dphi_dot, dx_dot)
    return None if on_data else dx_dot, dphi_dot


@cache
def _array(widths: Widths) -> np.ndarray:
    return np.array(widths, np.int64)


def _c(a: np.ndarray) -> np.ndarray:
    return a if a.flags.c_contiguous else np.ascontiguousarray(a)


@_helper
def _add_product(address, a, W, y):
    """y += a W."""
    count, inputs = a.shape
    if inputs == 1:
        for i in range(count):
            factor = a[i, 0]
            for j in range(y.shape[1]):
                y[i, j] += factor * W[0, j]
    elif y.shape[1] == 1:
        for i in range(count):
            total = y[i, 0]
            for k in range(inputs):
                total += a[i, k] * W[k, 0]
            y[i, 0] = total
    else:
        gemm(address, False, False, a, W, 1, y)


@_helper
def _gradient(address, a, e, beta, dW):
    """dW = a^T e + beta dW."""
    inputs, outputs = dW.shape
    if inputs == 1 or outputs == 1:
        if beta == 0:
            dW[:] = 0
        for i in range(a.shape[0]):
            if outputs == 1:
                factor = e[i, 0]
                for k in range(inputs):
                    dW[k, 0] += a[i, k] * factor
            else:
                factor = a[i, 0]
                for j in range(outputs):
                    dW[0, j] += factor * e[i, j]
    else:
        gemm(address, True, False, a, e, beta, dW)


@_helper
def _pulled(address, e, W, beta, before):
    """before = e W^T + beta before."""
    inputs, outputs = W.shape
    if outputs == 1:
        for i in range(e.shape[0]):
            factor = e[i, 0]
            for k in range(inputs):
                kept = before[i, k] if beta else before.dtype.type(0)
                before[i, k] = kept + factor * W[k, 0]
    else:
        gemm(address, False, True, e, W, beta, before)


@_helper
def _masked(a, values):
    """``values`` where a > 0."""
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            values[i, j] = values[i, j] * (a[i, j].real > 0)


@_helper
def _sums(e, sums):
    sums[:] = 0
    for i in range(e.shape[0]):
        for j in range(e.shape[1]):
            sums[j] += e[i, j]


@compiles(
    "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, :, ::1]", "t[:, ::1]", "t[:, :, ::1]"
)  # fmt: skip
def _forward(address, widths, phi, x, a, y):
    count, last = x.shape[1], len(widths) - 2
    for t in range(x.shape[0]):
        row, place, at = phi[t if phi.shape[0] > 1 else 0], 0, count * widths[0]
        source = a[t, :at].reshape(count, widths[0])
        source[:] = x[t]
        for layer in range(last + 1):
            n, m = widths[layer], widths[layer + 1]
            W, b = row[place : place + n * m].reshape(n, m), row[place + n * m :]
            place += (n + 1) * m
            into = y[t] if layer == last else a[t, at : at + count * m].reshape(count, m)
            at += count * m
            for i in range(count):
                for j in range(m):
                    into[i, j] = b[j]
            _add_product(address, source, W, into)
            if layer < last:
                for i in range(count):
                    for j in range(m):
                        v = into[i, j]
                        into[i, j] = v if v.real > 0 else v * 0
            source = into


@compiles(
    "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, :, ::1]", "b1",
    "t[:, ::1]", "t[:, ::1]", "t[:, :, ::1]",
)  # fmt: skip
def _backward(address, widths, phi, a, dy, on_data, e, dphi, dx):
    count, last = dy.shape[1], len(widths) - 2
    for t in range(dy.shape[0]):
        row, into = phi[t if phi.shape[0] > 1 else 0], dphi[t]
        place, at, below = row.shape[0], e.shape[1], a.shape[1]
        above = e[t, at - count * widths[last + 1] :].reshape(count, widths[last + 1])
        above[:] = dy[t]
        at -= count * widths[last + 1]
        for layer in range(last, -1, -1):
            n, m = widths[layer], widths[layer + 1]
            place -= (n + 1) * m
            below -= count * n
            source = a[t, below : below + count * n].reshape(count, n)
            W = row[place : place + n * m].reshape(n, m)
            _gradient(address, source, above, 0, into[place : place + n * m].reshape(n, m))
            _sums(above, into[place + n * m : place + (n + 1) * m])
            if layer > 0:
                at -= count * n
                before = e[t, at : at + count * n].reshape(count, n)
                _pulled(address, above, W, 0, before)
                _masked(source, before)
                above = before
            elif not on_data:
                _pulled(address, above, W, 0, dx[t])


@compiles(
    "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, :, ::1]", "b1",
    "t[:, ::1]", "t[:, :, ::1]",
)  # fmt: skip
def _forward_tangent(address, widths, phi, phi_dot, a, x_dot, on_data, a_dot, y_dot):
    count, last = x_dot.shape[1], len(widths) - 2
    for t in range(x_dot.shape[0]):
        row, row_dot = phi[t if phi.shape[0] > 1 else 0], phi_dot[t if phi_dot.shape[0] > 1 else 0]
        place, at = 0, count * widths[0]
        source_dot = a_dot[t, :at].reshape(count, widths[0])
        source_dot[:] = x_dot[t]
        for layer in range(last + 1):
            n, m = widths[layer], widths[layer + 1]
            W = row[place : place + n * m].reshape(n, m)
            W_dot, b_dot = row_dot[place : place + n * m].reshape(n, m), row_dot[place + n * m :]
            place += (n + 1) * m
            source = a[t, at - count * n : at].reshape(count, n)
            into = y_dot[t] if layer == last else a_dot[t, at : at + count * m].reshape(count, m)
            for i in range(count):
                for j in range(m):
                    into[i, j] = b_dot[j]
            _add_product(address, source, W_dot, into)
            if layer > 0 or not on_data:
                _add_product(address, source_dot, W, into)
            if layer < last:
                _masked(a[t, at : at + count * m].reshape(count, m), into)
            at += count * m
            source_dot = into


@compiles(
    "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in t[:, ::1]", "in t[:, :, ::1]", "b1", "t[:, ::1]", "t[:, :, ::1]",
)  # fmt: skip
def _backward_tangent(
    address, widths, phi, phi_dot, a, a_dot, e, dy_dot, on_data, dphi_dot, dx_dot
):
    count, last = dy_dot.shape[1], len(widths) - 2
    widest = 0
    for width in widths:
        widest = max(widest, width)
    spare = np.empty((2, count * widest), dy_dot.dtype)
    for t in range(dy_dot.shape[0]):
        row, row_dot = phi[t if phi.shape[0] > 1 else 0], phi_dot[t if phi_dot.shape[0] > 1 else 0]
        into, place, at, below = dphi_dot[t], row.shape[0], e.shape[1], a.shape[1]
        above_dot = spare[0, : count * widths[last + 1]].reshape(count, widths[last + 1])
        above_dot[:] = dy_dot[t]
        for layer in range(last, -1, -1):
            n, m = widths[layer], widths[layer + 1]
            place -= (n + 1) * m
            below -= count * n
            at -= count * m
            above = e[t, at : at + count * m].reshape(count, m)
            source = a[t, below : below + count * n].reshape(count, n)
            W = row[place : place + n * m].reshape(n, m)
            W_dot = row_dot[place : place + n * m].reshape(n, m)
            dW_dot = into[place : place + n * m].reshape(n, m)
            _gradient(address, source, above_dot, 0, dW_dot)
            if layer > 0 or not on_data:
                source_dot = a_dot[t, below : below + count * n].reshape(count, n)
                _gradient(address, source_dot, above, 1, dW_dot)
            _sums(above_dot, into[place + n * m : place + (n + 1) * m])
            if layer > 0:
                before_dot = spare[(last - layer + 1) % 2, : count * n].reshape(count, n)
                _pulled(address, above_dot, W, 0, before_dot)
                _pulled(address, above, W_dot, 1, before_dot)
                _masked(source, before_dot)
                above_dot = before_dot
            elif not on_data:
                _pulled(address, above_dot, W, 0, dx_dot[t])
                _pulled(address, above, W_dot, 1, dx_dot[t])
