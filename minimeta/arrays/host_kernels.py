"""The twins of kernels.py on the host, compiled by Numba.

Each computes what the function of its name in kernels.py says, in as few passes
over memory as it can. It makes its sums in an order of its own, which depends
on the shapes alone. So its results may differ from those of kernels.py in the
last digits, and depend neither on threads nor on other tasks.

Arrays ``(T, ..., C)`` are rows here, ``(T, P, C)``. Every function takes the
tasks one after another, because a task fits about into a core's caches. A sum
adds 64 rows before their sum is added to the total, so that its rounding grows
with 64 + P / 64 and not with P.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..errors import ShapeError
from .compiled import compiles, helper
from .host_blas import gemm, gemm_address
from .host_rows import contiguous, of_task
from .windows import Windows

# Patches that stay in a core's cache between their making and their product: so
# many rows of them, and so many bytes where a product makes them.
ROWS, BLOCK = 112, 1 << 19


# Rows and channels.


def channel_sums(a: np.ndarray) -> np.ndarray:
    """One pass."""
    a = _rows(a)
    sums = np.empty((a.shape[0], a.shape[2]), a.dtype)
    _sums(a.dtype, a, sums)
    return sums


def channel_means(a: np.ndarray) -> np.ndarray:
    """The sums, divided."""
    return channel_sums(a) / math.prod(a.shape[1:-1])


def channel_dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One pass."""
    return dots_and_sums(a, b)[0]


