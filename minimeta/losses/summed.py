"""A mean loss as a sum over the examples."""

from __future__ import annotations

from dataclasses import dataclass

from ..registry import setting
from .base import LOSSES, Loss


@LOSSES.register("Summed")
@dataclass(frozen=True)
class Summed(Loss):
    """L = N l: the sum over N examples, for a ``loss`` l that is the mean over
    them.

    The programs of the Reptile and MAML papers differentiate such sums. An
    inner SGD of step alpha on the sum is one of step N alpha on the mean. Adam
    divides N out while all mini-batches have one size. Where its moments come
    from larger ones, as from training to evaluation, the sum makes its steps
    shorter by the ratio of the sizes.
    """

    loss: Loss = setting(help="the mean loss", registry=LOSSES)

    @property
    def classifies(self) -> bool:
        """Whether ``loss`` predicts classes."""
        return self.loss.classifies

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

    def probabilities(self, z):
        """The probabilities of ``loss``."""
        return self.loss.probabilities(z)

    @property
    def title(self) -> str:
        """The ``loss`` in words, as a sum."""
        return f"summed {self.loss.title.removeprefix('mean ')}"

    def entropy(self) -> Summed:
        """The sum over the batch of the ``loss``'s entropy."""
        return Summed(self.loss.entropy())
