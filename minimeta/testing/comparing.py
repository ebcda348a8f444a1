"""A derivative compared with both oracles.

The complex step decides, to ten digits. A real difference, to five digits,
guards the complex step. The complex step misses every part of a function that
is not analytic (an absolute value, a norm, a real part stored in a cache), and
the real difference sees those parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .complex_step import complex_step, real_difference, tree_map
from .findings import CheckError, Findings

# Rounding of float64 (1e-16) through sums of a few thousand terms and a few
# divisions.
TOLERANCE = 1e-10
# A real difference with step 1e-7 has an error of about 1e-9, and more where a
# function bends sharply.
ROUGH = 1e-5
# Float32 results differ from float64 ones by rounding; this bound only catches
# a different function.
SINGLE = 1e-2
# A result this small beside its terms is compared to thirteen digits of the
# terms, and not to ten digits of itself.
ZERO = 1e-3


def compare(
    findings: Findings,
    pass_name: str,
    term: str,
    got: np.ndarray,
    function: Callable[..., np.ndarray],
    at: tuple,
    along: tuple,
    tolerance: float,
    scale: Any = None,
    floor: float = 0.0,
) -> None:
    """Compares ``got`` with the derivative of ``function`` by both oracles.

    The derivative is taken at ``at`` along ``along``. Differences are relative
    to ``scale``, or to max |want| + ``floor`` where ``scale`` is None.
    """
    try:
        want = complex_step(function, at, along)
    except Exception as error:
        raise CheckError(
            f"{findings.name}: a pass does not take complex input "
            f"({type(error).__name__}: {error}), which the complex step needs: compare by real "
            "part, and allocate with the dtype of the input"
        ) from error
    if scale is None:
        scale = np.abs(want).max(initial=0.0) + floor
    if not findings.close(pass_name, term, got, want, tolerance, scale):
        return
    size = np.abs(want).max(initial=0.0) + np.abs(function(*at)).max(initial=0.0)
    smooth = True
    # Two kinks within one step can cancel in the test of smoothness. With two
    # step sizes this hardly ever happens.
    for h in (1e-7, 1e-8):
        slope, bend = real_difference(function, at, along, h)
        # A large bend means a kink within the step, where there is no
        # derivative.
        smooth = smooth & (bend <= ROUGH * size)
        if np.abs((got - slope) * smooth).max(initial=0.0) <= ROUGH * size:
            break
    note = (
        f"{term} from a real difference "
        "(does the pass take an absolute value, a norm or a real part?): it"
    )
    findings.close(pass_name, note, got * smooth, slope * smooth, ROUGH, size)


def dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The per-task <a, b>, ``(T,)``."""
    return (a * b).reshape(len(a), -1).sum(axis=1)


def leaves(tree: Any) -> list[np.ndarray]:
    """The arrays of a tree of dicts and tuples."""
    found: list[np.ndarray] = []
    tree_map(found.append, tree)
    return found
