"""Array operations that several derivations share and that decide the speed.

Each has one definition in plain array expressions. The definition is its
meaning, and it runs wherever nothing faster is there. Many have twins. On the
host a twin is compiled by Numba and makes fewer passes over memory
(host_kernels.py). On CuPy it starts fewer kernels of the device, each of which
costs its start before it computes anything (device_kernels.py). A kernel takes
real and complex arrays of NumPy or CuPy, keeps their dtype, and leaves its
inputs as they are.

Arrays are ``(T, ..., C)``: T tasks on the first axis, C channels on the last. A
row is the C numbers of one example, or of one pixel of an example; P rows
belong to a task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from . import device_kernels
from .backend import Array, array_module
from .compiled import DTYPES, fast
from .elementwise import compiles_kernels, elementwise
from .rows import rows_together
from .windows import Windows

# NumPy broadcasts row by row, and rows of more than 4096 numbers up to twice as
# fast. Arrays of at least _LARGE numbers are worth making their rows that long.
_LARGE, _LONG_ROW = 1 << 16, 6144


def channel_sums(a: Array) -> Array:
    """Sum over the rows, ``(T, ..., C) -> (T, C)``: 1^T a for each task.

    It is a matrix product because BLAS sums columns at the speed of memory.
    NumPy's own reduction over a middle axis is five times slower.
    """
    if twin := _twin(a):
        return twin.channel_sums(a)
    if a.ndim != 3:
        a = a.reshape(a.shape[0], math.prod(a.shape[1:-1]), a.shape[-1])
    return (_ones(a) @ a)[:, 0]


def channel_means(a: Array) -> Array:
    """Mean over the rows, ``(T, ..., C) -> (T, C)``."""
    if twin := _twin(a):
        return twin.channel_means(a)
    return channel_sums(a) / math.prod(a.shape[1:-1])


def channel_dots(a: Array, b: Array) -> Array:
    """Sum of a o b over the rows, ``(T, ..., C) -> (T, C)``."""
    if a.shape == b.shape and (twin := _twin(a, b)):
        return twin.channel_dots(a, b)
    return channel_sums(a * b)


def channel_combination(*terms: tuple[float | Array, Array], shift: Array | None = None) -> Array:
    """sum_i f_i o a_i + shift, a new array, for the ``terms`` (f_i, a_i).

    The arrays ``a_i`` have one shape, ``(T, ..., C)``. A factor f_i is
    ``(T or 1, C)``, one number a channel, or one Python number for all; the
    number 1 costs no product. ``shift`` is ``(T or 1, C)``.
    """
    shape = terms[0][1].shape
    fit = _of_channels(shift, shape) and all(
        a.shape == shape and _of_channels(factor, shape) for factor, a in terms
    )
    given = terms[0][1], *(each for term in terms for each in term), shift
    if fit and (twin := _twin(*given)):
        return twin.channel_combination(*terms, shift=shift)
    count, channels = math.prod(shape[1:-1]), shape[-1]
    together = _together(count, channels)
    long = (shape[0], count // together, together * channels)
    total, ours = None, False
    for factor, a in terms:
        number = isinstance(factor, (int, float))
        term, product = a.reshape(long), not (number and factor == 1)
        if product:
            term = term * (factor if number else _repeated(factor, together))
        if total is None:
            total, ours = term, product
        else:
            total, ours = _plus(total, term, ours), True
    if shift is not None:
        total = _plus(total, _repeated(shift, together), ours)
    elif not ours:
        total = total.copy()
    return total.reshape(shape)


def product_sum(*pairs: tuple[Array, Array], shift: Array | None = None) -> Array:
    """sum_i A_i B_i + 1 shift^T, a new array, for the ``pairs`` (A_i, B_i).

    The matrices are ``A_i: (T or 1, P, K_i)`` and ``B_i: (T or 1, K_i, C)``,
    whose products all have the shape of the result, ``(T or 1, P, C)``.
    ``shift`` is ``(T or 1, C)``, of a dtype that the first product can hold.
    The shift is added to the first product, and the others follow in their
    order: the order of a sum decides its last bit. Where K_i = 1 a product is
    an outer product, which broadcasting does three times faster.
    """
    if twin := _twin(*(each for pair in pairs for each in pair), shift):
        return twin.product_sum(*pairs, shift=shift)
    total = None
    for a, b in pairs:
        term = a * b if a.shape[-1] == 1 else a @ b
        if total is None:
            total = term if shift is None else _shifted(term, shift)
        else:
            total = _plus(total, term, True)
    return total


def patches(x: Array, kernel: int, stride: int) -> Array:
    """S x: the ``kernel`` x ``kernel`` pixels that each output pixel sees.

    ``x: (T, N, height, width, C)``; the result is
    ``(T, N h w, kernel * kernel * C)`` with h = ceil(height / stride) and
    w = ceil(width / stride). A row holds one window, pixel by pixel. S is a 0/1
    selection, so S x is linear in x. Zeros surround the image as in
    TensorFlow's "same" padding: just enough for the last window, an odd row
    below, an odd column to the right. With Numba the result is built where
    ``product_sum`` needs it, from x, which must not change until then.
    """
    if twin := _twin(x):
        return twin.patches(x, kernel, stride)
    xp = array_module(x)
    padded, inside, (high, wide) = _padded_zeros(x.shape, x.dtype, kernel, stride, xp)
    padded[inside] = x
    t, n, h, w, c = padded.strides
    windows = xp.lib.stride_tricks.as_strided(
        padded,
        (*x.shape[:2], high, wide, kernel, kernel, x.shape[4]),
        (t, n, h * stride, w * stride, h, w, c),
    )
    return windows.reshape(x.shape[0], x.shape[1] * high * wide, kernel * kernel * x.shape[4])


def patches_transpose(
    *pairs: tuple[Array, Array], image_shape: tuple[int, ...], kernel: int, stride: int
) -> Array:
    """S^T sum_i A_i B_i^T, with the S of ``patches``.

    S^T adds each entry of a patch back to its pixel. ``image_shape`` is the
    shape of x, ``(T, N, height, width, C)``, and of the result.
    ``A_i: (T, N h w, K_i)`` and ``B_i: (T or 1, kernel * kernel * C, K_i)``.
    The sum over i is one product, [A_1 A_2 ...] [B_1 B_2 ...]^T. It is computed
    tap by tap, because all patches at once are nine times an image, and outgrow
    the caches.
    """
    fit = len(pairs) <= 2 and all(len(a) == image_shape[0] for a, _ in pairs)
    if fit and (twin := _twin(*(each for pair in pairs for each in pair))):
        return twin.patches_transpose(*pairs, image_shape=image_shape, kernel=kernel, stride=stride)
    a, b = (beside(each) for each in zip(*pairs, strict=True))
    b = b.reshape(b.shape[0], kernel, kernel, image_shape[4], -1)
    dtype = np.promote_types(a.dtype, b.dtype)
    padded, inside, (high, wide) = _padded_zeros(
        image_shape, dtype, kernel, stride, array_module(a)
    )
    for i in range(kernel):
        for j in range(kernel):
            down = slice(i, i + high * stride, stride)
            right = slice(j, j + wide * stride, stride)
            seen = padded[:, :, down, right]
            seen += (a @ b[:, i, j].swapaxes(1, 2)).reshape(seen.shape)
    return padded[inside]


def beside(parts: Sequence[Array]) -> Array:
    """[A_1 A_2 ...], arrays side by side along the last axis.

    All other axes are equal, but the first of some may be 1 where that of
    others is T: these count T times.
    """
    if compiles_kernels(parts[0]):
        return device_kernels.beside(parts)
    if len(parts) == 1:
        return parts[0]
    xp, tasks = array_module(parts[0]), set(map(len, parts))
    if len(tasks) > 1:
        parts = [xp.broadcast_to(each, (max(tasks), *each.shape[1:])) for each in parts]
    return xp.concatenate(parts, axis=-1)


def masked(a: Array, mask: Array) -> Array:
    """M a, with M the diagonal 0/1 matrix of the boolean ``mask``.

    ``mask`` has the shape of a. A product is faster than a choice, and it lets
    NaN through.
    """
    fit = a.shape == mask.shape and mask.dtype == bool
    if fit and (twin := _host_twin(a)):
        return twin.masked(a, mask)
    return a * mask


def dots_and_sums(a: Array, b: Array) -> tuple[Array, Array]:
    """The sums of a o b and of a over the rows, each ``(T, C)``."""
    if a.shape == b.shape and (twin := _host_twin(a, b)):
        return twin.dots_and_sums(a, b)
    return channel_dots(a, b), channel_sums(a)


def centred(x: Array, other: Array | None = None) -> tuple[Array, Array]:
    """u = x - 1 mean(x)^T, and the sum of u o ``other`` over the rows.

    ``other`` has the shape of x. None stands for u itself.
    """
    u = channel_combination((1, x), shift=-channel_means(x))
    return u, channel_dots(u, u if other is None else other)


def pair_maxima(x: Array, axis: int) -> tuple[Array, Array]:
    """The larger, by real part, of each pair of neighbours along ``axis``.

    Returns y and the boolean ``second``: where the second of a pair is the
    larger. Of equal ones the first is taken. The last of an odd number has no
    partner, and is kept. NaN is larger than everything. y has ceil(n / 2)
    entries along ``axis``, and ``second`` has floor(n / 2), for the n of x.
    """
    xp, (one, other, rest) = array_module(x), _pairs(x, axis)
    second = other.real > one.real
    # The maximum of complex numbers compares the imaginary parts of a tie. That
    # of real numbers is far faster than a choice.
    larger = (
        xp.where(second | (other != other), other, one)
        if x.dtype.kind == "c"
        else xp.maximum(one, other)
    )
    return _then(larger, rest, axis), second


def pair_selection(second: Array, x: Array, axis: int) -> Array:
    """P x: the second of each pair along ``axis`` where ``second``, else the
    first.

    The last of an odd number is kept, as in ``pair_maxima``.
    """
    one, other, rest = _pairs(x, axis)
    y = one * ~second
    y += other * second
    return _then(y, rest, axis)


def pair_selection_transpose(second: Array, dy: Array, axis: int) -> Array:
    """P^T dy: each value to the selected one of its pair, zero to the other."""
    xp, pairs = array_module(dy), second.shape[axis]
    shape = (*dy.shape[:axis], dy.shape[axis] + pairs, *dy.shape[axis + 1 :])
    dx = xp.empty(shape, dtype=dy.dtype)
    one, other, rest = _pairs(dx, axis)
    before = (slice(None),) * axis
    of_pairs = dy[(*before, slice(pairs))]
    xp.multiply(of_pairs, second, out=other)
    xp.subtract(of_pairs, other, out=one)
    rest[...] = dy[(*before, slice(pairs, None))]
    return dx


def sgd_update(phi: Array, g: Array, rate: float | Array) -> Array:
    """phi - rate o g, for ``phi: (D,) or (T, D)`` and ``g: (T, D)``.

    ``rate`` is a number or broadcasts against ``(T, D)``.
    """
    fit = isinstance(rate, (int, float)) and _are_rows(g, phi)
    if fit and (twin := _host_twin(g, phi)):
        return twin.sgd_update(phi, g, rate)
    return phi - rate * g


@elementwise
def adam_moments(
    g: Array, m: Array | None, v: Array | None, beta1: float, beta2: float
) -> tuple[Array, Array]:
    """Adam's moments after the gradient ``g: (T, D)``.

        m' = beta1 m + (1 - beta1) g,  v' = beta2 v + (1 - beta2) g^2.

    ``m, v: (D,) or (T, D)`` are both None before the first step, where they
    count as zero. Where beta1 = 0, m' is g itself. Returns ``m', v'``, each
    ``(T, D)``.
    """
    square = (1 - beta2) * g * g
    if m is None or v is None:
        return g if beta1 == 0 else (1 - beta1) * g, square
    return g if beta1 == 0 else beta1 * m + (1 - beta1) * g, beta2 * v + square


def _adam_twin(phi: Array, g: Array, m: Any, v: Any, rate: Any, *_: float) -> Any:
    fit = isinstance(rate, (int, float)) and _are_rows(g, phi, m, v)
    twin = _host_twin(g, phi, m, v) if fit else None
    return twin and twin.adam_update


@elementwise(twin=_adam_twin)
def adam_update(
    phi: Array,
    g: Array,
    m: Array | None,
    v: Array | None,
    rate: float | Array,
    beta1: float,
    beta2: float,
    c1: float,
    c2: float,
    eps: float,
) -> tuple[Array, Array, Array]:
    """One step of Adam from ``phi: (D,) or (T, D)``, after ``adam_moments``.

        phi' = phi - rate o (m' / c1) / (sqrt(v' / c2) + eps).

    ``c1 = 1 - beta1^t`` and ``c2 = 1 - beta2^t`` correct the bias of step t,
    which counts from 1. ``rate`` is a number or broadcasts against ``(T, D)``.
    Returns ``phi', m', v'``, each ``(T, D)``.
    """
    m, v = adam_moments(g, m, v, beta1, beta2)
    root = array_module(v).sqrt(v * (1 / c2))
    root += eps
    return phi - rate * ((m if c1 == 1 else m / c1) / root), m, v


# Compiled functions do not look at shapes, so only arrays that fit reach them.
# The others are broadcast, or refused, by the plain expressions.


def _of_channels(v: float | Array | None, shape: tuple[int, ...]) -> bool:
    """Whether ``v`` is a number, None, or one number a channel,
    ``(T or 1, C)``."""
    if v is None or isinstance(v, (int, float)):
        return True
    return v.ndim == 2 and v.shape[1] == shape[-1] and v.shape[0] in (1, shape[0])


def _are_rows(g: Array, *others: Array | None) -> bool:
    """Whether g is ``(D,) or (T, D)``, and each of the others is ``(D,)`` or of
    the shape of g."""
    if g.ndim not in (1, 2):
        return False
    return all(
        each is None or each.shape == g.shape or each.shape == g.shape[-1:] for each in others
    )


def _twin(*given: Any) -> ModuleType | None:
    """The module of the twins that take the arrays in ``given``; None where
    there is none."""
    return _host_twin(*given) or (device_kernels if compiles_kernels(given[0]) else None)


def _host_twin(*given: Any) -> ModuleType | None:
    """The module of the compiled twins, if they take the arrays in ``given``:
    of one dtype, on the host.

    The first is an array. The others may also be numbers and None.
    """
    if not fast():
        return None
    twin, dtype = _host_kernels(), given[0].dtype
    for each in given:
        kind = type(each)
        if kind is np.ndarray or kind in twin.TAKEN:
            if each.dtype is not dtype and each.dtype != dtype:
                return None
        elif each is not None and kind is not float and kind is not int:
            return None
    return twin if dtype in DTYPES else None


def has_twins(*arrays: Array) -> bool:
    """Whether compiled twins take ``arrays``: of one dtype, on the host, with
    Numba."""
    return _host_twin(*arrays) is not None


def alike(*arrays: Array) -> tuple[Array, ...]:
    """The arrays in one dtype that has twins: complex where one of them carries
    a complex step, and double where none is as wide as the widest."""
    dtype = arrays[0].dtype
    if all(each.dtype == dtype for each in arrays):
        return arrays
    common = np.result_type(*arrays)
    if common not in DTYPES:
        common = np.dtype(np.complex128 if common.kind == "c" else np.float64)
    return tuple(each.astype(common, copy=False) for each in arrays)


@cache
def perceptron() -> ModuleType:
    """The passes of Dense layers with ReLU between them, for arrays that have
    twins. The layers one by one are their plain definition."""
    from . import host_perceptron

    return host_perceptron


@cache
def normalization() -> ModuleType:
    """The passes of BatchNorm and ReLU, for arrays that have twins. The layers
    one by one are their plain definition."""
    from . import host_norm

    return host_norm


@cache
def convnet() -> ModuleType:
    """The passes of convolutions with BatchNorm and ReLU, for arrays that have
    twins. The layers one by one are their plain definition."""
    from . import host_convnet

    return host_convnet


@cache
def _host_kernels() -> ModuleType:
    from . import host_kernels  # imports Numba, in a fifth of a second

    return host_kernels


def _ones(a: Array) -> Array:
    """1^T as a matrix, ``(1, P)``, for ``a: (T, P, C)``.

    On the host it is made once, because it costs as much as its product with a
    small array.
    """
    if isinstance(a, np.ndarray):
        return _ones_on_host(a.shape[1], a.dtype)
    return array_module(a).ones((1, a.shape[1]), dtype=a.dtype)


@lru_cache
def _ones_on_host(count: int, dtype: Any) -> np.ndarray:
    ones = np.ones((1, count), dtype)
    ones.flags.writeable = False
    return ones


def _together(count: int, channels: int) -> int:
    """How many rows to take as one long row."""
    return 1 if count * channels < _LARGE else rows_together(count, channels, _LONG_ROW)


def _repeated(v: Array, together: int) -> Array:
    """One number a channel, ``(T or 1, C)``, for ``together`` rows in one."""
    v = v[:, None]
    if together == 1:
        return v
    copies = (v.shape[0], together, v.shape[2])
    return array_module(v).broadcast_to(v, copies).reshape(v.shape[0], 1, -1)


def _shifted(total: Array, shift: Array) -> Array:
    """total + 1 shift^T, in the place of ``total: (T or 1, P, C)``."""
    if total.size < _LARGE:
        total += shift[:, None]
        return total
    together = _together(*total.shape[1:])
    long = total.reshape(total.shape[0], -1, together * total.shape[2])
    long += _repeated(shift, together)
    return long.reshape(total.shape)


def _plus(total: Array, term: Array, ours: bool) -> Array:
    """total + term, in the place of ``total`` if it is ``ours`` and can hold
    it."""
    if ours and total.dtype == term.dtype:
        total += term
        return total
    return total + term


def _padded_zeros(shape, dtype, kernel, stride, xp):
    """Padded zeros, the place of the image in them, and the number of
    windows."""
    tasks, examples, *sizes, channels = shape
    windows = Windows(tuple(sizes), kernel, stride)
    padded = (size + zeros for size, zeros in zip(sizes, windows.padding, strict=True))
    inside = (slice(at, at + size) for size, at in zip(sizes, windows.before, strict=True))
    zeros = xp.zeros((tasks, examples, *padded, channels), dtype=dtype)
    return zeros, (slice(None), slice(None), *inside), windows.counts


def _pairs(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Views of the first and the second of each pair, and of the rest.

    The rest is the last of an odd number along ``axis``, or nothing.
    """
    before, pairs = (slice(None),) * axis, x.shape[axis] // 2
    one, other = x[(*before, slice(0, 2 * pairs, 2))], x[(*before, slice(1, None, 2))]
    return one, other, x[(*before, slice(2 * pairs, None))]


def _then(y: Array, rest: Array, axis: int) -> Array:
    """``y`` followed by ``rest`` along ``axis``."""
    return array_module(y).concatenate([y, rest], axis=axis) if rest.shape[axis] else y
