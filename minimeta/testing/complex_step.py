"""The complex step: Im F(x + i h v) / h is the derivative of F along v.

For F analytic, F(x + i h v) = F(x) + i h F'(x) v + O(h^2). With h = 1e-30 the
error h^2 is far below rounding. Nothing is subtracted, so nothing cancels, and
the derivative is exact to rounding. All passes of minimeta accept complex input
for this reason: they compare by real part, and never take an absolute value or
a conjugate. A function that takes one is not analytic, and the complex step
does not see the paths through it. ``real_difference`` sees them, to about eight
digits, and is the second oracle of every check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

STEP = 1e-30


def complex_step(function: Callable[..., Any], at: tuple, along: tuple) -> Any:
    """The derivative of ``function(*at)`` along ``along``.

    Arguments and result are float64 arrays, or dicts or tuples of arrays. A
    part of the result that stays real has derivative zero.
    """
    return tree_map(lambda y: np.imag(y) / STEP, function(*_moved(at, along, 1j * STEP)))


def real_difference(
    function: Callable[..., np.ndarray], at: tuple, along: tuple, h: float = 1e-7
) -> tuple[np.ndarray, np.ndarray]:
    """The same derivative without complex numbers, and the bend.

    ``function`` returns one array. The derivative is (F(x + h v) - F(x - h v))
    / 2h. The bend is the difference of the slopes on the two sides, |F(x + h v)
    - 2 F(x) + F(x - h v)| / h. It is of the order of h where F is smooth, and
    larger at a kink. h = 1e-7 balances the two errors, h^2 and rounding of F
    over h.
    """
    ahead, here, behind = (function(*_moved(at, along, step)) for step in (h, 0.0, -h))
    return (ahead - behind) / (2 * h), np.abs(ahead - 2 * here + behind) / h


def _moved(at: tuple, along: tuple, step: complex) -> tuple:
    return tree_map(lambda x, v: x + step * v, at, along)


def tree_map(function: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """``function`` on every array of a tree of dicts and tuples.

    ``others`` are trees of the same form, whose arrays are further arguments.
    """
    if isinstance(tree, dict):
        return {
            name: tree_map(function, tree[name], *(other[name] for other in others))
            for name in tree
        }
    if isinstance(tree, tuple):
        return tuple(tree_map(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)
