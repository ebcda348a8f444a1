"""The contract of a loss, which maps predictions and targets to one number per
task.

Predictions are ``z: (T, N, *outputs)``, and the loss is ``(T,)``. There are
three passes, as for a layer without parameters. The output of that layer is the
loss itself, so its upstream gradient is 1:

    forward            L       = l(z)
    backward           dz      = dl/dz
    backward_tangent   dz_dot  = (d^2 l / dz^2) z_dot
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..arrays.backend import Array
from ..errors import SettingsError


class Loss(ABC):
    """Base class of losses. A subclass is a frozen dataclass and writes the
    passes."""

    @abstractmethod
    def forward(self, z: Array, target: Array) -> tuple[Array, Any]:
        """L of shape ``(T,)``, and a cache for the other two passes."""

    @abstractmethod
    def backward(self, cache: Any) -> Array:
        """dz, of the shape of z."""

    @abstractmethod
    def backward_tangent(self, cache: Any, z_dot: Array) -> Array:
        """dz_dot, of the shape of z."""

    def entropy(self) -> Loss:
        """The entropy of the predicted classes, as a loss.

        It is a mean over the examples if this loss is a mean, and a sum if it
        is a sum.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """
        raise SettingsError(
            f"{type(self).__name__} predicts no classes, so it has no entropy: "
            "use SoftmaxCrossEntropy()"
        )
