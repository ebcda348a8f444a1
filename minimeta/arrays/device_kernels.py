"""The twins of kernels.py on a device, in few kernels of CuPy.

Each computes what the function of its name in kernels.py says. Some are written
in C++. The sizes of an image stand in the text of a kernel, because a
compiler divides by a known number several times faster. Numbers inside an image
are 32 bits wide, those of an element of an array 64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any

from .backend import Array, array_module
from .elementwise import elementwise
from .windows import Windows

MOST_BESIDE = 32  # arrays of one kernel, whose arguments must fit 4096 bytes


def channel_sums(a: Array) -> Array:
    """One sum. A product with ones has to fill the ones first."""
    return _rows(a).sum(axis=1)


def channel_means(a: Array) -> Array:
    """One sum, divided at its end."""
    return _rows(a).mean(axis=1)


def channel_dots(a: Array, b: Array) -> Array:
    """One sum, of products that are nowhere stored."""
    if a.dtype != b.dtype:
        return channel_sums(a * b)
    return _dots(array_module(a))(_rows(a), _rows(b), axis=1)


@lru_cache
def _dots(xp: ModuleType) -> Any:
    return xp.ReductionKernel(
        "T x, T z", "T y", "x * z", "a + b", "y = a", "0", "minimeta_channel_dots"
    )


def channel_combination(*terms: tuple[float | Array, Array], shift: Array | None = None) -> Array:
    """One expression of all terms."""
    (first, a), *others = terms
    if shift is None and not others and isinstance(first, (int, float)) and first == 1:
        return a.copy()
    given = []
    for factor, each in terms:
        number = isinstance(factor, (int, float))
        given += [factor if number else factor[:, None], _rows(each)]
    return _combination(None if shift is None else shift[:, None], *given).reshape(a.shape)


@elementwise
def _combination(shift: Array | None, *given: float | Array) -> Array:
    """f_1 o a_1 + f_2 o a_2 + ... + shift, for f_1, a_1, f_2, a_2, ..."""
    total = None
    for factor, a in zip(given[::2], given[1::2], strict=True):
        total = a * factor if total is None else total + a * factor
    return total if shift is None else total + shift


def product_sum(*pairs: tuple[Array, Array], shift: Array | None = None) -> Array:
    """A product and a sum each."""
    total = None
    for a, b in pairs:
        term = _product(a, b)
        if total is None:
            total = term
            if shift is not None:
                total += shift[:, None]
        elif total.dtype == term.dtype:
            total += term
        else:
            total = total + term
    return total


def _product(a: Array, b: Array) -> Array:
    """A B. For matrices that tasks share CuPy looks up the place of each task's
    matrix, in three further kernels; one tall matrix shares B for nothing."""
    if a.shape[-1] == 1:
        return a * b
    if b.shape[0] == 1 < a.shape[0]:
        return (a.reshape(-1, a.shape[2]) @ b[0]).reshape(*a.shape[:2], b.shape[2])
    return a @ b


def patches(x: Array, kernel: int, stride: int) -> Array:
    """Each entry of a patch takes the pixel that it sees, or zero."""
    xp, windows = array_module(x), Windows(x.shape[2:4], kernel, stride)
    tasks, examples, *_, channels = x.shape
    seen = (tasks, examples * math.prod(windows.counts), kernel * kernel * channels)
    y = xp.empty(seen, dtype=x.dtype)
    return _patches(xp, windows, channels)(x, y)


@lru_cache
def _patches(xp: ModuleType, windows: Windows, channels: int) -> Any:
    (height, width), (high, wide) = windows.sizes, windows.counts
    kernel, stride, (top, left) = windows.kernel, windows.stride, windows.before
    text = f"""
        const ptrdiff_t image = i / {high * wide * kernel * kernel * channels};
        int at = i % {high * wide * kernel * kernel * channels};
        const int channel = at % {channels}; at /= {channels};
        const int across = at % {kernel}; at /= {kernel};
        const int down = at % {kernel}; at /= {kernel};
        const int column = at % {wide} * {stride} + across - {left};
        const int row = at / {wide} * {stride} + down - {top};
        const bool inside = row >= 0 && row < {height} && column >= 0 && column < {width};
        const ptrdiff_t pixel = (image * {height} + row) * {width} + column;
        y = inside ? x[pixel * {channels} + channel] : T(0)"""
    return xp.ElementwiseKernel("raw T x", "T y", text, "minimeta_patches")


def patches_transpose(
    *pairs: tuple[Array, Array], image_shape: tuple[int, ...], kernel: int, stride: int
) -> Array:
    """Each pixel adds up the entries of the patches that see it."""
    seen = product_sum(*((a, b.swapaxes(1, 2)) for a, b in pairs))
    xp, windows = array_module(seen), Windows(image_shape[2:4], kernel, stride)
    x = xp.empty(image_shape, dtype=seen.dtype)
    return _patches_transpose(xp, windows, image_shape[4])(seen, x)


@lru_cache
def _patches_transpose(xp: ModuleType, windows: Windows, channels: int) -> Any:
    (height, width), (high, wide) = windows.sizes, windows.counts
    kernel, stride, (top, left) = windows.kernel, windows.stride, windows.before
    text = f"""
        const ptrdiff_t image = i / {height * width * channels};
        int at = i % {height * width * channels};
        const int channel = at % {channels}; at /= {channels};
        const int column = at % {width} + {left}, row = at / {width} + {top};
        T sum = T(0);
        for (int down = row % {stride}; down < {kernel}; down += {stride}) {{
            for (int across = column % {stride}; across < {kernel}; across += {stride}) {{
                const int r = (row - down) / {stride}, c = (column - across) / {stride};
                if (row < down || column < across || r >= {high} || c >= {wide}) continue;
                const ptrdiff_t window = (image * {high} + r) * {wide} + c;
                const int tap = down * {kernel} + across;
                sum += seen[(window * {kernel * kernel} + tap) * {channels} + channel];
            }}
        }}
        x = sum"""
    return xp.ElementwiseKernel("raw T seen", "T x", text, "minimeta_patches_transpose")


def beside(parts: Sequence[Array]) -> Array:
    """Each number of the result takes its own. CuPy's ``concatenate`` copies a
    table of the arrays to the device first."""
    xp, tasks = array_module(parts[0]), max(each.shape[0] for each in parts)
    parts = [xp.broadcast_to(each, (tasks, *each.shape[1:])) for each in parts]
    if len(parts) == 1:
        return parts[0]
    if len(parts) > MOST_BESIDE:
        some = range(0, len(parts), MOST_BESIDE)
        return beside([beside(parts[i : i + MOST_BESIDE]) for i in some])
    if len({each.dtype for each in parts}) > 1:
        return xp.concatenate(parts, axis=-1)
    widths = [each.shape[-1] for each in parts]
    y = xp.empty((*parts[0].shape[:-1], sum(widths)), dtype=parts[0].dtype)
    return _beside(xp, len(parts))(*parts, *widths, y)


@lru_cache
def _beside(xp: ModuleType, count: int) -> Any:
    names = [f"a{part}" for part in range(count)]
    arrays = ", ".join(f"raw T {name}" for name in names)
    widths = ", ".join(f"int64 w{part}" for part in range(count))
    total = " + ".join(f"w{part}" for part in range(count))
    find = " ".join(
        f"if (at < w{part}) {{ y = {name}[row * w{part} + at]; }} else {{ at -= w{part};"
        for part, name in enumerate(names)
    )
    text = f"""
        const ptrdiff_t width = {total}, row = i / width;
        ptrdiff_t at = i % width;
        {find} {"}" * count}"""
    return xp.ElementwiseKernel(f"{arrays}, {widths}", "T y", text, "minimeta_beside")


def _rows(a: Array) -> Array:
    """``(T, ..., C)`` as rows, ``(T, P, C)``."""
    return a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])
