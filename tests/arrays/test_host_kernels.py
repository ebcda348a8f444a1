"""Compiled twins compute their plain definitions, to rounding.

Copies and selections are equal to the last bit. A sum of n terms is equal to
the rounding of n terms, because a twin adds in an order of its own. The result
of a task depends neither on threads nor on the other tasks.
"""

from collections.abc import Callable
from inspect import isfunction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimeta.arrays import kernels, threads
from minimeta.arrays.compiled import twins
from minimeta.arrays.windows import Windows
from minimeta.testing import assert_same
from minimeta.testing.strategies import dtypes, seeds

pytest.importorskip("numba")
host_kernels = pytest.importorskip("minimeta.arrays.host_kernels")


class Case(NamedTuple):
    """A call of a kernel on ``arrays``.

    ``of_tasks`` tells which arrays have a row for each task. ``terms`` has, for
    each result, the number of terms that an entry sums; 0 where an entry is a
    copy. ``sizes`` gives, for the arrays, the sum of the absolute values of
    these terms. None: it is what the kernel makes of the absolute values.
    """

    call: Callable
    arrays: tuple[np.ndarray, ...]
    of_tasks: tuple[bool, ...]
    terms: tuple[int, ...]
    sizes: Callable | None = None


class Draw:
    """Draws arrays of one dtype for ``tasks`` tasks, and notes them."""

    def __init__(self, draw: Callable, dtype: type, tasks: int) -> None:
        self.draw, self.dtype, self.tasks = draw, np.dtype(dtype), tasks
        self.rng = np.random.default_rng(draw(seeds))
        self.arrays: list[np.ndarray] = []
        self.of_tasks: list[bool] = []

    def one_of(self, *values):
        return self.draw(st.sampled_from(values))

    def array(self, *shape: int, shared: bool | None = False) -> None:
        """An array with a row for each task, or with one for all.

        ``shared`` None: either.
        """
        shared = self.one_of(True, False) if shared is None else shared
        self._note(self._normal((1 if shared else self.tasks, *shape)), not shared)

    def mask(self, *shape: int) -> None:
        self._note(self.rng.random((self.tasks, *shape)) < 0.5, True)

    def flat(self, size: int) -> None:
        """An array without a task axis."""
        self._note(self._normal((size,)), False)

    def _normal(self, shape: tuple[int, ...]) -> np.ndarray:
        values = self.rng.standard_normal(shape)
        if self.dtype.kind == "c":
            values = values + 1j * self.rng.standard_normal(shape)
        return values.astype(self.dtype)

    def _note(self, array: np.ndarray, of_tasks: bool) -> None:
        self.arrays.append(array)
        self.of_tasks.append(of_tasks)

    def case(self, call: Callable, *terms: int, sizes: Callable | None = None) -> Case:
        return Case(call, tuple(self.arrays), tuple(self.of_tasks), terms, sizes)


def rows_of(draw: Draw) -> tuple[tuple[int, ...], int]:
    """The shape of a task's rows of channels, and the number of rows.

    A twin adds 64 rows at a time, and compiled loops take 4 to 16 channels at a
    time.
    """
    rows = draw.one_of((0,), (1,), (5,), (63,), (64,), (65,), (200,), (2, 3, 3), (3, 1, 7), (0, 2))
    return (*rows, draw.one_of(1, 2, 3, 7, 8, 17)), int(np.prod(rows))


def channel_sums(draw: Draw) -> Case:
    shape, count = rows_of(draw)
    draw.array(*shape)
    return draw.case(kernels.channel_sums, count)


def channel_means(draw: Draw) -> Case:
    shape, count = rows_of(draw)
    draw.array(*shape)
    return draw.case(kernels.channel_means, count + 1)


def channel_dots(draw: Draw) -> Case:
    shape, count = rows_of(draw)
    draw.array(*shape)
    draw.array(*shape)
    return draw.case(kernels.channel_dots, count)


def dots_and_sums(draw: Draw) -> Case:
    shape, count = rows_of(draw)
    draw.array(*shape)
    draw.array(*shape)
    return draw.case(kernels.dots_and_sums, count, count)


