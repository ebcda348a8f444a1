"""On a GPU every kernel computes the same as on the CPU.

Copies agree to the last bit. Sums and products agree to the rounding of so many
terms in another order.
"""

import numpy as np
import pytest

from minimeta.arrays import device_kernels, kernels
from minimeta.testing import assert_same

pytestmark = pytest.mark.gpu
DTYPES = (np.float32, np.float64, np.complex128)


def draw(rng, shape, dtype):
    """Numbers of one sign, so that no sum cancels; complex ones have both
    parts."""
    values = rng.uniform(1, 2, shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.uniform(1, 2, shape)
    return values.astype(dtype)


def both(cupy, kernel, *arrays, **options):
    """The results on the host and on the device, and there on views without a
    contiguous axis too."""
    there = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in arrays]
    views = [
        cupy.repeat(a, 2, axis=-1)[..., ::2] if isinstance(a, cupy.ndarray) else a for a in there
    ]
    here = kernel(*arrays, **options)
    for made in (kernel(*there, **options), kernel(*views, **options)):
        pairs = zip(here, made, strict=True) if isinstance(here, tuple) else [(here, made)]
        for a, b in pairs:
            assert isinstance(b, cupy.ndarray)
            assert b.dtype == a.dtype and b.shape == a.shape
            yield a, b.get()


def close(cupy, terms, kernel, *arrays, **options):
    for here, there in both(cupy, kernel, *arrays, **options):
        allowed = 4 * (terms + 4) * np.finfo(here.dtype).eps
        assert (np.abs(there - here) <= allowed * np.abs(here)).all()


def same(cupy, kernel, *arrays, **options):
    for here, there in both(cupy, kernel, *arrays, **options):
        assert_same(there, here, "the copy")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 2), (2, 1, 3, 3, 4), (1, 7, 1), (2, 0, 3)])
def test_sums_and_dots(cupy, shape, dtype):
    rng, terms = np.random.default_rng(0), int(np.prod(shape[1:-1]))
    a, b = draw(rng, shape, dtype), draw(rng, shape, dtype)
    close(cupy, terms, kernels.channel_sums, a)
    if terms:
        close(cupy, terms, kernels.channel_means, a)
    close(cupy, terms, kernels.channel_dots, a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_combinations(cupy, dtype):
    rng = np.random.default_rng(1)
    a, b = draw(rng, (3, 5, 2, 4), dtype), draw(rng, (3, 5, 2, 4), dtype)
    own, shared = draw(rng, (3, 4), dtype), draw(rng, (1, 4), dtype)

    def combined(own, shared, a, b):
        return kernels.channel_combination((own, a), (1, b), (2.5, a), (shared, b), shift=own)

    close(cupy, 5, combined, own, shared, a, b)
    close(cupy, 1, lambda a, own: kernels.channel_combination((1, a), shift=own), a, own)
    same(cupy, lambda a: kernels.channel_combination((1, a)), a)


def test_what_a_real_array_cannot_hold_is_held_by_the_result(cupy):
    rng = np.random.default_rng(6)
    a, b = draw(rng, (2, 3, 4), np.float64), draw(rng, (2, 3, 4), np.complex128)
    factor, matrix = draw(rng, (2, 4), np.complex128), draw(rng, (1, 4, 5), np.float64)
    close(cupy, 3, kernels.channel_dots, a, b)
    close(cupy, 3, lambda f, a, b: kernels.channel_combination((1, a), (f, b)), factor, a, b)
    close(cupy, 8, lambda a, b, m: kernels.product_sum((a, m), (b, m)), a, b, matrix)
    close(cupy, 1, lambda a, b: kernels.beside([a, b]), a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shared", [True, False])
def test_products(cupy, dtype, shared):
    rng = np.random.default_rng(2)
    a, b = draw(rng, (3, 5, 4), dtype), draw(rng, (1 if shared else 3, 4, 2), dtype)
    shift = draw(rng, (3, 2), dtype)
    close(cupy, 9, lambda a, b, v: kernels.product_sum((a, b), (a, b), shift=v), a, b, shift)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((2, 3, 5, 6, 2), 3, 1),
        ((2, 1, 5, 6, 3), 3, 2),
        ((1, 2, 4, 7, 1), 2, 2),
        ((2, 2, 3, 3, 2), 1, 2),
        ((1, 1, 2, 1, 1), 4, 3),
    ],
)
def test_patches_and_their_transpose(cupy, shape, kernel, stride, dtype):
    rng = np.random.default_rng(3)
    x = draw(rng, shape, dtype)
    same(cupy, lambda x: kernels.patches(x, kernel, stride), x)
    rows, inner = kernels.patches(x, kernel, stride).shape[1:]
    a, b = draw(rng, (shape[0], rows, 4), dtype), draw(rng, (1, inner, 4), dtype)

    def added_back(a, b, c):
        sizes = {"image_shape": shape, "kernel": kernel, "stride": stride}
        return kernels.patches_transpose((a, b), (a, c), **sizes)

    close(cupy, 8 * kernel**2, added_back, a, b, draw(rng, (shape[0], inner, 4), dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [2, 3, device_kernels.MOST_BESIDE + 1])
def test_arrays_beside_each_other(cupy, count, dtype):
    rng = np.random.default_rng(4)
    parts = [draw(rng, (1 if i == 1 else 2, 3, i % 4), dtype) for i in range(count)]
    same(cupy, lambda *parts: kernels.beside(parts), *parts)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_a_step_of_adam(cupy, dtype, beta1):
    rng = np.random.default_rng(5)
    phi, g, m, v = draw(rng, (4, 2, 7), dtype)
    numbers = 0.01, beta1, 0.999, 1 - beta1, 1e-3, 1e-8
    for moments in ((None, None), (m, v)):
        close(cupy, 4, kernels.adam_update, phi, g, *moments, *numbers)
