"""Cross-entropy of softmax probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.backend import array_module
from ..errors import ShapeError
from .base import LOSSES, Loss
from .entropy import Entropy
from .softmax import centred, from_likeliest, softmax


@LOSSES.register("SoftmaxCrossEntropy")
@dataclass(frozen=True)
class SoftmaxCrossEntropy(Loss):
    """L = mean over the batch of -log softmax(z)[target].

    ``z: (T, N, classes)``, integer ``target: (T, N)``. The largest logit is
    subtracted first, so large logits are safe.

    Raises
    ------
    ShapeError
        if the targets are not integers of the right shape, or (where they are
        on the host) not below ``classes``.
    """

    classifies = True

    def forward(self, z, target):
        """L = (1/N) sum_n (log sum_c e^z_nc - z_n,target). The cache has p."""
        if z.ndim != 3 or target.shape != z.shape[:2]:
            raise ShapeError(
                "SoftmaxCrossEntropy expects logits (T, N, classes) and integer targets (T, N), "
                f"got {z.shape} and {target.shape}"
            )
        xp = array_module(z)
        # On a device the labels are not checked, because the host would have to
        # wait for them.
        if target.dtype.kind not in "iu" or (
            xp is np and target.size and not 0 <= target.min() <= target.max() < z.shape[2]
        ):
            raise ShapeError(
                f"SoftmaxCrossEntropy expects integer targets from 0 to {z.shape[2] - 1}, "
                f"got {target.dtype} from {target.min()} to {target.max()}"
            )
        shifted, p, log_sum = softmax(z)
        chosen = xp.take_along_axis(shifted, target[..., None], axis=-1)
        return (log_sum - chosen)[..., 0].mean(axis=1), (p, target)

    def backward(self, cache):
        """dz = (p - onehot(target)) / N.

        p_target - 1 is minus the sum of the other classes, in which nothing
        cancels.
        """
        p, target = cache
        onehot = target[..., None] == array_module(p).arange(p.shape[-1])
        others = p * ~onehot
        return (others - onehot * others.sum(axis=-1, keepdims=True)) / p.shape[1]

    def backward_tangent(self, cache, z_dot):
        """p_dot = p o (z_dot - sum_c p_c z_dot_c), so dz_dot = p_dot / N.

        p_dot does not change with a shift of z_dot. The shift that makes the
        likeliest class's z_dot zero avoids cancellation where its p is near 1.
        """
        p, _ = cache
        return p * centred(p, from_likeliest(p, z_dot)) / p.shape[1]

    def probabilities(self, z):
        """softmax(z)."""
        return softmax(z)[1]

    @property
    def title(self) -> str:
        """Mean cross-entropy."""
        return "mean cross-entropy"

    def entropy(self) -> Entropy:
        """``Entropy()``, which is also a mean over the batch."""
        return Entropy()
