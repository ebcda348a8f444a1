"""Matrix products inside compiled functions: by OpenBLAS, and by loops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from minimeta.testing import assert_same
from minimeta.testing.strategies import dtypes, seeds

pytest.importorskip("numba")
from minimeta.arrays.compiled import compiles
from minimeta.arrays.host_blas import gemm, gemm_address


@compiles("intp", "b1", "b1", "in t[:, :]", "in t[:, :]", "intp", "t[:, :]")
def product(address, ta, tb, a, b, beta, c):
    gemm(address, ta, tb, a, b, beta, c)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
def test_the_address_is_found_where_numpy_has_an_openblas_of_its_own(dtype):
    paths = [each["filepath"] for each in threadpool_info() if each["internal_api"] == "openblas"]
    if not any("numpy" in path for path in paths):
        pytest.skip("NumPy uses another BLAS")
    assert gemm_address(np.dtype(dtype)) != 0


sizes = st.one_of(st.integers(0, 9), st.just(33))


@given(
    sizes, sizes, sizes, dtypes, st.booleans(), st.booleans(), st.booleans(), st.booleans(), seeds
)
def test_both_ways_give_the_product(m, n, k, dtype, ta, tb, added, wide, seed):
    """To the rounding of k products. Rows may be longer than the matrix, and
    what lies beside it stays as it is."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)

    def drawn(rows, columns):
        values = rng.standard_normal((rows, columns + 3 * wide))
        if dtype.kind == "c":
            values = values + 1j * rng.standard_normal(values.shape)
        return values.astype(dtype)

    a, b, c = drawn(*((k, m) if ta else (m, k))), drawn(*((n, k) if tb else (k, n))), drawn(m, n)
    inside = slice(None), slice(None, -3 if wide else None)
    A, B = (each[inside].T if t else each[inside] for each, t in ((a, ta), (b, tb)))
    before = c[inside].copy() if added else np.zeros((m, n), dtype)
    want, size = before + A @ B, np.abs(before) + np.abs(A) @ np.abs(B)
    if not added:
        c[inside] = np.nan  # what C held does not count
    for address in (gemm_address(dtype), 0):
        got = c.copy()
        product(dtype, address, ta, tb, a[inside], b[inside], int(added), got[inside])
        error = np.abs(got[inside] - want)
        assert (error <= 2 * (k + 3) * np.finfo(dtype).eps * size).all()
        if wide:
            assert_same(got[:, -3:], c[:, -3:], "what lies beside C")
