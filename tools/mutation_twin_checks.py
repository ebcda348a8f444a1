"""The checks of the compiled twins, which are interpreted here.

A twin is compared with its plain definition at tiny inputs. The definition is
what runs under ``twins(False)``. It is computed when the check is made, and no
mutant of a twin runs in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from mutation_checks import Check, agrees

import minimeta as mm
from minimeta import layers
from minimeta.arrays import host_blas, host_norm, host_perceptron, kernels
from minimeta.arrays.compiled import twins
from minimeta.layers.perceptron import Perceptron
from minimeta.testing import check_network

DTYPES = np.float64, np.complex128
# One row more than a twin adds at a time.
MANY = 65


def by_definition(*calls: Callable[[], Any], want: Callable[[], Any] | None = None) -> list[Check]:
    """Each call with twins by the same call without them, or by ``want``."""
    checks = []
    for call in calls:
        with twins(False), np.errstate(all="ignore"):
            expected = as_one((want or call)())
        checks.append(partial(agrees, lambda call=call: as_one(call()), expected))
    return checks


def as_one(results: Any) -> np.ndarray:
    """The shapes, the dtypes and the numbers of all results, one after another.

    None is -1, and NaN is a large number.
    """
    results = results if isinstance(results, (tuple, list)) else (results,)
    arrays = [np.asarray(-1.0 if each is None else each) for each in results]
    parts = [(*each.shape, each.dtype.num, *np.ravel(each)) for each in arrays]
    whole = np.concatenate(parts)
    return np.where(whole != whole, 1e3, whole)


class Draw:
    """Random arrays of one dtype. None can be written to."""

    def __init__(self, dtype: type) -> None:
        self.dtype, self.rng = dtype, np.random.default_rng(13)

    def __call__(self, *shape: int) -> np.ndarray:
        values = self.rng.standard_normal(shape)
        if self.dtype is np.complex128:
            values = values + 1j * self.rng.standard_normal(shape)
        return _kept(values.astype(self.dtype))

    def mask(self, *shape: int) -> np.ndarray:
        return _kept(self.rng.random(shape) < 0.5)


def _kept(a: np.ndarray) -> np.ndarray:
    a.flags.writeable = False
    return a


def _strided(a: np.ndarray) -> np.ndarray:
    """The same numbers with gaps between them."""
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return _kept(wide)[..., ::2]


# Rows and channels.


def of_rows() -> list[Check]:
    """Sums, means and dots over no row, one row and many rows."""
    checks = []
    for dtype, shape in (
        (np.float64, (2, 3, 2, 4)),
        (np.complex128, (2, 5, 2)),
        (np.float64, (2, MANY, 2)),
        (np.float64, (1, 1, 1)),
    ):
        draw = Draw(dtype)
        a, b, c = draw(*shape), draw(*shape), _strided(draw(*shape))
        checks += by_definition(
            partial(kernels.channel_sums, a),
            partial(kernels.channel_sums, c),
            partial(kernels.channel_means, a),
            partial(kernels.channel_dots, a, b),
            partial(kernels.dots_and_sums, a, c),
            partial(kernels.centred, a),
            partial(kernels.centred, c),
            partial(kernels.centred, a, b),
            partial(kernels.centred, a, c),
        )
    nothing = Draw(np.float64)(2, 0, 3)
    calls = kernels.channel_sums, kernels.centred, partial(kernels.centred, other=nothing)
    return checks + by_definition(*(partial(call, nothing) for call in calls))


def of_combinations() -> list[Check]:
    """One term, two and four, with factors of every kind, and a shift."""
    checks = []
    for dtype, shape in (
        (np.float64, (2, 2, 2, 3)),
        (np.complex128, (3, 2, 1)),
        (np.float64, (2, 3, 2)),
    ):
        draw, combined = Draw(dtype), kernels.channel_combination
        a, b, c, d = draw(*shape), _strided(draw(*shape)), draw(*shape), draw(*shape)
        own, other = draw(shape[0], shape[-1]), draw(shape[0], shape[-1])
        shared, shift = draw(1, shape[-1]), draw(shape[0], shape[-1])
        checks += by_definition(
            partial(combined, (1, a)),
            partial(combined, (own, b), shift=shared),
            partial(combined, (shared, a), shift=shift),
            partial(combined, (2.0, a), (own, b)),
            partial(combined, (own, a), (shared, b), shift=shift),
            partial(combined, (shared, a), (other, b), (-1, c), shift=shared),
            partial(combined, (own, a), (other, b), (shared, c), (own, d), shift=shift),
        )
    return checks


def of_masked() -> list[Check]:
    checks = []
    for dtype in DTYPES:
        draw = Draw(dtype)
        u, mask = draw(2, 3, 2), draw.mask(2, 3, 2)
        calls = partial(kernels.masked, u, mask), partial(kernels.masked, _strided(u), mask)
        checks += by_definition(*calls)
    return checks


# Normalization and ReLU.


def of_norms() -> list[Check]:
    """The four passes by those of the layers: of images and of rows, with own
    and with shared parameters, of numbers that are equal, and of NaN."""
    checks = []
    for dtype, shape, pooled, (shared, shared_dot) in (
        *product(DTYPES, ((2, 2, 5, 3, 2),), (False, True), ((False, False), (True, False))),
        *product(DTYPES[:1], ((2, 1, 2, 4, 1),), (True,), ((False, True),)),
        *product(DTYPES[:1], ((1, 1, 5, MANY // 5, 2),), (False, True), ((True, True),)),
        (np.float64, (1, 1, 2, MANY // 2 + 3, 1), False, (True, True)),
        (np.float64, (2, 4, 3), False, (True, True)),
        (np.float64, (1, 1, 1, 1, 1), True, (False, False)),
    ):
        draw, width = Draw(dtype), 2 * shape[-1]
        phi, phi_dot = draw(1 if shared else shape[0], width), draw(1, width)
        phi_dot = phi_dot if shared_dot else draw(shape[0], width)
        if pooled is False and shape[3:4] == (MANY // 5,):  # ReLU keeps nearly all
            phi = _kept(phi + np.array([[0, 0, 3, 3]]))
        x, x_dot, halved = draw(*shape), draw(*shape), _halved(shape) if pooled else shape
        given = pooled, phi, phi_dot, x, x_dot, draw(*halved), draw(*halved)
        want = partial(_by_norm_and_relu, *given)
        apart = pooled, *map(_strided, given[1:])
        checks += by_definition(
            partial(_norm_at_once, *given), partial(_norm_at_once, *apart), want=want
        )
    for pooled in (False, True):
        for x in (_opposed(draw), _spoiled(draw)):
            phi, dy = (
                np.array([[1.0, 1.0, 0.0, 0.0]]),
                draw(1, 2, *((2, 2) if pooled else (3, 4)), 2),
            )
            given = pooled, phi, draw(1, 4), x, draw(*x.shape), dy, draw(*dy.shape)
            want = partial(_by_norm_and_relu, *given)
            checks += by_definition(partial(_norm_at_once, *given), want=want)
    return checks


def _halved(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:2], -(-shape[2] // 2), -(-shape[3] // 2), shape[4])


def _opposed(draw: Draw) -> np.ndarray:
    """Numbers of mean 0, many of them equal, and many 0."""
    half = draw.rng.integers(-1, 2, (1, 1, 3, 4, 2)).astype(float)
    return _kept(np.concatenate([half, -half], axis=1))


def _spoiled(draw: Draw) -> np.ndarray:
    """One channel has a NaN."""
    x = draw(1, 2, 3, 4, 2).copy()
    x[0, 1, 1, 2, 0] = np.nan
    return _kept(x)


def _norm_at_once(pooled, phi, phi_dot, x, x_dot, dy, dy_dot) -> tuple:
    (gamma, beta), (gamma_dot, beta_dot) = (np.split(each, 2, axis=1) for each in (phi, phi_dot))
    y, cache = host_norm.forward(gamma, beta, x, 0.1, pooled)
    dx, *dphi = host_norm.backward(gamma, cache, dy)
    y_dot, cache_dot = host_norm.forward_tangent(gamma, gamma_dot, beta_dot, cache, x_dot)
    given = gamma, gamma_dot, cache, cache_dot, dy, dy_dot
    dx_dot, *dphi_dot = host_norm.backward_tangent(*given)
    rows, rows_dot = (np.concatenate(each, axis=1) for each in (dphi, dphi_dot))
    return y, dx, rows, y_dot, dx_dot, rows_dot


def _by_norm_and_relu(pooled, phi, phi_dot, x, x_dot, dy, dy_dot) -> tuple:
    pool = (layers.MaxPool2D(),) if pooled else ()
    stages = layers.BatchNorm(x.shape[-1], 0.1), *pool, layers.ReLU()
    network = mm.Network(x.shape[2:], stages)
    return _by_layers(network, phi, phi_dot, x, x_dot, dy, dy_dot, False)


# Products with patches.

# The shape of the images of two tasks, kernel and stride.
IMAGES = [
    ((2, 5, 4, 2), 3, 1),
    ((2, 5, 4, 2), 3, 2),
    ((1, 3, 2, 1), 2, 1),
    ((1, 1, 1, 1), 3, 1),
    ((2, 3, 4, 6), 3, 1),
    ((1, 4, 5, 1), 4, 3),
    ((1, 2, 13, 1), 2, 1),
    ((1, 4, 13, 2), 3, 2),
]


def of_patches() -> list[Check]:
    """Patches, their products and transposes: one pair and two, with own and
    with shared matrices."""
    checks = []
    for image, kernel, stride in IMAGES:
        for dtype in DTYPES:
            checks += by_definition(*_of_images(Draw(dtype), (2, *image), kernel, stride))
    draw = Draw(np.float64)
    dy, W = draw(2, 4, 3), draw(2, 9, 3)
    unfit = (draw(2, 5, 3), W), (dy, draw(3, 9, 3)), (dy, draw(2, 9, 2))
    return [*checks, *(partial(_is_refused, pair) for pair in unfit)]


def _is_refused(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Raise an AssertionError unless a pair that does not fit is refused."""
    try:
        kernels.patches_transpose(pair, image_shape=(2, 1, 2, 2, 1), kernel=3, stride=1)
    except mm.ShapeError:
        return
    raise AssertionError("a pair that does not fit is taken")


