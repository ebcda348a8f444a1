"""Matrix products inside compiled functions, by the BLAS that NumPy uses.

Numba's own products need SciPy. Here a compiled function calls OpenBLAS by the
address of its ``cblas_?gemm``, without Python in between. Where NumPy uses
another BLAS the address is 0, and loops take its place.
"""

from __future__ import annotations

import ctypes
from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .compiled import OPTIONS

_LETTERS = {"float32": "s", "float64": "d", "complex128": "z"}
_ROW_MAJOR, _PLAIN, _TRANSPOSED = 101, 111, 112  # cblas.h


@cache
def gemm_address(dtype: np.dtype) -> int:
    """The address of OpenBLAS's ``gemm`` for ``dtype``, with sizes of 64 bits.

    It is 0 where there is none, or where functions are interpreted.
    """
    from threadpoolctl import threadpool_info

    if numba.config.DISABLE_JIT:
        return 0
    for library in threadpool_info():
        if library["internal_api"] == "openblas" and "numpy" in library["filepath"]:
            loaded = ctypes.CDLL(library["filepath"])
            for prefix in ("scipy_", ""):
                name = f"{prefix}cblas_{_LETTERS[dtype.name]}gemm64_"
                if hasattr(loaded, name):
                    return ctypes.cast(getattr(loaded, name), ctypes.c_void_p).value or 0
    return 0


@intrinsic
def _call(typingctx, address, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc):
    """C = op(A) op(B) + beta C, by the function at ``address``.

    An array stands for the address of its first number.
    """
    number, i64 = c.dtype, types.int64
    signature = types.void(
        types.intp, types.int32, types.int32, i64, i64, i64, a, i64, b, i64, number, c, i64
    )

    def codegen(context, builder, signature, arguments):
        address, ta, tb, m, n, k, a, lda, b, ldb, beta, c, ldc = arguments
        size, enum, place = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
        kinds = signature.args[6], signature.args[8], signature.args[11]
        a, b, c = (
            builder.bitcast(context.make_array(kind)(context, builder, value).data, place)
            for kind, value in zip(kinds, (a, b, c), strict=True)
        )
        alpha = context.get_constant_generic(builder, number, 1)
        scale = context.get_value_type(number)
        if isinstance(number, types.Complex):  # cblas takes complex numbers by their address
            scale = place
            alpha, beta = (
                builder.bitcast(cgutils.alloca_once_value(builder, each), place)
                for each in (alpha, beta)
            )
        kind = ir.FunctionType(
            ir.VoidType(),
            [enum] * 3 + [size] * 3 + [scale, place, size, place, size, scale, place, size],
        )
        order = ir.Constant(enum, _ROW_MAJOR)
        builder.call(
            builder.inttoptr(address, kind.as_pointer()),
            [order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc],
        )
        return context.get_dummy_value()

    return signature, codegen


@numba.njit(**OPTIONS)
def gemm(address, ta, tb, a, b, beta, c):
    """C = op(A) op(B) + beta C, for matrices whose rows are contiguous.

    ``ta`` and ``tb`` say whether A and B are transposed. beta is 0 or 1.
    """
    m, n = c.shape
    k = a.shape[0] if ta else a.shape[1]
    if address != 0 and m > 0 and n > 0 and k > 0:
        left, right = _TRANSPOSED if ta else _PLAIN, _TRANSPOSED if tb else _PLAIN
        # The stride of an axis of length 1 may be any number.
        lda = max(a.strides[0] // a.itemsize, a.shape[1])
        ldb = max(b.strides[0] // b.itemsize, b.shape[1])
        ldc, scale = max(c.strides[0] // c.itemsize, n), c.dtype.type(beta)
        _call(address, left, right, m, n, k, a, lda, b, ldb, scale, c, ldc)
        return
    if beta == 0:
        c[:] = 0
    _add_by_loops(a.T if ta else a, b.T if tb else b, c)


@numba.njit(**OPTIONS)
def gemm_of_flat(address, ta, tb, m, n, k, a, b, beta, c):
    """``gemm`` for contiguous matrices that are given as vectors.

    op(A) is ``(m, k)``, op(B) is ``(k, n)``. A reshape in compiled code takes
    about as long as a product of small matrices.
    """
    if address != 0:
        left, right = _TRANSPOSED if ta else _PLAIN, _TRANSPOSED if tb else _PLAIN
        lda, ldb = m if ta else k, k if tb else n
        _call(address, left, right, m, n, k, a, lda, b, ldb, c.dtype.type(beta), c, n)
        return
    into = c.reshape(m, n)
    if beta == 0:
        into[:] = 0
    A = a.reshape(k, m).T.copy() if ta else a.reshape(m, k).copy()
    B = b.reshape(n, k).T.copy() if tb else b.reshape(k, n).copy()
    _add_by_loops(A, B, into)


@numba.njit(**OPTIONS)
def _add_by_loops(a, b, c):
    """C += A B."""
    right = np.ascontiguousarray(b)
    for i in range(c.shape[0]):
        row = c[i]
        for h in range(right.shape[0]):
            factor, other = a[i, h], right[h]
            for j in range(row.shape[0]):
                row[j] += factor * other[j]
