"""A loss maps predictions and targets to one number a task.

Predictions are ``z: (T, N, *outputs)``, and the loss is ``(T,)``. There are
three passes, as for a layer without parameters whose output is the loss itself,
so that its upstream gradient is 1:

    forward            L       = l(z)
    backward           dz      = dl/dz
    backward_tangent   dz_dot  = (d^2 l / dz^2) z_dot
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

from ..arrays.backend import Array
from ..errors import SettingsError
from ..registry import Registry

# Losses by the names that files give them.
LOSSES = Registry("loss")


class Loss(ABC):
    """Base of losses: a subclass is a frozen dataclass with three passes.

    ``title`` names the loss in results. ``classifies`` says whether predictions
    are logits of classes.
    """

    classifies: bool = False

    @abstractmethod
    def forward(self, z: Array, target: Array) -> tuple[Array, Any]:
        """L of shape ``(T,)``, and a cache for the other two passes."""

    @abstractmethod
    def backward(self, cache: Any) -> Array:
        """dz, of the shape of z."""

    @abstractmethod
    def backward_tangent(self, cache: Any, z_dot: Array) -> Array:
        """dz_dot, of the shape of z."""

    def probabilities(self, z: Array) -> Array:
        """The probabilities of the classes, of the shape of z.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """
        raise SettingsError(
            f"{type(self).__name__} predicts no classes, so it has no probabilities: "
            "use SoftmaxCrossEntropy()"
        )

    @property
    def title(self) -> str:
        """The loss in words; by default the words of the class's name."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(self).__name__).lower()

    def entropy(self) -> Loss:
        """The entropy of the predicted classes, as a loss.

        It is a mean over the examples where this loss is one, and a sum where
        this loss is one.

        Raises
        ------
        SettingsError
            if the loss predicts no classes.
        """
        raise SettingsError(
            f"{type(self).__name__} predicts no classes, so it has no entropy: "
            "use SoftmaxCrossEntropy()"
        )