def dots_and_sums(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One pass."""
    a, b = _rows(a), _rows(b)
    dots, sums = np.empty((2, a.shape[0], a.shape[2]), a.dtype)
    _dots_and_sums(a.dtype, a, b, dots, sums)
    return dots, sums


def channel_combination(
    *terms: tuple[float | np.ndarray, np.ndarray], shift: np.ndarray | None = None
) -> np.ndarray:
    """One pass for the first two terms, and one for each other."""
    shape, dtype = terms[0][1].shape, terms[0][1].dtype
    given = [(_factor(factor, dtype), _rows(a)) for factor, a in terms]
    shift = _factor(0, dtype) if shift is None else shift
    total = np.empty(given[0][1].shape, dtype)
    if len(given) == 1:
        _combine_one(dtype, *given[0], shift, total)
    else:
        _combine_two(dtype, *given[0], *given[1], shift, total)
    for factor, a in given[2:]:
        _add_term(dtype, factor, a, total)
    return total.reshape(shape)


def _factor(factor: float | np.ndarray, dtype: np.dtype) -> np.ndarray:
    return factor if isinstance(factor, np.ndarray) else _one_for_all(factor, dtype)


@lru_cache
def _one_for_all(factor: float, dtype: np.dtype) -> np.ndarray:
    """One number for all tasks and channels."""
    constant = np.full((1, 1), factor, dtype)
    constant.flags.writeable = False
    return constant


def masked(a: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One pass."""
    y = np.empty(a.shape, a.dtype)
    _masked(a.dtype, _flat(a), _flat(mask), y.reshape(-1))
    return y


@helper
def fill(v, t, into):
    """``into`` is row t of ``v: (T or 1, C or 1)``."""
    row = of_task(v, t)
    for c in range(into.shape[0]):
        into[c] = row[c if row.shape[0] > 1 else 0]


@compiles("in t[:, :, ::1]", "t[:, ::1]")
def _sums(a, sums):
    tasks, count, channels = a.shape
    part = np.empty(channels, a.dtype)
    for t in range(tasks):
        total = sums[t]
        total[:] = 0
        for first in range(0, count, 64):
            part[:] = 0
            for p in range(first, min(first + 64, count)):
                for c in range(channels):
                    part[c] += a[t, p, c]
            for c in range(channels):
                total[c] += part[c]


@compiles("in t[:, :, ::1]", "in t[:, :, ::1]", "t[:, ::1]", "t[:, ::1]")
def _dots_and_sums(a, b, dots, sums):
    tasks, count, channels = a.shape
    part, part_dot = np.empty((2, channels), a.dtype)
    for t in range(tasks):
        total, total_dot = sums[t], dots[t]
        total[:] = 0
        total_dot[:] = 0
        for first in range(0, count, 64):
            part[:] = 0
            part_dot[:] = 0
            for p in range(first, min(first + 64, count)):
                for c in range(channels):
                    v = a[t, p, c]
                    part[c] += v
                    part_dot[c] += v * b[t, p, c]
            for c in range(channels):
                total[c] += part[c]
                total_dot[c] += part_dot[c]


@compiles("in t[:, :]", "in t[:, :, ::1]", "in t[:, :]", "t[:, :, ::1]")
def _combine_one(f, a, shift, y):
    tasks, count, channels = a.shape
    factor, constant = np.empty((2, channels), a.dtype)
    for t in range(tasks):
        fill(f, t, factor)
        fill(shift, t, constant)
        for p in range(count):
            for c in range(channels):
                y[t, p, c] = factor[c] * a[t, p, c] + constant[c]


@compiles(
    "in t[:, :]", "in t[:, :, ::1]", "in t[:, :]", "in t[:, :, ::1]", "in t[:, :]", "t[:, :, ::1]"
)
def _combine_two(f, a, g, b, shift, y):
    tasks, count, channels = a.shape
    factor, other, constant = np.empty((3, channels), a.dtype)
    for t in range(tasks):
        fill(f, t, factor)
        fill(g, t, other)
        fill(shift, t, constant)
        for p in range(count):
            for c in range(channels):
                y[t, p, c] = factor[c] * a[t, p, c] + other[c] * b[t, p, c] + constant[c]


@compiles("in t[:, :]", "in t[:, :, ::1]", "t[:, :, ::1]")
def _add_term(f, a, y):
    tasks, count, channels = a.shape
    factor = np.empty(channels, a.dtype)
    for t in range(tasks):
        fill(f, t, factor)
        for p in range(count):
            for c in range(channels):
                y[t, p, c] += factor[c] * a[t, p, c]


@compiles("in t[::1]", "in b1[::1]", "t[::1]")
def _masked(a, mask, y):
    for i in range(a.shape[0]):
        y[i] = a[i] * mask[i]


# Products with patches.


class Patches:
    """S x, which is built a few rows of pixels at a time, where a product needs
    it.

    It has the shape of the array that ``kernels.patches`` returns, and becomes
    that array under ``np.asarray``.
    """

    ndim = 3

    def __init__(self, x: np.ndarray, kernel: int, stride: int) -> None:
        self.x = x if x.flags.c_contiguous else np.ascontiguousarray(x)
        self.dtype, self.geometry = x.dtype, geometry(x.shape, kernel, stride)
        tasks, examples, *_, channels = x.shape
        pixels = self.geometry.high * self.geometry.wide
        self.shape = (tasks, examples * pixels, kernel * kernel * channels)

    def lines(self) -> np.ndarray:
        """x with the pixels of a row side by side,
        ``(T, N, height, width * C)``."""
        return self.x.reshape(*self.x.shape[:3], self.x.shape[3] * self.x.shape[4])

    def swapaxes(self, one: int, other: int) -> PatchesTransposed | np.ndarray:
        """(S x)^T for the axes 1 and 2."""
        if {one, other} != {1, 2}:
            return np.asarray(self).swapaxes(one, other)
        return PatchesTransposed(self)

    def __array_namespace__(self) -> Any:
        return np

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        seen = np.empty(self.shape, self.dtype)
        _all_patches(self.dtype, self.lines(), seen, *self.geometry)
        return np.asarray(seen, dtype)


class PatchesTransposed:
    """(S x)^T, of ``patches``."""

    def __init__(self, patches: Patches) -> None:
        self.patches, self.dtype, self.geometry = patches, patches.dtype, patches.geometry
        self.shape = (patches.shape[0], patches.shape[2], patches.shape[1])

    def __array_namespace__(self) -> Any:
        return np

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.patches, dtype).swapaxes(1, 2)


# The types of the arrays that twins take.
TAKEN = (np.ndarray, Patches, PatchesTransposed)


