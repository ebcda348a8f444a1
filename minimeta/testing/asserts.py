"""Two assertions whose messages give the name and the size of the error."""

from __future__ import annotations

import numpy as np


def assert_same(got: np.ndarray, want: np.ndarray, what: str) -> None:
    """Raise an AssertionError that names ``what`` unless got == want, to the
    bit."""
    assert np.array_equal(got, want), f"{what} differs by {np.abs(got - want).max():.1e}"


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float, what: str) -> None:
    """Raise an AssertionError that names ``what`` unless ``got`` is close.

    The shapes must agree, ``want`` must be finite, and max |got - want| <=
    tolerance * max |want|.
    """
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    assert np.isfinite(want).all(), f"{what}: the value to compare with is not finite"
    if want.size:
        error, scale = np.abs(got - want).max(), np.abs(want).max()
        assert error <= tolerance * scale, (
            f"{what} differs by {error / scale if scale else np.inf:.1e} relative ({error:.1e})"
        )
