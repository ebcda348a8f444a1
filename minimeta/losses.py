"""Floor 1: losses. Each maps predictions ``z: (T, N, *outputs)`` and targets to one number a task, ``(T,)``.

Three passes, as for a layer without parameters whose output is the loss itself (so that its upstream gradient is 1):

    forward            L       = l(z)
    backward           dz      = dl/dz
    backward_tangent   dz_dot  = (d^2 l / dz^2) z_dot
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np

from .backend import Array, array_module
from .errors import ShapeError


class Loss(ABC):
    """Base class of losses; a subclass is a frozen dataclass and writes the three passes."""

    @abstractmethod
    def forward(self, z: Array, target: Array) -> tuple[Array, Any]:
        """L of shape ``(T,)``, and a cache for the other two passes."""

    @abstractmethod
    def backward(self, cache: Any) -> Array:
        """dz, of the shape of z."""

    @abstractmethod
    def backward_tangent(self, cache: Any, z_dot: Array) -> Array:
        """dz_dot, of the shape of z."""


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """L = mean((z - target)^2), over the batch and the outputs. ``target`` has the shape of ``z``."""

    def forward(self, z, target):
        """L = (1/n) sum((z - t)^2), n = the number of values in z[0]."""
        if target.shape != z.shape:
            raise ShapeError(f"MeanSquaredError expects targets of the predictions' shape {z.shape}, got {target.shape}")
        residual = (z - (target if target.dtype.kind == "c" else target.astype(z.dtype, copy=False))).reshape(z.shape[0], -1)
        loss = array_module(z).einsum("tn,tn->t", residual, residual) / residual.shape[1]
        return loss, residual.reshape(z.shape)

    def backward(self, residual):
        """dz = (2/n) (z - t)."""
        return residual * (2 / math.prod(residual.shape[1:]))

    def backward_tangent(self, residual, z_dot):
        """dz_dot = (2/n) z_dot."""
        return z_dot * (2 / math.prod(residual.shape[1:]))


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """L = mean over the batch of -log softmax(z)[target]. ``z: (T, N, classes)``, integer ``target: (T, N)``.

    The largest logit is subtracted first, so large logits are safe.

    Raises
    ------
    ShapeError
        if the targets are not integers of the right shape, or (where they are on the host) not below ``classes``.
    """

    def forward(self, z, target):
        """L = (1/N) sum_n (log sum_c e^z_nc - z_n,target), with p = softmax(z) kept for the other passes."""
        if z.ndim != 3 or target.shape != z.shape[:2]:
            raise ShapeError(
                "SoftmaxCrossEntropy expects logits (T, N, classes) and integer targets (T, N), "
                f"got {z.shape} and {target.shape}"
            )
        xp = array_module(z)
        # Not on a device: looking at the labels would wait for them.
        if target.dtype.kind not in "iu" or (
            xp is np and target.size and not 0 <= target.min() <= target.max() < z.shape[2]
        ):
            raise ShapeError(
                f"SoftmaxCrossEntropy expects integer targets from 0 to {z.shape[2] - 1}, "
                f"got {target.dtype} from {target.min()} to {target.max()}"
            )
        shifted = z - z.real.max(axis=-1, keepdims=True)
        p = xp.exp(shifted)
        total = p.sum(axis=-1, keepdims=True)
        p /= total
        chosen = xp.take_along_axis(shifted, target[..., None], axis=-1)
        return (xp.log(total) - chosen)[..., 0].mean(axis=1), (p, target)

    def backward(self, cache):
        """dz = (p - onehot(target)) / N, with p_target - 1 as minus the sum of the other classes, which does not cancel."""
        p, target = cache
        onehot = target[..., None] == array_module(p).arange(p.shape[-1])
        others = p * ~onehot
        return (others - onehot * others.sum(axis=-1, keepdims=True)) / p.shape[1]

    def backward_tangent(self, cache, z_dot):
        """p_dot = p o (z_dot - sum_c p_c z_dot_c), so dz_dot = p_dot / N.

        p_dot ignores a shift of z_dot; taking that of the likeliest class as zero avoids cancellation where its p is near 1.
        """
        p, _ = cache
        likeliest = p.real.argmax(axis=-1)[..., None]
        u = z_dot - array_module(p).take_along_axis(z_dot, likeliest, axis=-1)
        return p * (u - (p * u).sum(axis=-1, keepdims=True)) / p.shape[1]