class Geometry(NamedTuple):
    """The numbers that place windows in an image: of channels, of taps along an
    axis, of pixels between windows, of zeros above and to the left, and of
    windows down and across."""

    channels: int
    kernel: int
    stride: int
    top: int
    left: int
    high: int
    wide: int


@lru_cache
def geometry(shape: tuple[int, ...], kernel: int, stride: int) -> Geometry:
    """The geometry of images of ``shape``, ``(T, N, height, width, C)``."""
    windows = Windows(shape[2:4], kernel, stride)
    return Geometry(shape[4], kernel, stride, *windows.before, *windows.counts)


def patches(x: np.ndarray, kernel: int, stride: int) -> Patches:
    """The patches, not built yet."""
    return Patches(x, kernel, stride)


def product_sum(*pairs: tuple[Any, np.ndarray], shift: np.ndarray | None = None) -> np.ndarray:
    """A product each. With patches, all products of some rows follow each
    other, while the rows are in the cache."""
    (a, b), dtype = pairs[0], pairs[0][0].dtype
    if not _follow(pairs, shift):
        pairs = tuple((np.asarray(a), b) for a, b in pairs)
    elif isinstance(a, Patches):
        y = np.empty((a.shape[0], a.shape[1], b.shape[2]), dtype)
        (one, W), (two, V) = _two(pairs)
        start = _factor(0, dtype) if shift is None else shift
        lines = one.lines(), _matrices(W), two.lines(), _matrices(V)
        _convolve(dtype, gemm_address(dtype), len(pairs), *lines, start, y, *a.geometry)
        return y
    elif isinstance(a, PatchesTransposed):
        y = np.empty((a.shape[0], a.shape[1], b.shape[2]), dtype)
        (one, dy), (two, dy_two) = _two(pairs)
        lines = one.patches.lines(), _rows(dy), two.patches.lines(), _rows(dy_two)
        _correlate(dtype, gemm_address(dtype), len(pairs), *lines, y, *a.geometry)
        return y
    total = None
    for a, b in pairs:
        term = a * b if a.shape[-1] == 1 else a @ b
        if total is not None:
            total += term
            continue
        total = contiguous(term)
        if shift is None:
            continue
        if shift.ndim == 2 and shift.shape[1] == total.shape[2] and len(shift) in (1, len(total)):
            _add_shift(dtype, shift, total)
        else:
            total += shift[:, None]
    return total


def _follow(pairs: Sequence[tuple], shift: np.ndarray | None) -> bool:
    """Whether the pairs are patches, or all transposed patches, of images of
    one shape, and matrices that fit."""
    a, b = pairs[0]
    if type(a) is np.ndarray or len(pairs) > 2:
        return False
    tasks, _, inner = a.shape
    matrices = (tasks,) if isinstance(a, PatchesTransposed) else (1, tasks)
    fit = all(
        type(each) is type(a)
        and each.shape == a.shape
        and each.geometry == a.geometry
        and matrix.ndim == 3
        and len(matrix) in matrices
        and matrix.shape[1:] == (inner, b.shape[2])
        for each, matrix in pairs
    )
    return fit and (
        shift is None or (shift.shape[1:] == (b.shape[2],) and len(shift) in (1, tasks))
    )


def patches_transpose(
    *pairs: tuple[np.ndarray, np.ndarray], image_shape: tuple[int, ...], kernel: int, stride: int
) -> np.ndarray:
    """S^T of some rows of the product, while the rows are in the cache."""
    (dy, W), (dy_two, V) = _two(pairs)
    dtype, place = dy.dtype, geometry(image_shape, kernel, stride)
    tasks, examples, height, width, channels = image_shape
    count, address = len(pairs), gemm_address(dtype)
    windows, taps = examples * place.high * place.wide, kernel * kernel * channels
    for a, b in pairs:
        if a.shape[:2] != (tasks, windows) or b.shape[:2] not in ((1, taps), (tasks, taps)):
            raise ShapeError(
                f"patches_transpose expects A ({tasks}, {windows}, K) and B (1 or {tasks}, {taps}, "
                f"K), got {a.shape} and {b.shape}"
            )
        if a.shape[2:] != b.shape[2:]:
            raise ShapeError(f"A and B must have as many columns, got {a.shape} and {b.shape}")
    x = np.empty((tasks, examples, height, width * channels), dtype)
    given = _rows(dy), _matrices(W), _rows(dy_two), _matrices(V)
    _convolve_transpose(dtype, address, count, *given, x, *place)
    return x.reshape(image_shape)