def channel_combination(draw: Draw) -> Case:
    shape, _ = rows_of(draw)
    count, shifted = draw.one_of(1, 2, 3, 4), draw.one_of(True, False)
    numbers = [draw.one_of(None, 0, 1, 2.5) for _ in range(count)]
    for number in numbers:
        draw.array(*shape)
        if number is None:
            draw.array(shape[-1], shared=None)
    if shifted:
        draw.array(shape[-1], shared=None)

    def call(*arrays):
        rest, terms = list(arrays), []
        for number in numbers:
            a = rest.pop(0)
            terms.append((rest.pop(0) if number is None else number, a))
        return kernels.channel_combination(*terms, shift=rest[0] if shifted else None)

    return draw.case(call, count + 1)


def masked(draw: Draw) -> Case:
    shape, _ = rows_of(draw)
    draw.array(*shape)
    draw.mask(*shape)
    return draw.case(kernels.masked, 0)


def image_of(draw: Draw) -> tuple[tuple[int, ...], int, int, tuple[int, int]]:
    """The shape of a task's images, kernel and stride, and the shape of its
    patches."""
    shape = (
        draw.one_of(0, 1, 2),
        draw.one_of(1, 2, 5, 7),
        draw.one_of(1, 3, 6),
        draw.one_of(1, 3, 17),
    )
    kernel, stride = draw.one_of(1, 2, 3, 4), draw.one_of(1, 2, 3)
    return shape, kernel, stride, patches_shape(shape, kernel, stride)


def patches_shape(shape, kernel, stride) -> tuple[int, int]:
    high, wide = Windows(shape[1:3], kernel, stride).counts
    return shape[0] * high * wide, kernel * kernel * shape[3]


def patches(draw: Draw) -> Case:
    shape, kernel, stride, _ = image_of(draw)
    draw.array(*shape)
    return draw.case(lambda x: np.asarray(kernels.patches(x, kernel, stride)), 0)


def pairs_of(arrays, count):
    return list(zip(arrays[: 2 * count : 2], arrays[1 : 2 * count : 2], strict=True))


def matrices(draw: Draw) -> Case:
    count, rows, channels = draw.one_of(1, 2, 3), draw.one_of(0, 1, 5, 65), draw.one_of(1, 3, 8)
    shifted, terms = draw.one_of(True, False), 1
    for _ in range(count):
        inner = draw.one_of(1, 2, 9)
        draw.array(rows, inner)
        draw.array(inner, channels, shared=None)
        terms += inner
    if shifted:
        draw.array(channels, shared=None)

    def call(*arrays):
        shift = arrays[-1] if shifted else None
        return kernels.product_sum(*pairs_of(arrays, count), shift=shift)

    return draw.case(call, terms)


def products_of_patches(draw: Draw, image=None) -> Case:
    shape, kernel, stride, (_, width) = image or image_of(draw)
    count, channels, shifted = draw.one_of(1, 2), draw.one_of(1, 3, 8), draw.one_of(True, False)
    for _ in range(count):
        draw.array(*shape)
        draw.array(width, channels, shared=None)
    if shifted:
        draw.array(channels, shared=None)

    def call(*arrays):
        pairs = [(kernels.patches(x, kernel, stride), W) for x, W in pairs_of(arrays, count)]
        return kernels.product_sum(*pairs, shift=arrays[-1] if shifted else None)

    return draw.case(call, count * width + 1)


def products_of_transposed_patches(draw: Draw, image=None) -> Case:
    shape, kernel, stride, (rows, _) = image or image_of(draw)
    count, channels = draw.one_of(1, 2), draw.one_of(1, 3, 8)
    for _ in range(count):
        draw.array(*shape)
        draw.array(rows, channels)

    def call(*arrays):
        seen = [(kernels.patches(x, kernel, stride), dy) for x, dy in pairs_of(arrays, count)]
        return kernels.product_sum(*((S.swapaxes(1, 2), dy) for S, dy in seen))

    return draw.case(call, count * rows)


def patches_transpose(draw: Draw, image=None) -> Case:
    shape, kernel, stride, (rows, width) = image or image_of(draw)
    count, terms = draw.one_of(1, 2), 0
    for _ in range(count):
        inner = draw.one_of(1, 3, 8)
        draw.array(rows, inner)
        draw.array(width, inner, shared=None)
        terms += kernel * kernel * inner

    def call(*arrays):
        pairs, tasks = pairs_of(arrays, count), len(arrays[0])
        options = {"image_shape": (tasks, *shape), "kernel": kernel, "stride": stride}
        return kernels.patches_transpose(*pairs, **options)

    return draw.case(call, terms)


