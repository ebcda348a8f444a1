"""Every kernel computes its plainest expression, and leaves its inputs as they are."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from minimeta.arrays import kernels
from minimeta.testing import assert_same
from minimeta.testing.strategies import dtypes, seeds, small


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
