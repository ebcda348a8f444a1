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
        shifted, p, log_sum = _softmax(z)
        chosen = xp.take_along_axis(shifted, target[..., None], axis=-1)
        return (log_sum - chosen)[..., 0].mean(axis=1), (p, target)

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
        return p * _centred(p, _from_likeliest(p, z_dot)) / p.shape[1]


@dataclass(frozen=True)
class Entropy(Loss):
    """L = mean over the batch of the entropy of p = softmax(z), -sum_c p_c log p_c: from 0, where a class is certain, to
    log(classes), where all are equally likely. ``z: (T, N, classes)``; the targets do not matter.

    With s = z - max z, log p_c = s_c - log sum_c e^s_c, and w_c = s_c - sum_b p_b s_b, the mean of s under p taken off:

        forward            L    = (1/N) sum_n (log sum_c e^s_c - sum_c p_c s_c)
        backward           dz   = -p o w / N
        backward_tangent   p_dot = p o u, u = z_dot - sum_b p_b z_dot_b, and w_dot = u - sum_b p_b u_b w_b, so
                           dz_dot = -p o (u o w + w_dot) / N

    dL_n = -sum_c dp_c (log p_c + 1), and sum_c dp_c = 0, so log p_c + 1 may be w_c, which is log p_c less its mean under p;
    dp_c = p_c (dz_c - sum_b p_b dz_b), and w has mean 0 under p. In w_dot, sum_b p_dot_b s_b = sum_b p_b u_b w_b, as u has
    mean 0 under p too. Where a class is certain its s is 0, and in w nothing cancels.
    """

    def forward(self, z, target):
        """(1/N) sum_n (log sum_c e^s_c - sum_c p_c s_c)."""
        if z.ndim != 3:
            raise ShapeError(f"Entropy expects logits (T, N, classes), got {z.shape}")
        shifted, p, log_sum = _softmax(z)
        mean = (p * shifted).sum(axis=-1, keepdims=True)
        return (log_sum - mean)[..., 0].mean(axis=1), (p, shifted - mean)

    def backward(self, cache):
        """-p o w / N."""
        p, w = cache
        return -p * w / p.shape[1]

    def backward_tangent(self, cache, z_dot):
        """-p o (u o w + u - sum_b p_b u_b w_b) / N."""
        p, w = cache
        u = _centred(p, _from_likeliest(p, z_dot))
        return -p * (u * w + u - (p * u * w).sum(axis=-1, keepdims=True)) / p.shape[1]


@dataclass(frozen=True)
class Summed(Loss):
    """L = N l: the sum over the batch of N examples, of a ``loss`` l that is a mean over it.

    The programs of the Reptile and MAML papers differentiate such sums. An inner SGD of step alpha on the sum is one of
    step N alpha on the mean. Adam divides N out while all mini-batches have one size; where its moments come from larger
    ones, as from training to evaluation, the sum makes its steps shorter by the ratio of the sizes.
    """

    loss: Loss

    def forward(self, z, target):
        """L = N l(z)."""
        value, cache = self.loss.forward(z, target)
        return value * z.shape[1], (cache, z.shape[1])

    def backward(self, cache):
        """dz = N dl/dz."""
        inner, examples = cache
        return self.loss.backward(inner) * examples

    def backward_tangent(self, cache, z_dot):
        """dz_dot = N (d^2 l / dz^2) z_dot."""
        inner, examples = cache
        return self.loss.backward_tangent(inner, z_dot) * examples


def _softmax(z: Array) -> tuple[Array, Array, Array]:
    """s = z - z of the likeliest class, p = softmax(z), and log sum_c e^s_c.

    The likeliest class adds e^0 = 1 to the sum: log(1 + the others) keeps the digits of others that are small.
    """
    xp = array_module(z)
    likeliest = z.real.argmax(axis=-1)[..., None]
    shifted = z - xp.take_along_axis(z, likeliest, axis=-1)
    p = xp.exp(shifted)
    others = (p * (likeliest != xp.arange(z.shape[-1]))).sum(axis=-1, keepdims=True)
    p /= 1 + others
    return shifted, p, xp.log1p(others)


def _centred(p: Array, v: Array) -> Array:
    """v less its mean under p."""
    return v - (p * v).sum(axis=-1, keepdims=True)


def _from_likeliest(p: Array, v: Array) -> Array:
    """v less that of the likeliest class."""
    likeliest = p.real.argmax(axis=-1)[..., None]
    return v - array_module(p).take_along_axis(v, likeliest, axis=-1)