def parameters(draw: Draw) -> None:
    """A gradient of each task, and phi of each task or of all."""
    size = draw.one_of(0, 1, 3, 17)
    draw.array(size)
    if draw.one_of(True, False):
        draw.flat(size)
    else:
        draw.array(size)


def sgd_update(draw: Draw) -> Case:
    parameters(draw)

    def sizes(g, phi):
        return (np.abs(phi) + 0.05 * np.abs(g),)

    return draw.case(lambda g, phi: kernels.sgd_update(phi, g, 0.05), 2, sizes=sizes)


def adam_update(draw: Draw) -> Case:
    parameters(draw)
    beta1, beta2, eps, rate, steps = draw.one_of(0.0, 0.9), 0.9, 1e-3, 0.05, draw.one_of(1, 2, 3)
    c1, c2 = 1 - beta1**steps, 1 - beta2**steps
    if steps > 1:  # the second moment is a mean of squares
        for power in (1, 2):
            draw.array(draw.arrays[0].shape[1])
            draw.arrays[-1] = draw.arrays[-1] ** power

    def call(g, phi, m=None, v=None):
        after = kernels.adam_update(phi, g, m, v, rate, beta1, beta2, c1, c2, eps)
        assert (after[1] is g) == (beta1 == 0)
        return after if beta1 else (after[0], after[2])

    def sizes(g, phi, m=0.0, v=0.0):
        """The second moment is a sum of terms without a sign, if it is real.

        The relative error of a complex one is larger, as its terms may cancel,
        and half of it is that of its root.
        """
        square, before = (1 - beta2) * g * g, beta2 * v
        moment = np.abs(before) + np.abs(square)
        exact = np.abs(before + square)
        first = (1 - beta1) * np.abs(g) + (beta1 * np.abs(m) if beta1 else 0)
        step = rate * first / c1 / (np.sqrt(exact / c2) + eps)
        known = np.isfinite(moment) & (exact > 0)
        cancelled = np.divide(moment, exact, out=np.ones_like(moment), where=known)
        after = np.abs(phi) + 2 * step * (1 + cancelled)
        return (after, first, moment) if beta1 else (after, moment)

    return draw.case(call, 8, *[3] * (2 if beta1 else 1), sizes=sizes)


# Each twin, by the name of its function and what it is given.
CASES = {
    "adam_update": adam_update,
    "channel_combination": channel_combination,
    "channel_dots": channel_dots,
    "channel_means": channel_means,
    "channel_sums": channel_sums,
    "dots_and_sums": dots_and_sums,
    "masked": masked,
    "patches": patches,
    "patches_transpose": patches_transpose,
    "product_sum of matrices": matrices,
    "product_sum of patches": products_of_patches,
    "product_sum of transposed patches": products_of_transposed_patches,
    "sgd_update": sgd_update,
}
BY_BLOCKS = {name: CASES[name] for name in CASES if "patches" in name and name != "patches"}
every_twin = pytest.mark.parametrize("name", CASES)


@st.composite
def cases(draw, name, tasks=st.integers(0, 3), dtypes=dtypes) -> Case:
    least = int(name == "patches_transpose")  # it is not defined without a task
    return CASES[name](Draw(draw, draw(dtypes), max(least, draw(tasks))))


def results(case: Case, arrays, on: bool) -> tuple[np.ndarray, ...]:
    """The results with twins, or of the plain definitions."""
    with twins(on), np.errstate(all="ignore"):
        made = case.call(*arrays)
    return made if isinstance(made, tuple) else (made,)


def sizes(case: Case) -> tuple[np.ndarray, ...]:
    if case.sizes is None:
        absolute = [np.abs(a).astype(float) if of_numbers(a) else a for a in case.arrays]
        return results(case, absolute, False)
    with np.errstate(all="ignore"):
        return case.sizes(*case.arrays)


def rounding(dtype, terms):
    """The rounding of ``terms`` terms, multiplied and added in another
    order."""
    return 2 * (terms + 2) * np.finfo(dtype).eps


