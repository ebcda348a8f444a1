"""Gradient agreement (Eshratifar, Eigen and Pedram 2018): tasks that agree with the rest count for more."""

from __future__ import annotations

from ..arrays.backend import Array, array_module


def gradient_agreement(per_task: Array) -> Array:
    """sum_i w_i g_i for directions g_i ``(T, M)``, of any algorithm: ``(T, M) -> (M,)``.

        w_i = s_i / sum_k |s_k|,  s_i = sum_j g_i . g_j = g_i . G,  G = sum_j g_j.

    The weights' absolute values sum to 1; a task opposed to the mean of the batch has a negative one; equal directions give
    the plain mean. G is formed once, so the cost is that of three passes over the directions, not of T^2 products. Where
    every s_i is 0 the weights are not defined, and are those of the plain mean.
    """
    return agreement_weights(per_task) @ per_task


def agreement_weights(per_task: Array) -> Array:
    """w, ``(T,)``."""
    xp = array_module(per_task)
    s = per_task @ per_task.sum(axis=0)
    total = xp.abs(s).sum()
    return xp.where(
        total == 0, xp.ones_like(s) / len(s), s / xp.where(total == 0, xp.ones_like(total), total)
    )
