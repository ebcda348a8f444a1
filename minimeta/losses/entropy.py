"""Entropy of softmax probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import array_module
from ..errors import ShapeError
from .base import LOSSES, Loss
from .softmax import centred, from_likeliest, softmax

_NEVER = -1000.0  # e^-1000 is 0 in float64


@LOSSES.register("Entropy")
@dataclass(frozen=True)
class Entropy(Loss):
    """L = mean over the batch of -sum_c p_c log p_c, for p = softmax(z).

    This entropy is 0 where a class is certain, and log(classes) where all are
    equally likely. ``z: (T, N, classes)``; the targets do not matter.

    With s = z - max z, log p_c = s_c - log sum_c e^s_c. Let
    w_c = s_c - sum_b p_b s_b, which is s less its mean under p.

        forward            L    = (1/N) sum_n (log sum_c e^s_c - sum_c p_c s_c)
        backward           dz   = -p o w / N
        backward_tangent   p_dot = p o u with u = z_dot - sum_b p_b z_dot_b,
                           w_dot = u - sum_b p_b u_b w_b,
                           dz_dot = -p o (u o w + w_dot) / N

    dL_n = -sum_c dp_c (log p_c + 1), and sum_c dp_c = 0. So log p_c + 1 may be
    replaced by w_c, which is log p_c less its mean under p. Then dz follows,
    because dp_c = p_c (dz_c - sum_b p_b dz_b), and w has mean 0 under p. In
    w_dot, sum_b p_dot_b s_b = sum_b p_b u_b w_b, because u has mean 0 under p
    too. Where a class is certain its s is 0, and nothing in w cancels.
    """

    classifies = True

    def forward(self, z, target):
        """(1/N) sum_n (log sum_c e^s_c - sum_c p_c s_c)."""
        if z.ndim != 3:
            raise ShapeError(f"Entropy expects logits of shape (T, N, classes), got {z.shape}")
        shifted, p, log_sum = softmax(z)
        # Where p underflows to 0, p s is 0 however large s is: without a bound
        # on s it would be 0 times infinity near the largest logits of a dtype.
        shifted = array_module(z).where(p == 0, _NEVER, shifted).astype(z.dtype, copy=False)
        mean = (p * shifted).sum(axis=-1, keepdims=True)
        return (log_sum - mean)[..., 0].mean(axis=1), (p, shifted - mean)

    def backward(self, cache):
        """-p o w / N."""
        p, w = cache
        return -p * w / p.shape[1]

    def backward_tangent(self, cache, z_dot):
        """-p o (u o w + u - sum_b p_b u_b w_b) / N."""
        p, w = cache
        u = centred(p, from_likeliest(p, z_dot))
        return -p * (u * w + u - (p * u * w).sum(axis=-1, keepdims=True)) / p.shape[1]

    def probabilities(self, z):
        """softmax(z)."""
        return softmax(z)[1]

    @property
    def title(self) -> str:
        """Mean entropy."""
        return "mean entropy"

    def entropy(self) -> Entropy:
        """This loss itself."""
        return self
