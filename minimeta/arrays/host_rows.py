"""What the compiled twins share: arrays of tasks, rows of several pixels."""

from __future__ import annotations

import numpy as np

from .compiled import helper


def contiguous(a: np.ndarray) -> np.ndarray:
    """``a``, copied where it is not contiguous."""
    taken = type(a) is np.ndarray and a.flags.c_contiguous
    return a if taken else np.ascontiguousarray(a)


@helper
def of_task(a, t):
    """What belongs to task t in an array whose first axis is T or 1."""
    return a[t if a.shape[0] > 1 else 0]


@helper
def fold(sums, channels):
    """Add the numbers of several pixels side by side to those of the first,
    channel by channel."""
    for k in range(sums.shape[0]):
        for first in range(channels, sums.shape[1], channels):
            for c in range(channels):
                sums[k, c] += sums[k, first + c]


@helper
def spread(factors, channels):
    """Copy the numbers of the first pixel to those beside it."""
    for k in range(factors.shape[0]):
        for first in range(channels, factors.shape[1], channels):
            for c in range(channels):
                factors[k, first + c] = factors[k, c]
