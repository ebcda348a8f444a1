"""Gradient agreement (Eshratifar, Eigen and Pedram 2018).

A task whose direction agrees with the other tasks' gets a larger weight.
"""

from __future__ import annotations

from ..arrays.backend import Array, array_module


def gradient_agreement(per_task: Array) -> Array:
    """sum_i w_i g_i, ``(M,)``, for any algorithm's directions g_i, ``(T, M)``.

        w_i = s_i / sum_k |s_k|,
        s_i = sum_j g_i . g_j = g_i . G,    G = sum_j g_j.

    The absolute values of the weights sum to 1. A task opposed to the mean of
    the meta-batch has a negative weight. Equal directions give the plain mean.
    G is formed once, so the cost is three passes over the directions instead of
    T^2 products. Where every s_i is 0 the formula is undefined, and the weights
    are 1/T, the plain mean's.
    """
    return agreement_weights(per_task) @ per_task


def agreement_weights(per_task: Array) -> Array:
    """The weights w of ``gradient_agreement``, ``(T,)``."""
    xp = array_module(per_task)
    s = per_task @ per_task.sum(axis=0)
    total = xp.abs(s).sum()
    return xp.where(
        total == 0, xp.ones_like(s) / len(s), s / xp.where(total == 0, xp.ones_like(total), total)
    )