def _of_images(draw: Draw, shape: tuple[int, ...], kernel: int, stride: int) -> Iterator[Callable]:
    x, z, width = draw(*shape), draw(*shape), kernel * kernel * shape[4]
    rows = shape[1] * -(-shape[2] // stride) * -(-shape[3] // stride)
    W, V, shift = draw(2, width, 3), draw(1, width, 3), draw(2, 3)
    dy, dz = draw(2, rows, 3), draw(2, rows, 3)
    apart = _strided(W)

    def seen(x):
        return kernels.patches(x, kernel, stride)

    def transposed(x):
        return seen(x).swapaxes(1, 2)

    yield lambda: np.asarray(seen(_strided(x)))
    yield lambda: np.asarray(transposed(x))
    yield lambda: np.asarray(seen(x), np.complex128)
    yield lambda: np.asarray(transposed(x), np.complex128)
    yield lambda: (np.array(seen(x).shape), np.array(transposed(x).shape))
    yield lambda: np.asarray(seen(x).swapaxes(0, 2))
    yield lambda: kernels.product_sum((seen(x), W))
    yield lambda: kernels.product_sum((seen(x), V), shift=shift)
    yield lambda: kernels.product_sum((seen(x), V), (seen(z), W), shift=shift[:1])
    yield lambda: kernels.product_sum((seen(x), apart), (seen(z), V))
    yield lambda: kernels.product_sum((seen(x), np.broadcast_to(V[:, :1], V.shape)))
    yield lambda: kernels.product_sum((transposed(x), dy))
    yield lambda: kernels.product_sum((transposed(x), _strided(dy)), (transposed(z), dz))
    place = {"image_shape": shape, "kernel": kernel, "stride": stride}
    yield lambda: kernels.patches_transpose((dy, W), **place)
    yield lambda: kernels.patches_transpose((dy, V), (dz, apart), **place)
    yield lambda: kernels.patches_transpose((_strided(dy), apart), (dz, V), **place)
    thin = dz[..., :2], W[..., :2]  # as in no layer
    yield lambda: kernels.patches_transpose((dy, W), thin, **place)


def of_products() -> list[Check]:
    """Sums of products of matrices, where an inner axis has length 1 or
    more."""
    checks = []
    for dtype in DTYPES:
        draw = Draw(dtype)
        a, b, shift = draw(2, 3, 4), draw(2, 4, 2), draw(2, 2)
        column, row = draw(2, 3, 1), draw(1, 1, 2)
        turned = draw(3, 2, 1).swapaxes(0, 1), draw(1, 2, 2).swapaxes(0, 1)
        checks += by_definition(
            partial(kernels.product_sum, (a, b)),
            partial(kernels.product_sum, (a, b), shift=shift),
            partial(kernels.product_sum, (a[:, :2, :2], b[:, :2])),
            partial(kernels.product_sum, (column, row), (a, b), shift=shift[:1]),
            partial(kernels.product_sum, (a, b), (column, row), (2 * a, b)),
            partial(kernels.product_sum, turned, shift=shift),
            partial(kernels.product_sum, (a[:, :1], b)),
            partial(kernels.product_sum, (a[:1], b[:1])),
        )
        checks += by_definition(*_of_pairs_apart(draw))
    return checks


def _of_pairs_apart(draw: Draw) -> Iterator[Callable]:
    """Patches that cannot be taken together, and matrices that do not fit."""
    x, z, high, other = (
        draw(2, 1, 5, 4, 2),
        draw(2, 1, 5, 4, 2),
        draw(2, 1, 4, 5, 2),
        draw(2, 20, 8),
    )
    W, V, U, dy = draw(2, 8, 3), draw(1, 8, 3), draw(2, 8, 1), draw(2, 20, 3)
    shifts = draw(2, 1), draw(1, 3)

    def seen(x):
        return kernels.patches(x, 2, 1)

    yield lambda: kernels.product_sum((seen(x), W), (other, V))
    yield lambda: kernels.product_sum((other, V), (seen(x), W))
    yield lambda: kernels.product_sum((seen(x), W), (seen(high), V))
    yield lambda: kernels.product_sum((seen(x), W), (seen(z), V), (seen(x), V))
    yield lambda: kernels.product_sum((seen(x), W), (seen(z), U))
    yield lambda: kernels.product_sum((seen(x), W), shift=shifts[0])
    yield lambda: kernels.product_sum((seen(x), W), shift=shifts[1])
    yield lambda: kernels.product_sum((other, W), shift=shifts[0])
    yield lambda: kernels.product_sum((seen(x[:1]), W))
    yield lambda: kernels.product_sum((seen(x).swapaxes(1, 2), dy[:1]))
    yield lambda: kernels.product_sum((seen(x).swapaxes(1, 2), dy), (other.swapaxes(1, 2), dy))


# Inner rules.


def of_updates() -> list[Check]:
    """SGD and Adam from shared and from own rows, at first and later."""
    checks, sgd = [], kernels.sgd_update
    for dtype in DTYPES:
        draw = Draw(dtype)
        rows, g, m, v = draw(2, 3), draw(2, 3), draw(2, 3), _kept(draw(2, 3) ** 2)
        for phi in (rows, rows[0], rows[:1]):
            checks += by_definition(partial(sgd, phi, g, 0.1), partial(sgd, phi, _strided(g), 0.1))
            for beta1, before in product((0.0, 0.5), ((None, None), (m, v), (m[0], v[0]))):
                given = g, *before, 0.1, beta1, 0.9, 1 - beta1**2, 1 - 0.9**2, 1e-2
                checks += by_definition(partial(kernels.adam_update, phi, *given))
        given = _strided(g), _strided(m), _strided(v), 0.1, 0.5, 0.9, 0.75, 0.19, 1e-2
        checks += by_definition(partial(kernels.adam_update, _strided(rows), *given))
        given = g, m, v, np.array([0.1, 0.2, 0.3]), *given[-5:]
        checks += by_definition(partial(kernels.adam_update, rows, *given))
    return checks


# Products by BLAS.


def of_gemm() -> list[Check]:
    """By loops, and by BLAS; of rows that are apart; of empty matrices."""
    checks, sizes = (
        [],
        [(2, 3, 4), (1, 2, 3), (3, 1, 2), (2, 2, 1), (0, 2, 3), (2, 0, 3), (2, 3, 0)],
    )
    for dtype, (m, n, k) in [*product(DTYPES, sizes[:2]), *((np.float64, each) for each in sizes)]:
        draw = Draw(dtype)
        for ta, tb, beta, address in product((False, True), (False, True), (0, 1), (0, 1)):
            a, b = draw(*((k, m) if ta else (m, k))), draw(*((n, k) if tb else (k, n)))
            c = draw(m, n)
            want = (a.T if ta else a) @ (b.T if tb else b) + beta * c
            # By BLAS, beta = 0 does not read c.
            c = c if beta else np.full_like(c, np.nan)
            given = partial(_into, host_blas.gemm, address, ta, tb)
            checks += by_definition(
                partial(given, a, b, beta, c),
                partial(given, *map(_rows_apart, (a, b)), beta, _rows_apart(c)),
                want=lambda want=want: want,
            )
            if min(m, n, k) > 0:
                given = partial(_into, host_blas.gemm_of_flat, address, ta, tb, m, n, k)
                flat = partial(given, a.ravel(), b.ravel(), beta, c.ravel().copy())
                checks += by_definition(flat, want=lambda want=want: want.ravel())
    return checks


def _into(function: Callable[..., None], *given: Any) -> np.ndarray:
    """The last argument after ``function``; the others stay as they are."""
    *given, c = given
    held = c if c.base is None else c.base
    made = held.copy()
    view = made[tuple(slice(size) for size in c.shape)]
    function(*given, view)
    rest = np.ones(made.shape, bool)
    rest[tuple(slice(size) for size in c.shape)] = False
    assert np.array_equal(made[rest], held[rest], equal_nan=True), "what stands beside c changes"
    return view


def _rows_apart(a: np.ndarray) -> np.ndarray:
    wide = np.full((a.shape[0], a.shape[1] + 2), 7, a.dtype)
    wide[:, : a.shape[1]] = a
    return _kept(wide)[:, : a.shape[1]]


def blas(address, left, right, m, n, k, a, lda, b, ldb, beta, c, ldc) -> None:
    """``cblas_?gemm`` by its documentation, in the place of the call of it.

    It reads no memory outside of its arrays, and c is in neither of the others.
    """
    assert address == 1 and {left, right} <= {111, 112}
    assert not np.shares_memory(a, c) and not np.shares_memory(b, c)
    op_a, op_b = left == 112, right == 112
    A = _at(a, *((k, m) if op_a else (m, k)), lda)
    B = _at(b, *((n, k) if op_b else (k, n)), ldb)
    C = _at(c, m, n, ldc)
    product = (A.T if op_a else A) @ (B.T if op_b else B)
    C[...] = product if beta == 0 else product + beta * C


def _at(a: np.ndarray, rows: int, columns: int, leading: int) -> np.ndarray:
    """The matrix of rows ``leading`` numbers apart, from the first number of
    ``a``."""
    ends = sum((size - 1) * stride for size, stride in zip(a.shape, a.strides, strict=True))
    assert leading >= columns and ((rows - 1) * leading + columns - 1) * a.itemsize <= ends
    assert a.strides[-1] == a.itemsize, "rows are not contiguous"
    strides = leading * a.itemsize, a.itemsize
    return np.lib.stride_tricks.as_strided(a, (rows, columns), strides)


# Dense layers with ReLU between them.

WIDTHS = [(2, 3, 2), (1, 3, 1), (2, 1, 3, 2), (6, 1), (2, 3), (9, 1, 2), (2, 3, 2, 2)]


def of_passes() -> list[Check]:
    """The four passes by those of the layers, with own and shared parameters,
    and on data."""
    checks = []
    for widths, dtype, (shared, shared_dot), on_data in (
        *product(WIDTHS, DTYPES[:1], ((False, False),), (False, True)),
        *product(WIDTHS[:3], DTYPES[1:], ((True, True), (False, True)), (False,)),
        *product(WIDTHS[:1], DTYPES[:1], ((True, False),), (False,)),
    ):
        examples = 1 if widths == (2, 3) else 3
        draw, size = Draw(dtype), Perceptron(widths).shapes["phi"][0]
        phi, phi_dot = draw(1 if shared else 2, size), draw(1 if shared_dot else 2, size)
        x, x_dot = draw(2, examples, widths[0]).copy(), draw(2, examples, widths[0])
        if examples > 1 and not on_data:
            x[1, -1] = np.nan
        dy, dy_dot = draw(2, examples, widths[-1]), draw(2, examples, widths[-1])
        given = widths, phi, phi_dot, x, 0 * x_dot if on_data else x_dot, dy, dy_dot, on_data
        want = partial(_by_layers, mm.mlp(list(widths)), *given[1:])
        checks += by_definition(partial(_at_once, *given), want=want)
        apart = widths, *map(_strided, given[1:-1]), on_data
        checks += by_definition(partial(_at_once, *apart), want=want)
    return checks


def _at_once(widths, phi, phi_dot, x, x_dot, dy, dy_dot, on_data) -> tuple:
    """The results of the four passes."""
    y, a = host_perceptron.forward(phi, x, widths)
    dx, dphi, e = host_perceptron.backward(phi, a, dy, widths, on_data)
    y_dot, a_dot = host_perceptron.forward_tangent(phi, phi_dot, a, x_dot, widths, on_data)
    given = phi, phi_dot, a, a_dot, e, dy_dot, widths, on_data
    return y, dx, dphi, y_dot, *host_perceptron.backward_tangent(*given)


def _by_layers(network, phi, phi_dot, x, x_dot, dy, dy_dot, on_data) -> tuple:
    theta = network.theta(phi, x)
    moving = network.dot(theta, phi_dot)
    y, caches = network.forward_cached(theta, x)
    dx, dphi, dys = network.backward(theta, caches, dy)
    y_dot, caches_dot = network.forward_tangent(theta, moving, caches, x_dot)
    given = theta, moving, caches, caches_dot, dys, dy_dot
    dx_dot, dphi_dot = network.backward_tangent(*given)
    return y, None if on_data else dx, dphi, y_dot, None if on_data else dx_dot, dphi_dot


def of_joined_layers() -> list[Check]:
    """The layers that stand for several, as stages of a network, and a
    Perceptron after backward of another dy."""
    norm = layers.BatchNorm(2), layers.MaxPool2D(), layers.ReLU()
    networks = (
        (mm.mlp([2, 3, 2]), False, 3),
        (mm.mlp([1, 3, 1]), True, 1),
        (mm.Network((3, 2, 2), norm), False, 2),
        (mm.Network((2,), norm[::2]), True, 3),
    )
    checks: list[Check] = [
        partial(check_network, network, shared=shared, examples=examples)
        for network, shared, examples in networks
    ]
    draw, layer = Draw(np.float64), Perceptron((2, 3, 2))
    theta, theta_dot = {"phi": draw(2, 17)}, {"phi": draw(2, 17)}
    x, x_dot, dy, another, dy_dot = draw(5, 2, 3, 2)

    def curved(before: np.ndarray) -> tuple[np.ndarray, ...]:
        _, cache = layer.forward(theta, x)
        layer.backward(theta, cache, before)
        _, a_dot = layer.forward_tangent(theta, theta_dot, cache, x_dot)
        dx_dot, dtheta_dot = layer.backward_tangent(theta, theta_dot, cache, a_dot, dy, dy_dot)
        return dx_dot, dtheta_dot["phi"]

    given = theta["phi"], theta_dot["phi"], x, x_dot, dy, dy_dot, False
    want = partial(_by_layers, mm.mlp([2, 3, 2]), *given)
    calls = partial(curved, dy), partial(curved, another)
    checks += by_definition(*calls, want=lambda: want()[4:])
    network = mm.mlp([2, 3, 2])

    def moved() -> list[np.ndarray]:
        """Of arrays of two dtypes, which have no twins."""
        theta = network.theta(phi, x.astype(np.complex128))
        return [each for of_layer in network.dot(theta, phi) for each in of_layer.values()]

    phi = draw(2, 17)
    return checks + by_definition(moved)


def of_dtypes() -> list[Check]:
    """Arrays in one dtype; those that have it stay the same."""
    single, real, moved = (np.ones(2, dtype) for dtype in (np.float32, np.float64, np.complex128))
    cases = (
        ((real, real), (real, real)),
        ((real, moved, real), (1j * 0 + real, moved, 1j * 0 + real)),
        ((moved, real), (moved, 1j * 0 + real)),
        ((single, real), (real, real)),
        ((single, np.ones(2, np.complex64)), (moved, moved)),
        ((single, np.ones(2, np.float16)), (single, single)),
        ((np.ones(2, np.longdouble), single), (real, real)),
    )
    return [
        check
        for given, want in cases
        for check in by_definition(
            partial(_alike, given), want=partial(_with_the_same, given, want)
        )
    ]


def _alike(given: tuple[np.ndarray, ...]) -> list[Any]:
    return _with_the_same(given, kernels.alike(*given))


def _with_the_same(given: tuple[np.ndarray, ...], made: tuple[np.ndarray, ...]) -> list[Any]:
    """The arrays, and which are those that were given, if they may be."""
    kept = [a is b for a, b in zip(given, made, strict=True) if a.dtype == b.dtype]
    return [*made, np.array(kept)]


# Networks.


def of_networks() -> list[Check]:
    """Losses, gradients, Hessian-vector products and adapted parameters."""
    draw, checks = Draw(np.float64), []
    convnet = (
        *(layers.Conv2D(1, 2, 2), layers.BatchNorm(2), layers.ReLU()),
        *(layers.Conv2D(2, 3, 2, 2), layers.BatchNorm(3), layers.ReLU()),
        *(layers.Flatten(), layers.Dense(3, 2)),
    )
    pooled = (
        *(layers.Conv2D(1, 2), layers.BatchNorm(2), layers.MaxPool2D(), layers.ReLU()),
        *(layers.Conv2D(2, 3, 1, 2), layers.BatchNorm(3), layers.ReLU()),
        *(layers.Flatten(), layers.Dense(12, 2)),
    )
    for network in (
        mm.mlp([2, 3, 2]),
        mm.Network((4, 3, 1), convnet),
        mm.Network((3, 4, 1), pooled),
    ):
        objective = mm.Objective(network, mm.MeanSquaredError())
        phi, shape = draw(network.size), network.input_shape
        batches = mm.Minibatches(draw(2, 2, 2, *shape), draw(2, 2, 2, 2))
        rows = _kept(np.stack([phi, phi[::-1]]))
        calls = [partial(_derivatives, objective, each, batches[0], rows) for each in (phi, rows)]
        for rule in (mm.SGD(0.1), mm.Adam(0.1, eps=1e-2), mm.Adam(0.1, 0.5, 0.9, 1e-2)):
            calls.append(partial(mm.adapt, objective, phi, batches, rule))
        checks += by_definition(*calls)
    return checks


def _derivatives(objective, phi, batch, v) -> tuple[np.ndarray, ...]:
    point = objective.at(phi, batch)
    return point.loss, point.grad, point.hvp(v), point.hvp(v[0]), point.input_grad()
