"""Tanh: y = tanh(x)."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import array_module
from .base import LAYERS
from .smooth import Smooth


@LAYERS.register("Tanh")
@dataclass(frozen=True)
class Tanh(Smooth):
    """y = tanh(x), element by element."""

    def value(self, x):
        return array_module(x).tanh(x)

    def slope(self, x, y):
        """tanh' = 1 - tanh^2."""
        return 1 - y * y

    def curvature(self, x, y):
        """tanh'' = -2 tanh tanh' = -2 y (1 - y^2)."""
        return -2 * y * (1 - y * y)
