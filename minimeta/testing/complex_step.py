"""The complex step: Im F(x + i h v) / h is the derivative of F along v, exact to rounding.

For F analytic, F(x + i h v) = F(x) + i h F'(x) v + O(h^2). With h = 1e-30 the error h^2 is far below rounding, and nothing
is subtracted, so nothing cancels. All passes of minimeta accept complex input for this reason: they compare by real part
and never take an absolute value or a conjugate.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

STEP = 1e-30


def complex_step(function: Callable[..., np.ndarray], at: tuple, along: tuple) -> np.ndarray:
    """Derivative of ``function(*at)`` along ``along``: float64 arrays, or trees of dicts of them, one for each argument."""
    return imaginary(function(*(_shifted(x, v) for x, v in zip(at, along, strict=True))))


def imaginary(result: np.ndarray) -> np.ndarray:
    """The derivative in a result of shifted arguments; zero where it is real."""
    return np.imag(result) / STEP


def _shifted(x, v):
    if isinstance(x, dict):
        return {name: _shifted(x[name], v[name]) for name in x}
    return x + 1j * STEP * v


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float, what: str) -> None:
    """Raise an AssertionError that names ``what`` unless max |got - want| <= tolerance * max |want|, and shapes agree."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    if want.size == 0:
        return
    scale = np.abs(want).max()
    error = np.abs(got - want).max()
    assert error <= tolerance * scale, f"{what} differs by {error / scale if scale else np.inf:.1e} relative ({error:.1e})"
