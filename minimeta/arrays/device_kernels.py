"""The kernels that are written for a device, in C++ for CuPy.

Each is the twin of the function of its name in kernels.py, which defines it and
alone calls it. The sizes of an image stand in the text of a kernel, because a
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
from .windows import Windows

MOST_BESIDE = 32  # arrays of one kernel, whose arguments must fit 4096 bytes


def channel_dots(a: Array, b: Array) -> Array:
    """sum_p a_tpc b_tpc, ``(T, P, C)`` twice to ``(T, C)``."""
    return _dots(array_module(a))(a, b, axis=1)


@lru_cache
def _dots(xp: ModuleType) -> Any:
    return xp.ReductionKernel(
        "T x, T z", "T y", "x * z", "a + b", "y = a", "0", "minimeta_channel_dots"
    )


def patches(x: Array, kernel: int, stride: int) -> Array:
    """The pixel that each entry of a patch sees, or zero in the padding."""
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


def patches_transpose(seen: Array, image_shape: tuple[int, ...], kernel: int, stride: int) -> Array:
    """Each pixel's sum over the entries of ``seen`` that see the pixel."""
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
    """[A_1 A_2 ...]: CuPy's ``concatenate`` copies a table of the arrays to the
    device first."""
    xp = array_module(parts[0])
    if len(parts) > MOST_BESIDE:
        some = range(0, len(parts), MOST_BESIDE)
        return beside([beside(parts[i : i + MOST_BESIDE]) for i in some])
    if len({each.dtype for each in parts}) > 1 or len(parts) == 1:
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
