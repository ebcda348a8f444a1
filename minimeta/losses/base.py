"""What a loss is: it maps predictions ``z: (T, N, *outputs)`` and targets to one number a task, ``(T,)``.

Three passes, as for a layer without parameters whose output is the loss itself (so that its upstream gradient is 1):

    forward            L       = l(z)
    backward           dz      = dl/dz
    backward_tangent   dz_dot  = (d^2 l / dz^2) z_dot
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from ..arrays.backend import Array


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