def _two(pairs: Sequence[tuple]) -> Sequence[tuple]:
    """The one or two pairs as two; compiled code does not look at a second that
    is not there."""
    return pairs if len(pairs) == 2 else (*pairs, *pairs)


def _matrices(b: np.ndarray) -> np.ndarray:
    """``b`` with contiguous matrices."""
    rows_are = b.strides[2] == b.itemsize and b.strides[1] == b.shape[2] * b.itemsize
    return b if rows_are else np.ascontiguousarray(b)


@helper
def _gather(x, seen, first, channels, kernel, stride, top, left, high, wide):
    """The patches of some rows of windows, of which ``first`` is the first.

    ``x: (N, height, width * C)`` and ``seen: (rows * wide, kernel^2 C)``.
    """
    height, line = x.shape[1:]
    run, zero = kernel * channels, x.dtype.type(0)
    for g in range(seen.shape[0] // wide):
        n, r = (first + g) // high, (first + g) % high
        for i in range(kernel):
            row = r * stride + i - top
            inside = 0 <= row < height
            for q in range(wide):
                into = seen[g * wide + q, i * run : (i + 1) * run]
                start = (q * stride - left) * channels
                if not inside or start < 0 or start + run > line:
                    for m in range(run):
                        at = start + m
                        into[m] = x[n, row, at] if inside and 0 <= at < line else zero
                elif run < 16:  # too short for a copy of its own
                    for m in range(run):
                        into[m] = x[n, row, start + m]
                else:
                    source = x[n, row, start : start + run]
                    for m in range(run):
                        into[m] = source[m]


@helper
def _scatter(seen, x, first, channels, kernel, stride, top, left, high, wide):
    """Add to x what ``_gather`` took from it."""
    height, line = x.shape[1:]
    run = kernel * channels
    for g in range(seen.shape[0] // wide):
        n, r = (first + g) // high, (first + g) % high
        for i in range(kernel):
            row = r * stride + i - top
            if row < 0 or row >= height:
                continue
            for q in range(wide):
                start = (q * stride - left) * channels
                low, stop = max(0, -start), min(run, line - start)
                source = seen[g * wide + q, i * run + low : i * run + stop]
                into = x[n, row, start + low : start + stop]
                for m in range(stop - low):
                    into[m] += source[m]


@helper
def _rows_together(lines, wide):
    """How many rows of windows are gathered for one product."""
    return max(1, min(lines, ROWS // wide))


@compiles(
    "in t[:, :, :, ::1]", "t[:, :, ::1]", "intp", "intp", "intp", "intp", "intp", "intp", "intp"
)
def _all_patches(x, seen, channels, kernel, stride, top, left, high, wide):
    for t in range(x.shape[0]):
        _gather(x[t], seen[t], 0, channels, kernel, stride, top, left, high, wide)


@compiles(
    "intp",
    "intp",
    "in t[:, :, :, ::1]",
    "in t[:, :, :]",
    "in t[:, :, :, ::1]",
    "in t[:, :, :]",
    "in t[:, :]",
    "t[:, :, ::1]",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
)
def _convolve(
    address, count, x, W, z, V, shift, y, channels, kernel, stride, top, left, high, wide
):
    """y = (S x) W + 1 shift^T, and + (S z) V where ``count`` is 2."""
    lines, width = x.shape[1] * high, kernel * kernel * channels
    together = _rows_together(lines, wide)
    seen = np.empty((together * wide, width), y.dtype)
    constant = np.empty(y.shape[2], y.dtype)
    for t in range(y.shape[0]):
        fill(shift, t, constant)
        for first in range(0, lines, together):
            stop = min(first + together, lines)
            rows, block = y[t, first * wide : stop * wide], seen[: (stop - first) * wide]
            for p in range(rows.shape[0]):
                for c in range(rows.shape[1]):
                    rows[p, c] = constant[c]
            _gather(x[t], block, first, channels, kernel, stride, top, left, high, wide)
            gemm(address, False, False, block, of_task(W, t), 1, rows)
            if count == 2:
                _gather(z[t], block, first, channels, kernel, stride, top, left, high, wide)
                gemm(address, False, False, block, of_task(V, t), 1, rows)


_convolved = helper(_convolve.function)


@compiles(
    "intp",
    "intp",
    "in t[:, :, :, ::1]",
    "in t[:, :, ::1]",
    "in t[:, :, :, ::1]",
    "in t[:, :, ::1]",
    "t[:, :, ::1]",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
)
def _correlate(address, count, x, dy, z, dz, dW, channels, kernel, stride, top, left, high, wide):
    """dW = (S x)^T dy, and + (S z)^T dz where ``count`` is 2."""
    lines, width = x.shape[1] * high, kernel * kernel * channels
    together = _rows_together(lines, wide)
    seen = np.empty((together * wide, width), dW.dtype)
    for t in range(dW.shape[0]):
        dW[t] = 0
        for first in range(0, lines, together):
            stop = min(first + together, lines)
            rows, block = slice(first * wide, stop * wide), seen[: (stop - first) * wide]
            _gather(x[t], block, first, channels, kernel, stride, top, left, high, wide)
            gemm(address, True, False, block, dy[t, rows], 1, dW[t])
            if count == 2:
                _gather(z[t], block, first, channels, kernel, stride, top, left, high, wide)
                gemm(address, True, False, block, dz[t, rows], 1, dW[t])


@compiles(
    "intp",
    "intp",
    "in t[:, :, ::1]",
    "in t[:, :, :]",
    "in t[:, :, ::1]",
    "in t[:, :, :]",
    "t[:, :, :, ::1]",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
    "intp",
)
def _convolve_transpose(
    address, count, dy, W, dz, V, x, channels, kernel, stride, top, left, high, wide
):
    """x = S^T (dy W^T), and + S^T (dz V^T) where ``count`` is 2.

    With stride 1 it is itself a convolution: pixel p of x meets the windows
    that see p, each with the tap that sees it. These windows are those around
    p, and their taps stand in the opposite order.
    """
    if stride == 1 and dy.shape[2] == dz.shape[2]:
        outputs = dy.shape[2]
        none, around = (
            np.zeros((1, channels), x.dtype),
            (dy.shape[0], x.shape[1], high, wide * outputs),
        )
        above, beside = dy.reshape(around), dz.reshape(around)
        pixels = x.reshape(x.shape[0], x.shape[1] * high * wide, channels)
        turned = _turned(W, kernel, channels)
        other = _turned(V, kernel, channels) if count == 2 else turned
        _convolved(
            address, count, above, turned, beside, other, none, pixels,
            outputs, kernel, 1, kernel - 1 - top, kernel - 1 - left, high, wide,
        )  # fmt: skip
        return
    lines, width = x.shape[1] * high, kernel * kernel * channels
    together = max(1, min(lines, BLOCK // max(1, wide * width * x.itemsize)))
    seen = np.empty((together * wide, width), x.dtype)
    for t in range(x.shape[0]):
        x[t] = 0
        for first in range(0, lines, together):
            stop = min(first + together, lines)
            rows, block = slice(first * wide, stop * wide), seen[: (stop - first) * wide]
            gemm(address, False, True, dy[t, rows], of_task(W, t), 0, block)
            if count == 2:
                gemm(address, False, True, dz[t, rows], of_task(V, t), 1, block)
            _scatter(block, x[t], first, channels, kernel, stride, top, left, high, wide)


@helper
def _turned(W, kernel, channels):
    """W with its taps in the opposite order, and each tap transposed."""
    taps, outputs = kernel * kernel, W.shape[2]
    turned = np.empty((W.shape[0], taps * outputs, channels), W.dtype)
    for t in range(W.shape[0]):
        for tap in range(taps):
            for o in range(outputs):
                into = turned[t, (taps - 1 - tap) * outputs + o]
                for c in range(channels):
                    into[c] = W[t, tap * channels + c, o]
    return turned


@compiles("in t[:, :]", "t[:, :, ::1]")
def _add_shift(shift, y):
    tasks, count, channels = y.shape
    constant = np.empty(channels, y.dtype)
    for t in range(tasks):
        fill(shift, t, constant)
        for p in range(count):
            for c in range(channels):
                y[t, p, c] += constant[c]


# Inner rules.


def sgd_update(phi: np.ndarray, g: np.ndarray, rate: float) -> np.ndarray:
    """One pass."""
    after = np.empty(g.shape, g.dtype)
    _sgd(g.dtype, _vectors(phi), _vectors(g), _vectors(after), rate)
    return after


def adam_update(
    phi: np.ndarray,
    g: np.ndarray,
    m: np.ndarray | None,
    v: np.ndarray | None,
    rate: float,
    beta1: float,
    beta2: float,
    c1: float,
    c2: float,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One pass."""
    if m is None or v is None:
        m = v = np.zeros((1, g.shape[-1]), g.dtype)
    m_after = g if beta1 == 0 else np.empty(g.shape, g.dtype)
    after, v_after = np.empty(g.shape, g.dtype), np.empty(g.shape, g.dtype)
    given = [_vectors(each) for each in (phi, g, m, v)]
    made = [_vectors(each) for each in (after, m_after if beta1 else after, v_after)]
    _adam(g.dtype, *given, *made, rate, beta1, beta2, 1 / c1, 1 / c2, eps)
    return after, m_after, v_after


def _vectors(a: np.ndarray) -> np.ndarray:
    """``(D,) or (T, D)`` as ``(T or 1, D)``, contiguous."""
    return contiguous(a if a.ndim == 2 else a[None])


@compiles("in t[:, ::1]", "in t[:, ::1]", "t[:, ::1]", "f8")
def _sgd(phi, g, after, rate):
    step = g.real.dtype.type(rate)
    for t in range(g.shape[0]):
        p = of_task(phi, t)
        for d in range(g.shape[1]):
            after[t, d] = p[d] - step * g[t, d]


@compiles(
    "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]", "in t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
    "t[:, ::1]", "f8", "f8", "f8", "f8", "f8", "f8",
)  # fmt: skip
def _adam(phi, g, m, v, after, m_after, v_after, rate, beta1, beta2, by_c1, by_c2, eps):
    real = g.real.dtype.type
    kept, added, correction = real(beta2), real(1 - beta2), real(by_c2)
    step, small, by_c1 = real(rate), real(eps), real(by_c1)
    for t in range(g.shape[0]):
        p, w = of_task(phi, t), of_task(v, t)
        if beta1 == 0:
            for d in range(g.shape[1]):
                square = kept * w[d] + added * g[t, d] * g[t, d]
                v_after[t, d] = square
                after[t, d] = p[d] - step * (g[t, d] / (np.sqrt(square * correction) + small))
        else:
            before, kept1, added1 = of_task(m, t), real(beta1), real(1 - beta1)
            for d in range(g.shape[1]):
                square = kept * w[d] + added * g[t, d] * g[t, d]
                first = kept1 * before[d] + added1 * g[t, d]
                v_after[t, d] = square
                m_after[t, d] = first
                root = np.sqrt(square * correction) + small
                after[t, d] = p[d] - step * (first * by_c1 / root)


def _rows(a: np.ndarray) -> np.ndarray:
    """``(T, ..., C)`` as contiguous rows, ``(T, P, C)``."""
    if a.ndim != 3:
        a = a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])
    return contiguous(a)


def _flat(a: np.ndarray) -> np.ndarray:
    """All numbers on one axis."""
    return contiguous(a).reshape(-1)
