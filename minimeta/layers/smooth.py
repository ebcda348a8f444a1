"""The passes of smooth units, y = f(x) element by element.

    forward            y      = f(x)
    backward           dx     = f'(x) dy
    forward_tangent    y_dot  = f'(x) x_dot
    backward_tangent   dx_dot = f'(x) dy_dot + f''(x) x_dot dy

A unit is then its f, f' and f''. The cache is the pair (x, y), since f' and f''
are often cheapest from y.
"""

from __future__ import annotations

from abc import abstractmethod

from ..arrays.backend import Array
from .base import Layer


class Smooth(Layer):
    """Base of the smooth units.

    ``x: (T, N, *features)``; ``y`` has the shape of ``x``.
    """

    @abstractmethod
    def value(self, x: Array) -> Array:
        """f(x)."""

    @abstractmethod
    def slope(self, x: Array, y: Array) -> Array:
        """f'(x), where y = f(x)."""

    @abstractmethod
    def curvature(self, x: Array, y: Array) -> Array:
        """f''(x), where y = f(x)."""

    def forward(self, theta, x):
        y = self.value(x)
        return y, (x, y)

    def backward(self, theta, cache, dy, on_data=False):
        return self.slope(*cache) * dy, {}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        return self.slope(*cache) * x_dot, x_dot

    def backward_tangent(self, theta, theta_dot, cache, x_dot, dy, dy_dot, on_data=False):
        return self.slope(*cache) * dy_dot + self.curvature(*cache) * x_dot * dy, {}