def of_numbers(a: np.ndarray) -> bool:
    """Whether ``a`` is no mask and holds no places."""
    return a.dtype.kind in "fc"


def coarsest(arrays) -> np.dtype:
    """The dtype of the fewest digits among the arrays."""
    return max((a.dtype for a in arrays if of_numbers(a)), key=lambda t: np.finfo(t).eps)


def assert_equal_to_rounding(case: Case, arrays) -> None:
    """The results of the twin on ``arrays`` are those of the plain
    definition."""
    got, want = results(case, arrays, True), results(case, case.arrays, False)
    for a, b, size, terms in zip(got, want, sizes(case), case.terms, strict=True):
        assert type(a) is np.ndarray and a.dtype == b.dtype and a.shape == b.shape
        assert a.flags.c_contiguous or len({each.dtype for each in arrays if of_numbers(each)}) > 1
        assert not any(np.shares_memory(a, each) for each in arrays)
        if terms == 0:
            assert np.array_equal(a, b, equal_nan=True)
            continue
        known = np.isfinite(b)
        assert np.array_equal(a[~known], b[~known], equal_nan=True), "NaN and infinity"
        error, bound = np.abs(a - b)[known], rounding(coarsest(case.arrays), terms) * size[known]
        assert (error <= bound).all(), f"{(error / bound).max():.1f} times the rounding"


def laid_out(a: np.ndarray, layout: str) -> np.ndarray:
    """The same numbers, elsewhere in memory."""
    if layout == "Fortran":
        return a.copy(order="F")
    if layout == "strided":
        wide = np.zeros(tuple(2 * size for size in a.shape), a.dtype)
        view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
        view[...] = a
        return view
    if layout == "reversed":
        return np.ascontiguousarray(a[..., ::-1])[..., ::-1]
    made = a.copy()
    made.flags.writeable = layout != "read-only"
    return made


layouts = st.sampled_from(["contiguous", "Fortran", "strided", "reversed", "read-only"])


def test_every_twin_is_tested_here():
    public = {
        name
        for name, each in vars(host_kernels).items()
        if isfunction(each) and each.__module__ == host_kernels.__name__ and name[0] != "_"
    }
    assert public == {name.split()[0] for name in CASES}
    assert all(hasattr(kernels, name) for name in public)


@every_twin
@given(data=st.data())
def test_a_twin_computes_its_plain_definition_from_any_layout(name, data):
    case = data.draw(cases(name))
    arrays = [laid_out(a, data.draw(layouts)) for a in case.arrays]
    assert_equal_to_rounding(case, arrays)
    for a, before in zip(arrays, case.arrays, strict=True):
        assert_same(a, before, "an input after the twin")


@given(dtypes, st.integers(0, 17), st.booleans(), st.integers(1, 3), seeds)
def test_parameters_may_be_one_vector(dtype, size, with_memory, steps, seed):
    """A step of a single task, without a task axis."""
    rng = np.random.default_rng(seed)
    phi, g, m, v = np.abs(rng.standard_normal((4, size))).astype(dtype)
    m, v = (None, None) if steps == 1 else (m, v)
    beta1 = 0.9 if with_memory else 0.0
    given_numbers = 0.05, beta1, 0.9, 1 - beta1**steps, 1 - 0.9**steps, 1e-3
    got, want = [], []
    for on, made in ((True, got), (False, want)):
        with twins(on):
            made += kernels.adam_update(phi, g, m, v, *given_numbers)
            made.append(kernels.sgd_update(phi, g, 0.05))
    for a, b in zip(got, want, strict=True):
        assert a.shape == b.shape == (size,) and a.dtype == dtype
        assert np.allclose(a, b, rtol=rounding(dtype, 8), atol=rounding(dtype, 8))


