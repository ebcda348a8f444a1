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
from itertools import pairwise

import numpy as np

from ..errors import ShapeError
from .compiled import compiles, helper
from .host_blas import gemm_address, gemm_of_flat
from .host_rows import contiguous, of_task

Widths = tuple[int, ...]


def forward(phi: np.ndarray, x: np.ndarray, widths: Widths) -> tuple[np.ndarray, np.ndarray]:
    """y ``(T, N, C)`` and a."""
    (tasks, count), dtype = x.shape[:2], x.dtype
    _expect(widths, tasks, count, {"phi": phi}, x=x)
    a = np.empty((tasks, count * sum(widths[:-1])), dtype)
    y = np.empty((tasks, count, widths[-1]), dtype)
    _forward(
        dtype, gemm_address(dtype), count, _array(widths), contiguous(phi), _flat(x), a, _flat(y)
    )
    return y, a


def backward(
    phi: np.ndarray, a: np.ndarray, dy: np.ndarray, widths: Widths, on_data: bool
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """dx, or None with ``on_data``; dphi ``(T, D)``; and e."""
    (tasks, count), dtype = dy.shape[:2], dy.dtype
    _expect(widths, tasks, count, {"phi": phi}, a=a, dy=dy)
    e = np.empty((tasks, count * sum(widths[1:])), dtype)
    dphi = np.empty((tasks, phi.shape[1]), dtype)
    dx = np.empty((tasks, 0 if on_data else count, widths[0]), dtype)
    given = count, _array(widths), contiguous(phi), a, _flat(dy), on_data
    _backward(dtype, gemm_address(dtype), *given, e, dphi, _flat(dx))
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
    _expect(widths, tasks, count, {"phi": phi, "phi_dot": phi_dot}, a=a, x_dot=x_dot)
    a_dot = np.empty((tasks, count * sum(widths[:-1])), dtype)
    y_dot = np.empty((tasks, count, widths[-1]), dtype)
    given = count, _array(widths), contiguous(phi), contiguous(phi_dot), a, _flat(x_dot), on_data
    _forward_tangent(dtype, gemm_address(dtype), *given, a_dot, _flat(y_dot))
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
    _expect(
        widths,
        tasks,
        count,
        {"phi": phi, "phi_dot": phi_dot},
        a=a,
        a_dot=a_dot,
        e=e,
        dy_dot=dy_dot,
    )
    dphi_dot = np.empty((tasks, phi.shape[1]), dtype)
    dx_dot = np.empty((tasks, 0 if on_data else count, widths[0]), dtype)
    given = (
        count,
        _array(widths),
        contiguous(phi),
        contiguous(phi_dot),
        a,
        a_dot,
        e,
        _flat(dy_dot),
        on_data,
    )
    _backward_tangent(dtype, gemm_address(dtype), *given, dphi_dot, _flat(dx_dot))
    return None if on_data else dx_dot, dphi_dot


def _expect(
    widths: Widths, tasks: int, count: int, rows: dict[str, np.ndarray], **others: np.ndarray
) -> None:
    """Check that arrays have the shapes of ``tasks`` of ``count`` examples.

    ``rows`` are ``(T or 1, D)``. Of the others, x and x_dot are inputs, dy and
    dy_dot outputs, a and a_dot rows of inputs, e rows of outputs.
    """
    size, below, above = _lengths(widths)
    for name, v in rows.items():
        if v.shape != (tasks, size) and v.shape != (1, size):
            raise ShapeError(f"{name} must have shape (1 or {tasks}, {size}), got {v.shape}")
    for name, v in others.items():
        if name.startswith(("a", "e")):
            wanted = tasks, count * (above if name == "e" else below)
        else:
            wanted = tasks, count, widths[0 if name.startswith("x") else -1]
        if v.shape != wanted:
            raise ShapeError(f"{name} must have shape {wanted}, got {v.shape}")


@cache
def _lengths(widths: Widths) -> tuple[int, int, int]:
    """D, and the numbers that an example has in a row of a and of e."""
    size = sum((n + 1) * m for n, m in pairwise(widths))
    return size, sum(widths[:-1]), sum(widths[1:])


@cache
def _array(widths: Widths) -> np.ndarray:
    return np.array(widths, np.int64)


def _flat(a: np.ndarray) -> np.ndarray:
    """``(T, N, C)`` as a row a task, a view of a contiguous array."""
    return contiguous(a).reshape(a.shape[0], a.shape[1] * a.shape[2])


# The matrices below are contiguous and given as vectors, since making a matrix
# of a vector takes about as long as a product with it.


@helper
def affine(address, count, n, m, a, W, b, y):
    """y = a W + 1 b^T."""
    for i in range(count):
        row = y[i * m : (i + 1) * m]
        for j in range(m):
            row[j] = b[j]
    add_product(address, count, n, m, a, W, y)


@helper
def add_product(address, count, n, m, a, W, y):
    """y += a W."""
    if n == 1:
        for i in range(count):
            row, factor = y[i * m : (i + 1) * m], a[i]
            for j in range(m):
                row[j] += factor * W[j]
    elif m == 1:
        for i in range(count):
            y[i] += _dot(a[i * n : (i + 1) * n], W)
    else:
        gemm_of_flat(address, False, False, count, m, n, a, W, 1, y)


@helper
def _dot(a, b):
    """The sum of a o b. Four sums side by side do not wait for each other."""
    one, two, three, four = a[0] * 0, a[0] * 0, a[0] * 0, a[0] * 0
    size = a.shape[0]
    for k in range(0, size - size % 4, 4):
        one += a[k] * b[k]
        two += a[k + 1] * b[k + 1]
        three += a[k + 2] * b[k + 2]
        four += a[k + 3] * b[k + 3]
    for k in range(size - size % 4, size):
        one += a[k] * b[k]
    return (one + two) + (three + four)


@helper
def gradient(address, count, n, m, a, e, beta, dW):
    """dW = a^T e + beta dW."""
    if n > 1 and m > 1:
        gemm_of_flat(address, True, False, n, m, count, a, e, beta, dW)
        return
    if beta == 0:
        for k in range(n * m):
            dW[k] = 0
    for i in range(count):
        if m == 1:
            row, factor = a[i * n : (i + 1) * n], e[i]
        else:
            row, factor = e[i * m : (i + 1) * m], a[i]
        for k in range(n * m):
            dW[k] += row[k] * factor


@helper
def pulled(address, count, n, m, e, W, beta, before):
    """before = e W^T + beta before."""
    if m > 1:
        gemm_of_flat(address, False, True, count, n, m, e, W, beta, before)
        return
    for i in range(count):
        row, factor = before[i * n : (i + 1) * n], e[i]
        if beta == 0:
            for k in range(n):
                row[k] = factor * W[k]
        else:
            for k in range(n):
                row[k] += factor * W[k]


@helper
def copy(values, into):
    for i in range(into.shape[0]):
        into[i] = values[i]


@helper
def _rectify(values):
    for i in range(values.shape[0]):
        v = values[i]
        values[i] = v if v.real > 0 else v * 0


@helper
def _mask(a, values):
    """``values`` where a > 0."""
    for i in range(values.shape[0]):
        values[i] = values[i] * (a[i].real > 0)


@helper
def column_sums(count, m, e, sums):
    for j in range(m):
        sums[j] = 0
    for i in range(count):
        row = e[i * m : (i + 1) * m]
        for j in range(m):
            sums[j] += row[j]


@compiles(
    "intp", "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, ::1]", "t[:, ::1]", "t[:, ::1]"
)  # fmt: skip
def _forward(address, count, widths, phi, x, a, y):
    last = len(widths) - 2
    for t in range(x.shape[0]):
        row, place, at = of_task(phi, t), 0, count * widths[0]
        source = a[t, :at]
        copy(x[t], source)
        for layer in range(last + 1):
            n, m = widths[layer], widths[layer + 1]
            W, b = row[place : place + n * m], row[place + n * m : place + (n + 1) * m]
            place += (n + 1) * m
            into = y[t] if layer == last else a[t, at : at + count * m]
            at += count * m
            affine(address, count, n, m, source, W, b, into)
            if layer < last:
                _rectify(into)
            source = into


@compiles(
    "intp", "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]", "b1",
    "t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _backward(address, count, widths, phi, a, dy, on_data, e, dphi, dx):
    last = len(widths) - 2
    for t in range(dy.shape[0]):
        row, into = of_task(phi, t), dphi[t]
        place, at, below = row.shape[0], e.shape[1] - dy.shape[1], a.shape[1]
        above = e[t, at:]
        copy(dy[t], above)
        for layer in range(last, -1, -1):
            n, m = widths[layer], widths[layer + 1]
            place -= (n + 1) * m
            below -= count * n
            source, W = a[t, below : below + count * n], row[place : place + n * m]
            gradient(address, count, n, m, source, above, 0, into[place : place + n * m])
            column_sums(count, m, above, into[place + n * m : place + (n + 1) * m])
            if layer > 0:
                at -= count * n
                before = e[t, at : at + count * n]
                pulled(address, count, n, m, above, W, 0, before)
                _mask(source, before)
                above = before
            elif not on_data:
                pulled(address, count, n, m, above, W, 0, dx[t])


@compiles(
    "intp", "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "b1", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _forward_tangent(address, count, widths, phi, phi_dot, a, x_dot, on_data, a_dot, y_dot):
    last = len(widths) - 2
    for t in range(y_dot.shape[0]):
        row, row_dot = of_task(phi, t), of_task(phi_dot, t)
        place, at = 0, count * widths[0]
        source_dot = a_dot[t, :at]
        copy(x_dot[t], source_dot)
        for layer in range(last + 1):
            n, m = widths[layer], widths[layer + 1]
            W, W_dot = row[place : place + n * m], row_dot[place : place + n * m]
            b_dot = row_dot[place + n * m : place + (n + 1) * m]
            place += (n + 1) * m
            source = a[t, at - count * n : at]
            into = y_dot[t] if layer == last else a_dot[t, at : at + count * m]
            affine(address, count, n, m, source, W_dot, b_dot, into)
            if layer > 0 or not on_data:
                add_product(address, count, n, m, source_dot, W, into)
            if layer < last:
                _mask(a[t, at : at + count * m], into)
            at += count * m
            source_dot = into


@compiles(
    "intp", "intp", "in i8[::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]",
    "in t[:, ::1]", "in t[:, ::1]", "b1", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _backward_tangent(
    address, count, widths, phi, phi_dot, a, a_dot, e, dy_dot, on_data, dphi_dot, dx_dot
):
    last, widest = len(widths) - 2, 0
    for width in widths:
        widest = max(widest, width)
    spare = np.empty((2, count * widest), dphi_dot.dtype)
    for t in range(dphi_dot.shape[0]):
        row, row_dot = of_task(phi, t), of_task(phi_dot, t)
        into, place, at, below = dphi_dot[t], row.shape[0], e.shape[1], a.shape[1]
        above_dot = spare[0, : dy_dot.shape[1]]
        copy(dy_dot[t], above_dot)
        for layer in range(last, -1, -1):
            n, m = widths[layer], widths[layer + 1]
            place -= (n + 1) * m
            below -= count * n
            at -= count * m
            above, source = e[t, at : at + count * m], a[t, below : below + count * n]
            W, W_dot = row[place : place + n * m], row_dot[place : place + n * m]
            dW_dot = into[place : place + n * m]
            gradient(address, count, n, m, source, above_dot, 0, dW_dot)
            if layer > 0 or not on_data:
                source_dot = a_dot[t, below : below + count * n]
                gradient(address, count, n, m, source_dot, above, 1, dW_dot)
            column_sums(count, m, above_dot, into[place + n * m : place + (n + 1) * m])
            if layer > 0:
                before_dot = spare[(last - layer + 1) % 2, : count * n]
                pulled(address, count, n, m, above_dot, W, 0, before_dot)
                pulled(address, count, n, m, above, W_dot, 1, before_dot)
                _mask(source, before_dot)
                above_dot = before_dot
            elif not on_data:
                pulled(address, count, n, m, above_dot, W, 0, dx_dot[t])
                pulled(address, count, n, m, above, W_dot, 1, dx_dot[t])
