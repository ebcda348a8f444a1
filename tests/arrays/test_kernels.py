"""Every kernel computes its plainest expression, and leaves its inputs as they
are.

These are the plain definitions. Compiled twins are held equal to them in
test_host_kernels.py.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimeta.arrays import kernels
from minimeta.arrays.rows import rows_together
from minimeta.testing import assert_same
from minimeta.testing.strategies import dtypes, seeds, small
from minimeta.testing.strict import module as strict

pytestmark = pytest.mark.usefixtures("plain_kernels")


def draw(rng, shape, dtype):
    """Standard normal numbers; complex ones have both parts."""
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


@given(
    small,
    st.sampled_from([1, 3, 8]),
    dtypes,
    st.sampled_from([0.0, 0.9]),
    st.integers(1, 3),
    st.booleans(),
    seeds,
)
def test_adam_is_its_formula_to_the_last_bit(tasks, size, dtype, beta1, steps, own_rates, seed):
    rng = np.random.default_rng(seed)
    rate = rng.uniform(0.01, 0.1, size).astype(np.float32) if own_rates else 0.05
    beta2, eps = 0.99, 1e-3
    phi = draw(rng, size, dtype)
    m = v = None
    for t in range(1, steps + 1):
        g = draw(rng, (tasks, size), dtype)
        c1, c2 = 1 - beta1**t, 1 - beta2**t
        given_arrays = [each for each in (phi, g, m, v) if each is not None]
        copies = [each.copy() for each in given_arrays]
        after = kernels.adam_update(phi, g, m, v, rate, beta1, beta2, c1, c2, eps)
        moments = kernels.adam_moments(g, m, v, beta1, beta2)
        for each, copy in zip(given_arrays, copies, strict=True):
            assert_same(each, copy, "an input after the kernel")
        m = (1 - beta1) * g if m is None else beta1 * m + (1 - beta1) * g
        v = (1 - beta2) * g * g if v is None else beta2 * v + (1 - beta2) * g * g
        phi = phi - rate * ((m / c1) / (np.sqrt(v * (1 / c2)) + eps))
        for name, got, want in zip(("phi'", "m'", "v'"), after, (phi, m, v), strict=True):
            assert got.dtype == dtype, name
            assert_same(got, want, name)
        for got, want in zip(moments, (m, v), strict=True):
            assert_same(got, want, "adam_moments")


# Odd and even sizes, rows on one axis or three; the last two are large enough
# that several rows are taken as one long row.
channel_shapes = st.sampled_from(
    [(3, 5, 2), (2, 1, 3, 3, 4), (1, 7, 1), (2, 0, 3), (2, 10, 14, 14, 64), (1, 8191, 9)]
)


def strided(a):
    """The same numbers in an array without a contiguous axis."""
    wide = np.zeros(tuple(2 * size for size in a.shape), a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def ways(kernel, /, *arrays, **options):
    """The kernel's result on the arrays, on strided views of them, on a strict
    module.

    All are equal to the last bit, and no input has changed.
    """
    copies = [a.copy() for a in arrays]
    got = kernel(*arrays, **options)
    for a, copy in zip(arrays, copies, strict=True):
        assert_same(a, copy, "an input after the kernel")
    there = kernel(*(strict.asarray(a) for a in arrays), **options)
    if isinstance(got, tuple):
        for a, b in zip(there, got, strict=True):
            assert_same(a.get(), b, "on a strict module")
    else:
        assert_same(there.get(), got, "on a strict module")
    return got, kernel(*map(strided, arrays), **options)


def combined(*arrays, ones=(), shifted=True):
    """channel_combination of arrays in a row: factor, array, ..., and the
    shift."""
    *pairs, shift = arrays
    terms = zip(pairs[::2], pairs[1::2], strict=True)
    terms = [(1 if i in ones else factor, a) for i, (factor, a) in enumerate(terms)]
    return kernels.channel_combination(*terms, shift=shift if shifted else None)


def rounding(dtype, terms):
    """The rounding of ``terms`` terms, multiplied and added in another
    order."""
    return 2 * (terms + 2) * np.finfo(dtype).eps


@given(channel_shapes, dtypes, seeds)
def test_sums_and_dots_are_those_over_all_rows(shape, dtype, seed):
    """In another order of the additions, so to the rounding of so many
    terms."""
    rng = np.random.default_rng(seed)
    a, b = draw(rng, shape, dtype), draw(rng, shape, dtype)
    axes, count = tuple(range(1, len(shape) - 1)), int(np.prod(shape[1:-1]))
    for got in ways(kernels.channel_sums, a):
        assert got.dtype == dtype and got.shape == (shape[0], shape[-1])
        error = np.abs(got - a.sum(axis=axes))
        assert (error <= rounding(dtype, count) * np.abs(a).sum(axis=axes)).all()
    for got in ways(kernels.channel_dots, a, b):
        assert got.dtype == dtype
        error = np.abs(got - (a * b).sum(axis=axes))
        assert (error <= rounding(dtype, count) * np.abs(a * b).sum(axis=axes)).all()


@given(
    channel_shapes,
    dtypes,
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=4),
    st.sampled_from(["none", "own", "shared"]),
    seeds,
)
def test_a_combination_is_its_broadcast_expression_to_the_last_bit(
    shape, dtype, terms, shift, seed
):
    """Each element sees the same operations in the same order.

    Complex products may differ by a rounding, because NumPy fuses a
    multiplication with an addition in some of its loops and not in others.
    """
    rng = np.random.default_rng(seed)
    tasks, channels = shape[0], shape[-1]
    arrays, ones, want, size = [], [], 0, 0
    one_a_channel = (slice(None), *(None,) * (len(shape) - 2))
    for i, (shared, is_one) in enumerate(terms):
        factor = draw(rng, (1 if shared else tasks, channels), dtype)
        a = draw(rng, shape, dtype)
        arrays += [factor, a]
        ones += [i] * is_one
        term = a if is_one else factor[one_a_channel] * a
        want, size = want + term if i else term, size + np.abs(term)
    v = draw(rng, (1 if shift == "shared" else tasks, channels), dtype)
    if shift != "none":
        want, size = want + v[one_a_channel], size + np.abs(v[one_a_channel])
    for got in ways(combined, *arrays, v, ones=ones, shifted=shift != "none"):
        assert got.dtype == dtype and got.shape == shape
        assert not any(np.shares_memory(got, each) for each in arrays)
        if np.dtype(dtype).kind == "c":
            assert (np.abs(got - want) <= rounding(dtype, len(terms)) * size).all()
        else:
            assert_same(got, want, "the combination")


def test_a_factor_may_be_any_number():
    a = np.arange(12.0, dtype=np.float32).reshape(1, 2, 6)
    for factor in (0, 1, 2, 1.0, -0.5):
        got = kernels.channel_combination((factor, a), (1, a))
        assert got.dtype == a.dtype
        assert_same(got, factor * a + a, f"{factor} a + a")


@pytest.mark.parametrize("product", [True, False])
def test_what_a_real_array_cannot_hold_is_held_by_the_result(product):
    real, imaginary = np.ones((2, 3, 4)), 1j * np.ones((2, 3, 4))
    if product:
        a, b = np.ones((2, 3, 5)), 1j * np.ones((2, 5, 4))
        assert_same(kernels.product_sum((a, b.imag), (a, b)), a @ (b.imag + b), "the sum")
    else:
        got = kernels.channel_combination((np.ones((2, 4)), real), (1, imaginary))
        assert_same(got, real + imaginary, "the sum")


def multiplied(*arrays, shifted=True):
    """product_sum of arrays in a row: A, B, A, B, ..., and the shift."""
    *pairs, shift = arrays
    pairs = zip(pairs[::2], pairs[1::2], strict=True)
    return kernels.product_sum(*pairs, shift=shift if shifted else None)


@given(
    st.sampled_from([(3, 5, 2), (1, 1, 1), (2, 1960, 64), (1, 4410, 32)]),
    dtypes,
    st.lists(st.tuples(st.sampled_from([1, 2, 9]), st.booleans()), min_size=1, max_size=2),
    st.booleans(),
    st.booleans(),
    seeds,
)
def test_products_are_summed_to_the_last_bit(shape, dtype, pairs, shifted, shared, seed):
    """Views in another layout go another way through BLAS: to the rounding of a
    sum."""
    rng = np.random.default_rng(seed)
    tasks, count, channels = shape
    arrays, want, size = [], 0, 0
    v = draw(rng, (1 if shared else tasks, channels), dtype)
    for inner, shared_matrix in pairs:
        a = draw(rng, (tasks, count, inner), dtype)
        b = draw(rng, (1 if shared_matrix else tasks, inner, channels), dtype)
        first, arrays = not arrays, [*arrays, a, b]
        want, size = want + a @ b, size + np.abs(a) @ np.abs(b)
        if shifted and first:
            want, size = want + v[:, None], size + np.abs(v[:, None])
    got, through_views = ways(multiplied, *arrays, v, shifted=shifted)
    assert got.dtype == dtype
    if np.dtype(dtype).kind == "f":
        assert_same(got, want, "the sum of products")
    for each in (got, through_views):
        assert (np.abs(each - want) <= rounding(dtype, 20) * size).all()


image_shapes = st.tuples(small, st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), small)


@given(image_shapes, st.integers(1, 4), st.integers(1, 3), dtypes, seeds)
def test_patches_are_the_windows_of_the_padded_image(shape, kernel, stride, dtype, seed):
    """Patches are copies, so they agree to the last bit."""
    x = draw(np.random.default_rng(seed), shape, dtype)
    tasks, examples, height, width, channels = shape
    high, wide = -(-height // stride), -(-width // stride)
    top = max((high - 1) * stride + kernel - height, 0) // 2
    left = max((wide - 1) * stride + kernel - width, 0) // 2
    want = np.zeros((tasks, examples, high, wide, kernel, kernel, channels), dtype)
    for r, c, i, j in np.ndindex(high, wide, kernel, kernel):
        row, column = r * stride + i - top, c * stride + j - left
        if 0 <= row < height and 0 <= column < width:
            want[:, :, r, c, i, j] = x[:, :, row, column]
    for got in ways(kernels.patches, x, kernel=kernel, stride=stride):
        assert got.dtype == dtype
        assert_same(got, want.reshape(tasks, examples * high * wide, -1), "patches")


def added_back(*arrays, **options):
    pairs = zip(arrays[::2], arrays[1::2], strict=True)
    return kernels.patches_transpose(*pairs, **options)


@given(
    image_shapes,
    st.integers(1, 4),
    st.integers(1, 3),
    dtypes,
    st.lists(st.tuples(small, st.booleans()), min_size=1, max_size=2),
    seeds,
)
def test_the_transpose_of_patches_is_one(shape, kernel, stride, dtype, pairs, seed):
    """<S x, sum_i A_i B_i^T> = <x, S^T sum_i A_i B_i^T>, task by task.

    Either side adds some thousand products in its own order.
    """
    rng = np.random.default_rng(seed)
    x = draw(rng, shape, dtype)
    seen = kernels.patches(x, kernel, stride)
    arrays, want, size = [], 0, 0
    for inner, shared in pairs:
        a = draw(rng, (shape[0], seen.shape[1], inner), dtype)
        b = draw(rng, (1 if shared else shape[0], seen.shape[2], inner), dtype)
        arrays += [a, b]
        want = want + (seen * (a @ b.swapaxes(1, 2))).sum(axis=(1, 2))
        size = size + (np.abs(seen) * (np.abs(a) @ np.abs(b).swapaxes(1, 2))).sum(axis=(1, 2))
    options = {"image_shape": shape, "kernel": kernel, "stride": stride}
    for got in ways(added_back, *arrays, **options):
        assert got.dtype == dtype and got.shape == shape
        dots = (x * got).sum(axis=(1, 2, 3, 4))
        assert (np.abs(dots - want) <= rounding(dtype, 100) * size).all()


@given(channel_shapes, dtypes, seeds)
def test_a_mask_keeps_or_clears(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    a, mask = draw(rng, shape, dtype), rng.random(shape) < 0.5
    for got in ways(kernels.masked, a, mask):
        assert got.dtype == dtype
        assert_same(got, np.where(mask, a, 0), "the masked array")


@given(image_shapes, st.sampled_from([2, 3]), dtypes, st.booleans(), seeds)
def test_pairs_are_selected_by_real_part_and_given_back(shape, axis, dtype, ties, seed):
    """Selections, so to the last bit; the transpose is exact too, value by
    value."""
    rng = np.random.default_rng(seed)
    x, other = draw(rng, shape, dtype), draw(rng, shape, dtype)
    if ties:
        x.real = x.real > 0
    front = np.moveaxis(x, axis, 0)
    pairs = len(front) // 2
    second = front[1 : 2 * pairs : 2].real > front[: 2 * pairs : 2].real

    def chosen(values):
        values = np.moveaxis(values, axis, 0)
        best = np.where(second, values[1 : 2 * pairs : 2], values[: 2 * pairs : 2])
        return np.moveaxis(np.concatenate([best, values[2 * pairs :]]), 0, axis)

    for got, where in ways(kernels.pair_maxima, x, axis=axis):
        assert got.dtype == dtype
        assert_same(got, chosen(x), "the larger of each pair")
        assert_same(where, np.moveaxis(second, 0, axis), "where the second is the larger")
    where = np.moveaxis(second, 0, axis)
    for got in ways(kernels.pair_selection, where, other, axis=axis):
        assert_same(got, chosen(other), "the selected of each pair")
    dy = draw(rng, chosen(x).shape, dtype)
    for back in ways(kernels.pair_selection_transpose, where, dy, axis=axis):
        assert back.dtype == dtype and back.shape == shape
        assert_same(chosen(back), dy, "every value where it was selected from")
        assert np.count_nonzero(back) == np.count_nonzero(dy)


def test_a_maximum_lets_nan_through():
    for place in (0, 1):
        for dtype in (np.float32, np.complex128):
            x = np.zeros((1, 1, 2, 1, 1), dtype)
            x[0, 0, place] = np.nan
            assert np.isnan(kernels.pair_maxima(x, 2)[0]).all()


@pytest.mark.parametrize(("count", "channels"), [(1960, 64), (70560, 32), (8191, 9)])
def test_rows_taken_together_divide_their_number(count, channels):
    together = rows_together(count, channels, 6144)
    assert count % together == 0 and together * channels <= 6144
