"""The four passes of a convolutional network, each in one call.

The network is blocks of convolution, BatchNorm, a max pooling or none, and
ReLU, then a Dense layer or none. One compiled function takes a task through all
of them, so that the task's numbers are still in the core's cache, and threads
wait for each other at few calls. With a_0 = x, and R_l and the norm of
host_norm.py, for l = 1 .. L,

    v_l = (S_l a_{l-1}) W_l + 1 b_l^T,  a_l = R_l norm(v_l),  y = a_L W + 1 b^T,

and y = a_L without a Dense layer. With e_l = dL/da_l, e_L = dy W^T, and dv_l
the norm's dx for e_l,

    dW_l = (S_l a_{l-1})^T dv_l,  db_l = 1^T dv_l,
    e_{l-1} = S_l^T (dv_l W_l^T),

and dx = e_0. The tangents are the product rule, and those of the norm:

    v_l_dot = (S_l a_{l-1}) W_l_dot + (S_l a_{l-1}_dot) W_l + 1 b_l_dot^T,
    dW_l_dot = (S_l a_{l-1})^T dv_l_dot + (S_l a_{l-1}_dot)^T dv_l,
    e_{l-1}_dot = S_l^T (dv_l_dot W_l^T + dv_l W_l_dot^T).

A row of phi holds W_1, b_1, gamma_1, beta_1, W_2, ..., W, b. Rows of ``a``,
``e`` and ``chosen`` hold a_0, ..., a_L, those of ``v`` hold v_1, ..., v_L, and
those of ``mu`` and ``r`` the channels of all blocks, one after another. The
functions for a task are those of host_kernels.py, host_norm.py and
host_perceptron.py.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..errors import ShapeError
from .compiled import compiles, helper
from .host_blas import gemm_address
from .host_kernels import _convolve, _convolve_transpose, _correlate, _sums, geometry
from .host_norm import (
    backward_of_task,
    backward_tangent_of_task,
    forward_of_task,
    forward_tangent_of_task,
    select_transpose,
)
from .host_perceptron import add_product, affine, column_sums, copy, gradient, pulled
from .host_rows import contiguous, of_task
from .rows import pixels_together
from .windows import pooled_shape

_convolved = helper(_convolve.function)
_correlated = helper(_correlate.function)
_transposed = helper(_convolve_transpose.function)
_summed = helper(_sums.function)


class Block(NamedTuple):
    """The numbers of a convolution and of its norm."""

    channels: int
    outputs: int
    kernel: int
    stride: int
    eps: float
    pooled: bool


class Blocks(NamedTuple):
    """A network: its blocks, and the outputs of its Dense layer, 0 without
    one."""

    blocks: tuple[Block, ...]
    classes: int


class Cache(NamedTuple):
    """What the other passes need of the forward pass."""

    a: np.ndarray
    v: np.ndarray
    mu: np.ndarray
    r: np.ndarray
    chosen: np.ndarray


class CacheDot(NamedTuple):
    """What the last pass needs of the forward tangent."""

    a_dot: np.ndarray
    v_dot: np.ndarray
    mu_dot: np.ndarray
    r_dot: np.ndarray


class _Numbers(NamedTuple):
    """The numbers of a block at images of one shape: the geometry of its
    windows, sizes, and the first places of its numbers in a row."""

    channels: int
    kernel: int
    stride: int
    top: int
    left: int
    high: int
    wide: int
    height: int  # of the images below
    width: int
    rows: int  # of the images above
    columns: int
    outputs: int
    together: int
    pooled: int
    in_phi: int
    below: int
    above: int
    in_v: int
    of_channels: int


class _Plan(NamedTuple):
    """All numbers of a network at images of one shape.

    ``numbers`` has the ``_Numbers`` of each block, and ``epsilons`` its eps.
    The others are the lengths of rows, and the shapes of x and y.
    """

    numbers: np.ndarray
    epsilons: np.ndarray
    in_phi: int
    in_a: int
    in_v: int
    of_channels: int
    x: tuple[int, ...]
    y: tuple[int, ...]


@lru_cache
def _plan(net: Blocks, shape: tuple[int, ...]) -> _Plan:
    """The plan for x of ``shape``, ``(T, N, height, width, C)``."""
    x, (tasks, examples, *_) = shape, shape
    in_phi = below = in_v = of_channels = 0
    numbers = []
    for block in net.blocks:
        place = geometry(shape, block.kernel, block.stride)
        images = tasks, examples, place.high, place.wide, block.outputs
        pooled = pooled_shape(images) if block.pooled else images
        above = below + math.prod(shape[1:])
        sizes = *shape[2:4], *pooled[2:4], block.outputs, pixels_together(images), block.pooled
        numbers.append(_Numbers(*place, *sizes, in_phi, below, above, in_v, of_channels))
        in_phi += (block.kernel**2 * block.channels + 3) * block.outputs
        in_v += math.prod(images[1:])
        of_channels += block.outputs
        shape, below = pooled, above
    features = math.prod(shape[2:])
    in_phi += (features + 1) * net.classes
    y = (tasks, examples, net.classes) if net.classes else shape
    ends = in_phi, below + math.prod(shape[1:]), in_v, of_channels
    epsilons = np.array([each.eps for each in net.blocks])
    return _Plan(np.array(numbers, np.int64), epsilons, *ends, x, y)


def forward(phi: np.ndarray, x: np.ndarray, net: Blocks) -> tuple[np.ndarray, Cache]:
    """y and the cache, for ``x: (T, N, height, width, C)``."""
    plan, tasks, dtype = _plan(net, x.shape), x.shape[0], x.dtype
    _expect(plan, phi=phi)
    a, v = np.empty((tasks, plan.in_a), dtype), np.empty((tasks, plan.in_v), dtype)
    (mu, r), chosen = np.empty((2, tasks, plan.of_channels), dtype), np.empty(a.shape, np.uint8)
    y = np.empty((tasks, math.prod(plan.y[1:])), dtype)
    given = plan.epsilons, contiguous(phi), _flat(x)
    _forward(dtype, *_common(plan, net, dtype), *given, a, v, mu, r, chosen, y)
    return y.reshape(plan.y), Cache(a, v, mu, r, chosen)


def backward(
    phi: np.ndarray,
    cache: Cache,
    dy: np.ndarray,
    net: Blocks,
    shape: tuple[int, ...],
    on_data: bool,
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """dx, or None with ``on_data``; dphi ``(T, D)``; and e. x has ``shape``."""
    plan, dtype = _plan(net, shape), dy.dtype
    _expect(plan, phi=phi, a=cache.a, v=cache.v, mu=cache.mu, r=cache.r, dy=dy)
    e, dphi = np.empty(cache.a.shape, dtype), np.empty((shape[0], plan.in_phi), dtype)
    if on_data:
        _lowest(plan, e)[:] = 0
    given = on_data, contiguous(phi), *cache, _flat(dy)
    _backward(dtype, *_common(plan, net, dtype), *given, e, dphi)
    return None if on_data else _lowest(plan, e).reshape(shape), dphi, e


def forward_tangent(
    phi: np.ndarray,
    phi_dot: np.ndarray,
    cache: Cache,
    x_dot: np.ndarray,
    net: Blocks,
    on_data: bool,
) -> tuple[np.ndarray, CacheDot]:
    """y_dot and the dot of the cache. With ``on_data``, x_dot is zero."""
    plan, dtype = _plan(net, x_dot.shape), x_dot.dtype
    _expect(plan, phi=phi, phi_dot=phi_dot, a=cache.a, v=cache.v, mu=cache.mu, r=cache.r)
    made = [np.empty(each.shape, dtype) for each in cache[:4]]
    y_dot = np.empty((x_dot.shape[0], math.prod(plan.y[1:])), dtype)
    given = on_data, contiguous(phi), contiguous(phi_dot), *cache, _flat(x_dot)
    _forward_tangent(dtype, *_common(plan, net, dtype), *given, *made, y_dot)
    return y_dot.reshape(plan.y), CacheDot(*made)


def backward_tangent(
    phi: np.ndarray,
    phi_dot: np.ndarray,
    cache: Cache,
    cache_dot: CacheDot,
    e: np.ndarray,
    dy: np.ndarray,
    dy_dot: np.ndarray,
    net: Blocks,
    shape: tuple[int, ...],
    on_data: bool,
) -> tuple[np.ndarray | None, np.ndarray]:
    """dx_dot, or None with ``on_data``; and dphi_dot ``(T, D)``."""
    plan, dtype = _plan(net, shape), dy_dot.dtype
    _expect(plan, phi=phi, phi_dot=phi_dot, a=cache.a, v=cache.v, mu=cache.mu, r=cache.r)
    _expect(plan, **cache_dot._asdict(), e=e, dy=dy, dy_dot=dy_dot)
    dphi_dot = np.empty((shape[0], plan.in_phi), dtype)
    e_dot = np.empty((shape[0], 0 if on_data else math.prod(shape[1:])), dtype)
    given = on_data, contiguous(phi), contiguous(phi_dot), *cache, *cache_dot, e
    _backward_tangent(
        dtype, *_common(plan, net, dtype), *given, _flat(dy), _flat(dy_dot), e_dot, dphi_dot
    )
    return None if on_data else e_dot.reshape(shape), dphi_dot


def _common(plan: _Plan, net: Blocks, dtype: np.dtype) -> tuple[int, int, np.ndarray, int]:
    return gemm_address(dtype), plan.x[1], plan.numbers, net.classes


def _expect(plan: _Plan, **given: np.ndarray) -> None:
    """Check arrays against a plan, since compiled functions look at no
    shapes."""
    tasks = plan.x[0]
    lengths = {
        "phi": plan.in_phi,
        "a": plan.in_a,
        "e": plan.in_a,
        "v": plan.in_v,
        "mu": plan.of_channels,
        "r": plan.of_channels,
    }
    for name, each in given.items():
        shape = plan.y if name in ("dy", "dy_dot") else (tasks, lengths[name.removesuffix("_dot")])
        shared = name in ("phi", "phi_dot") and each.shape == (1, plan.in_phi)
        if each.shape != shape and not shared:
            wanted = f"(1 or {tasks}, {plan.in_phi})" if name in ("phi", "phi_dot") else f"{shape}"
            raise ShapeError(f"{name} must have shape {wanted}, got {each.shape}")


def _lowest(plan: _Plan, e: np.ndarray) -> np.ndarray:
    """e_0, in a row a task."""
    return e[:, : math.prod(plan.x[1:])]


def _flat(a: np.ndarray) -> np.ndarray:
    """A row a task, a view of a contiguous array."""
    return contiguous(a).reshape(a.shape[0], math.prod(a.shape[1:]))


# Views of rows.


@helper
def _numbers(plan, block):
    p = plan[block]
    return _Numbers(
        p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13],
        p[14], p[15], p[16], p[17], p[18],
    )  # fmt: skip


@helper
def _images_below(p, examples, row):
    """The images that a block takes, ``(1, N, height, width * C)``."""
    line = p.width * p.channels
    values = row[p.below : p.below + examples * p.height * line]
    return values.reshape(1, examples, p.height, line)


@helper
def _images_above(p, examples, row):
    """The images that a block gives, ``(N, height, width, C)``."""
    size = examples * p.rows * p.columns * p.outputs
    return row[p.above : p.above + size].reshape(examples, p.rows, p.columns, p.outputs)


@helper
def _images_between(p, examples, row):
    """What the norm of a block takes, ``(N, height, width, C)``."""
    size = examples * p.high * p.wide * p.outputs
    return row[p.in_v : p.in_v + size].reshape(examples, p.high, p.wide, p.outputs)


@helper
def _pixels(images):
    """The images of a task as those of one task, ``(1, P, C)``."""
    examples, height, width, channels = images.shape
    return images.reshape(1, examples * height * width, channels)


@helper
def _weight(p, row):
    """W, ``(1, kernel^2 C, outputs)``."""
    taps = p.kernel * p.kernel * p.channels
    return row[p.in_phi : p.in_phi + taps * p.outputs].reshape(1, taps, p.outputs)


@helper
def _bias(p, row):
    """b, ``(1, outputs)``."""
    return _vector(p, row, 0).reshape(1, p.outputs)


@helper
def _vector(p, row, number):
    """b, gamma or beta, by its number from 0."""
    start = p.in_phi + (p.kernel * p.kernel * p.channels + number) * p.outputs
    return row[start : start + p.outputs]


@helper
def _channels(p, row):
    return row[p.of_channels : p.of_channels + p.outputs]


@helper
def _ends(plan, examples, classes, length):
    """The first place of a_L in a row of a, its features, and the first place
    of W in a row of phi."""
    p = _numbers(plan, plan.shape[0] - 1)
    features = p.rows * p.columns * p.outputs
    return p.above, features, length - (features + 1) * classes


# The passes.


@compiles(
    "intp", "intp", "in i8[:, ::1]", "intp", "in f8[::1]", "in t[:, ::1]", "in t[:, ::1]",
    "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "u1[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _forward(address, examples, plan, classes, epsilons, phi, x, a, v, mu, r, chosen, y):
    top, features, head = _ends(plan, examples, classes, phi.shape[1])
    for t in range(x.shape[0]):
        row, values = of_task(phi, t), a[t]
        copy(x[t], values[: x.shape[1]])
        for block in range(plan.shape[0]):
            p = _numbers(plan, block)
            image, weight, between = (
                _images_below(p, examples, values),
                _weight(p, row),
                _images_between(p, examples, v[t]),
            )
            _convolved(
                address, 1, image, weight, image, weight, _bias(p, row), _pixels(between),
                p.channels, p.kernel, p.stride, p.top, p.left, p.high, p.wide,
            )  # fmt: skip
            forward_of_task(
                p.pooled == 1, p.together, _vector(p, row, 1), _vector(p, row, 2), epsilons[block],
                between, _channels(p, mu[t]), _channels(p, r[t]),
                _images_above(p, examples, values), _images_above(p, examples, chosen[t]),
            )  # fmt: skip
        last = values[top:]
        if classes == 0:
            copy(last, y[t])
        else:
            W, b = row[head : head + features * classes], row[head + features * classes :]
            affine(address, examples, features, classes, last, W, b, y[t])


@compiles(
    "intp", "intp", "in i8[:, ::1]", "intp", "b1", "in t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
    "t[:, ::1]", "t[:, ::1]", "u1[:, ::1]", "in t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _backward(
    address, examples, plan, classes, on_data, phi, a, v, mu, r, chosen, dy, e, dphi
):  # fmt: skip
    top, features, head = _ends(plan, examples, classes, phi.shape[1])
    spare = np.empty(v.shape[1], v.dtype)
    for t in range(dy.shape[0]):
        row, into, values, pulls = of_task(phi, t), dphi[t], a[t], e[t]
        if classes == 0:
            copy(dy[t], pulls[top:])
        else:
            W, middle = row[head : head + features * classes], head + features * classes
            last, dW = values[top:], into[head:middle]
            gradient(address, examples, features, classes, last, dy[t], 0, dW)
            column_sums(examples, classes, dy[t], into[middle:])
            pulled(address, examples, features, classes, dy[t], W, 0, pulls[top:])
        for block in range(plan.shape[0] - 1, -1, -1):
            p = _numbers(plan, block)
            images = _images_between(p, examples, spare)
            select_transpose(
                _images_above(p, examples, chosen[t]), _images_above(p, examples, pulls), images
            )
            backward_of_task(
                p.together, _vector(p, row, 1), _images_between(p, examples, v[t]),
                _channels(p, mu[t]), _channels(p, r[t]), images,
                _vector(p, into, 1), _vector(p, into, 2),
            )  # fmt: skip
            dv, image, weight = (
                _pixels(images),
                _images_below(p, examples, values),
                _weight(p, row),
            )
            _correlated(
                address, 1, image, dv, image, dv, _weight(p, into),
                p.channels, p.kernel, p.stride, p.top, p.left, p.high, p.wide,
            )  # fmt: skip
            _summed(dv, _bias(p, into))
            if block > 0 or not on_data:
                _transposed(
                    address, 1, dv, weight, dv, weight, _images_below(p, examples, pulls),
                    p.channels, p.kernel, p.stride, p.top, p.left, p.high, p.wide,
                )  # fmt: skip


@compiles(
    "intp", "intp", "in i8[:, ::1]", "intp", "b1", "in t[:, ::1]", "in t[:, ::1]",
    "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "u1[:, ::1]", "in t[:, ::1]",
    "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _forward_tangent(
    address, examples, plan, classes, on_data, phi, phi_dot, a, v, mu, r, chosen, x_dot,
    a_dot, v_dot, mu_dot, r_dot, y_dot,
):  # fmt: skip
    top, features, head = _ends(plan, examples, classes, phi.shape[1])
    for t in range(x_dot.shape[0]):
        row, row_dot, values, moving = of_task(phi, t), of_task(phi_dot, t), a[t], a_dot[t]
        copy(x_dot[t], moving[: x_dot.shape[1]])
        for block in range(plan.shape[0]):
            p = _numbers(plan, block)
            between_dot = _images_between(p, examples, v_dot[t])
            _convolved(
                address, 1 if on_data and block == 0 else 2,
                _images_below(p, examples, values), _weight(p, row_dot),
                _images_below(p, examples, moving), _weight(p, row),
                _bias(p, row_dot), _pixels(between_dot),
                p.channels, p.kernel, p.stride, p.top, p.left, p.high, p.wide,
            )  # fmt: skip
            forward_tangent_of_task(
                p.together, _vector(p, row, 1), _vector(p, row_dot, 1), _vector(p, row_dot, 2),
                _images_between(p, examples, v[t]), _channels(p, mu[t]), _channels(p, r[t]),
                _images_above(p, examples, chosen[t]), between_dot,
                _channels(p, mu_dot[t]), _channels(p, r_dot[t]), _images_above(p, examples, moving),
            )  # fmt: skip
        last, last_dot = values[top:], moving[top:]
        if classes == 0:
            copy(last_dot, y_dot[t])
        else:
            middle = head + features * classes
            W, W_dot, b_dot = row[head:middle], row_dot[head:middle], row_dot[middle:]
            affine(address, examples, features, classes, last, W_dot, b_dot, y_dot[t])
            add_product(address, examples, features, classes, last_dot, W, y_dot[t])


@compiles(
    "intp", "intp", "in i8[:, ::1]", "intp", "b1", "in t[:, ::1]", "in t[:, ::1]",
    "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "u1[:, ::1]",
    "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
    "in t[:, ::1]", "in t[:, ::1]", "t[:, ::1]", "t[:, ::1]",
)  # fmt: skip
def _backward_tangent(
    address, examples, plan, classes, on_data, phi, phi_dot, a, v, mu, r, chosen,
    a_dot, v_dot, mu_dot, r_dot, e, dy, dy_dot, e_dot, dphi_dot,
):  # fmt: skip
    top, features, head = _ends(plan, examples, classes, phi.shape[1])
    spare, spare_dot = np.empty(v.shape[1], v.dtype), np.empty(v.shape[1], v.dtype)
    pulls_dot = np.empty(a.shape[1], a.dtype)
    for t in range(dy.shape[0]):
        row, row_dot, into = of_task(phi, t), of_task(phi_dot, t), dphi_dot[t]
        values, moving, pulls = a[t], a_dot[t], e[t]
        if classes == 0:
            copy(dy_dot[t], pulls_dot[top:])
        else:
            middle, last, last_dot = head + features * classes, values[top:], moving[top:]
            W, W_dot, dW_dot = row[head:middle], row_dot[head:middle], into[head:middle]
            gradient(address, examples, features, classes, last, dy_dot[t], 0, dW_dot)
            gradient(address, examples, features, classes, last_dot, dy[t], 1, dW_dot)
            column_sums(examples, classes, dy_dot[t], into[middle:])
            pulled(address, examples, features, classes, dy_dot[t], W, 0, pulls_dot[top:])
            pulled(address, examples, features, classes, dy[t], W_dot, 1, pulls_dot[top:])
        for block in range(plan.shape[0] - 1, -1, -1):
            p = _numbers(plan, block)
            kept = _images_above(p, examples, chosen[t])
            images = _images_between(p, examples, spare)
            images_dot = _images_between(p, examples, spare_dot)
            select_transpose(kept, _images_above(p, examples, pulls), images)
            select_transpose(kept, _images_above(p, examples, pulls_dot), images_dot)
            backward_tangent_of_task(
                p.together, _vector(p, row, 1), _vector(p, row_dot, 1),
                _images_between(p, examples, v[t]), _channels(p, mu[t]), _channels(p, r[t]),
                _images_between(p, examples, v_dot[t]),
                _channels(p, mu_dot[t]), _channels(p, r_dot[t]),
                images, images_dot, _vector(p, into, 1), _vector(p, into, 2),
            )  # fmt: skip
            dv, dv_dot = _pixels(images), _pixels(images_dot)
            _correlated(
                address, 1 if on_data and block == 0 else 2,
                _images_below(p, examples, values), dv_dot,
                _images_below(p, examples, moving), dv, _weight(p, into),
                p.channels, p.kernel, p.stride, p.top, p.left, p.high, p.wide,
            )  # fmt: skip
            _summed(dv_dot, _bias(p, into))
            if block > 0 or not on_data:
                _transposed(
                    address, 2, dv_dot, _weight(p, row), dv, _weight(p, row_dot),
                    _images_below(p, examples, pulls_dot),
                    p.channels, p.kernel, p.stride, p.top, p.left, p.high, p.wide,
                )  # fmt: skip
        if not on_data:
            copy(pulls_dot[: e_dot.shape[1]], e_dot[t])
