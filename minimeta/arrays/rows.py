"""Rows of a few numbers, taken several at a time.

A loop, of NumPy or compiled, starts anew at each row. Rows of 64 numbers or
less take as long to start as to compute, so several that follow each other are
taken as one, beside copies of what belongs to a channel.
"""

from __future__ import annotations

import math
from functools import lru_cache

_WIDE = 512  # numbers of a row of several pixels, in compiled functions


@lru_cache
def rows_together(count: int, channels: int, wide: int) -> int:
    """How many rows of ``channels`` numbers to take as one row of about
    ``wide``: a divisor of ``count``."""
    most = min(max(1, wide // channels), max(1, count))
    return next(each for each in range(most, 0, -1) if count % each == 0)


def pixels_together(shape: tuple[int, ...]) -> int:
    """How many pixels of images ``(T, ..., C)`` compiled functions take as one
    row."""
    return rows_together(math.prod(shape[1:-1]), shape[-1], _WIDE)
