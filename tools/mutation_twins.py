"""The compiled twins as they are interpreted, to be mutated.

With ``NUMBA_DISABLE_JIT=1`` in the environment a compiled function is the
Python function that it is written as, so it can be mutated like any other. The
twins have loops in the place of array expressions, and so more mutants. What
compiled code does with the same statements is not judged here:
tests/arrays/test_host_kernels.py compares it with the plain definitions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numba
import numpy as np
from mutation_targets import Target, each_of
from mutation_twin_checks import (
    blas,
    of_combinations,
    of_dtypes,
    of_gemm,
    of_joined_layers,
    of_masked,
    of_networks,
    of_norms,
    of_passes,
    of_patches,
    of_products,
    of_rows,
    of_updates,
)

import minimeta as mm
from minimeta.arrays import (
    host_blas,
    host_convnet,
    host_kernels,
    host_norm,
    host_perceptron,
    host_rows,
    kernels,
    rows,
)
from minimeta.arrays.compiled import Compiled, twins
from minimeta.layers.perceptron import Perceptron
from minimeta.layers.rectified_norm import RectifiedNorm

_NUMBERS = {"intp": (int, np.integer), "f8": (float, np.floating), "b1": (bool, np.bool_)}
_NUMBERS["r"] = _NUMBERS["f8"]
_ENTRIES = {"i8": np.int64, "u1": np.uint8, "b1": np.bool_}
# Small images have several blocks, and the last is smaller than others.
_ROWS, _BYTES, _LONG = 12, 1200, 6


@contextmanager
def interpreted() -> Iterator[None]:
    """Twins are used inside the block, as Python functions.

    A call is refused where compiled code would refuse it. What is not written
    is NaN, and not by chance what it should be.

    Raises
    ------
    RuntimeError
        if Numba compiles.
    """
    if not numba.config.DISABLE_JIT:
        raise RuntimeError("Numba compiles: set NUMBA_DISABLE_JIT=1 before Python starts")
    with ExitStack() as stack:
        stack.enter_context(twins(True))
        for owner, name, value in (
            (Compiled, "__call__", _called),
            (np, "empty", _spoiled(np.empty)),
            (host_blas, "_call", blas),
            (rows, "_WIDE", _LONG),
            (host_kernels, "ROWS", _ROWS),
            (host_kernels, "BLOCK", _BYTES),
            (host_kernels, "gemm_address", lambda dtype: 1),
            (host_perceptron, "gemm_address", lambda dtype: 1),
            (host_convnet, "gemm_address", lambda dtype: 1),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


def _called(self: Compiled, dtype: np.dtype, *arguments: Any) -> None:
    """Call the Python function, on arguments of the types that it is compiled
    for."""
    given = zip(self.kinds, arguments, strict=True)
    self.function(*(_of_kind(kind, each, dtype) for kind, each in given))


def _of_kind(kind: str, argument: Any, dtype: np.dtype) -> Any:
    """``argument``, which cannot be written to if ``kind`` says so."""
    name, _, axes = kind.removeprefix("in ").partition("[")
    if not axes:
        assert isinstance(argument, _NUMBERS[name]), f"{argument!r} is no {name}"
        return argument
    entries = np.dtype(_ENTRIES.get(name, dtype))
    assert argument.dtype == entries and argument.ndim == axes.count(",") + 1
    assert "::1" not in axes or argument.flags.c_contiguous
    if kind.startswith("in "):
        argument = argument.view()
        argument.flags.writeable = False
    assert kind.startswith("in ") or argument.flags.writeable
    return argument


def _spoiled(empty: Any) -> Any:
    def spoiled(*arguments: Any, **options: Any) -> np.ndarray:
        a = empty(*arguments, **options)
        a.fill(np.nan if a.dtype.kind in "fc" else 3)
        return a

    return spoiled


def targets() -> list[Target]:
    """Every function of the twins that computes, and what only runs with
    them."""
    return [*_kernels(), *_products(), *_joined()]


def _kernels() -> Iterator[Target]:
    networks = tuple(of_networks())
    of_channels = *of_rows(), *networks
    combinations = *of_combinations(), *networks
    updates = *of_updates(), *networks
    sums = "channel_sums channel_means channel_dots dots_and_sums _sums _dots_and_sums"
    yield from each_of(host_kernels, f"{sums} _rows", of_channels)
    yield from each_of(host_rows, "contiguous of_task", (*of_channels, *of_updates()))
    combine = "channel_combination _factor _one_for_all _combine_one _combine_two _add_term fill"
    yield from each_of(host_kernels, combine, combinations)
    yield from each_of(host_kernels, "masked _masked _flat", (*of_masked(), *networks))
    rules = "sgd_update adam_update _vectors _sgd _adam"
    yield from each_of(host_kernels, rules, updates)
    yield from each_of(kernels, "_adam_twin", updates)


def _products() -> Iterator[Target]:
    networks = tuple(of_networks())
    by_patches = *of_patches(), *networks
    of_class = "__init__ swapaxes __array__"
    yield from each_of(host_kernels.Patches, f"{of_class} lines", by_patches)
    yield from each_of(host_kernels.PatchesTransposed, "__init__ __array__", by_patches)
    gathered = "patches geometry _gather _scatter _rows_together _all_patches _convolve _correlate"
    made = f"{gathered} _convolve_transpose patches_transpose _two _turned _matrices"
    yield from each_of(host_kernels, made, by_patches)
    products = *of_products(), *by_patches
    yield from each_of(host_kernels, "product_sum _add_shift _follow", products)
    yield from each_of(host_blas, "gemm gemm_of_flat _add_by_loops", tuple(of_gemm()))


def _joined() -> Iterator[Target]:
    """The layers that stand for several."""
    networks = tuple(of_networks())
    public = "forward backward forward_tangent backward_tangent"
    compiled = "_forward _backward _forward_tangent _backward_tangent"
    dense = *of_passes(), *networks
    helpers = "affine add_product _dot gradient pulled copy _rectify _mask column_sums"
    yield from each_of(host_perceptron, f"{public} {compiled} {helpers} _array _flat", dense)
    norms = *of_norms(), *networks
    of_task = " ".join(f"{each}_of_task" for each in public.split())
    helpers = "_rows _add_part _moments _select_largest _select select_transpose _images"
    yield from each_of(host_norm, f"{public} {compiled} {of_task} {helpers}", norms)
    yield from each_of(host_rows, "fold spread", norms)
    layers = *of_joined_layers(), *networks
    yield from each_of(Perceptron, public, layers)
    yield from each_of(RectifiedNorm, public, layers)
    yield from each_of(kernels, "alike", (*of_dtypes(), *layers))
    yield from each_of(mm.Network, "dot", layers)