@pytest.mark.parametrize("name", BY_BLOCKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@settings(max_examples=3)
@given(data=st.data())
def test_images_of_several_blocks_of_patches(name, dtype, data):
    """The last block is smaller than the others."""
    shape, kernel, stride = (2, 31, 27, 40), 3, data.draw(st.sampled_from([1, 2]))
    rows, width = patches_shape(shape, kernel, stride)
    line = Windows(shape[1:3], kernel, stride).counts[1] * width * np.dtype(dtype).itemsize
    lines = rows * width * np.dtype(dtype).itemsize // line
    assert lines > host_kernels.BLOCK // line > 1 and lines % (host_kernels.BLOCK // line)
    draw = Draw(data.draw, dtype, 2)
    case = BY_BLOCKS[name](draw, (shape, kernel, stride, (rows, width)))
    assert_equal_to_rounding(case, case.arrays)


def with_one(case: Case, number: float, data, without: slice = slice(0)) -> Case:
    """``case`` with ``number`` in one place of one array, none of
    ``without``."""
    places = [i for i, a in enumerate(case.arrays) if of_numbers(a) and a.size]
    left_out = range(len(case.arrays))[without]
    places = [i for i in places if i not in left_out]
    arrays = [a.copy() for a in case.arrays]
    if places:
        array = arrays[data.draw(st.sampled_from(places))]
        array.reshape(-1)[data.draw(st.integers(0, array.size - 1))] = number
    return case._replace(arrays=tuple(arrays))


def finite_in(name: str) -> slice:
    """The arrays that stay finite.

    A weight of a convolution meets the zeros around an image, whose product
    with infinity is NaN. The transpose of a convolution has such zeros only
    where it is computed as a convolution.
    """
    return slice(1, None, 2) if name == "patches_transpose" else slice(0)


@every_twin
@given(data=st.data())
def test_nan_comes_out_where_the_plain_definition_lets_it_out(name, data):
    case = with_one(data.draw(cases(name)), np.nan, data, finite_in(name))
    assert_equal_to_rounding(case, case.arrays)


@every_twin
@given(data=st.data())
def test_infinity_comes_out_as_from_the_plain_definition(name, data):
    """Infinite complex numbers have no one product."""
    real = st.sampled_from([np.float32, np.float64])
    case = with_one(data.draw(cases(name, dtypes=real)), np.inf, data, finite_in(name))
    assert_equal_to_rounding(case, case.arrays)


@every_twin
@given(data=st.data())
def test_one_array_may_have_another_dtype(name, data):
    case = data.draw(cases(name))
    another = {"float32": np.float64, "float64": np.float32, "complex128": np.float64}
    arrays = list(case.arrays)
    one = data.draw(st.sampled_from([i for i, a in enumerate(arrays) if of_numbers(a)]))
    arrays[one] = arrays[one].real.astype(another[arrays[one].dtype.name])
    assert_equal_to_rounding(case._replace(arrays=tuple(arrays)), arrays)


def of_one_task(case: Case, t: int) -> list[np.ndarray]:
    each = zip(case.arrays, case.of_tasks, strict=True)
    return [a[t : t + 1] if of_tasks else a for a, of_tasks in each]


@every_twin
@given(data=st.data())
def test_a_task_has_the_same_bits_alone_and_among_others(name, data):
    """Also beside tasks that overflow."""
    case = data.draw(cases(name, tasks=st.integers(1, 4)))
    tasks = next(len(a) for a, of in zip(case.arrays, case.of_tasks, strict=True) if of)
    t = data.draw(st.integers(0, tasks - 1))
    spoiled = [a.copy() for a in case.arrays]
    for a, of_tasks in zip(spoiled, case.of_tasks, strict=True):
        if of_tasks and of_numbers(a):
            a[np.arange(tasks) != t] = np.nan
    alone, among, beside_nan = (
        results(case, arrays, True) for arrays in (of_one_task(case, t), case.arrays, spoiled)
    )
    for one, several, others in zip(alone, among, beside_nan, strict=True):
        assert len(several) == tasks and len(one) == 1
        assert np.array_equal(one[0], several[t], equal_nan=True)
        assert np.array_equal(one[0], others[t], equal_nan=True)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10)
@given(data=st.data())
def test_threads_side_by_side_have_the_bits_of_one(name, data):
    case = data.draw(cases(name, tasks=st.just(3)))
    with threads.workers(1):
        want = results(case, case.arrays, True)
    with twins(True), np.errstate(all="ignore"), threads.workers(4) as starmap:
        made = starmap(case.call, [case.arrays] * 12)
    for each in made:
        each = each if isinstance(each, tuple) else (each,)
        for a, b in zip(each, want, strict=True):
            assert np.array_equal(a, b, equal_nan=True)
