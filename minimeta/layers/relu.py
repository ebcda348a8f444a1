"""ReLU: y = x where x > 0, else 0."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.kernels import masked
from .base import LAYERS, Layer


@LAYERS.register("ReLU")
@dataclass(frozen=True)
class ReLU(Layer):
    """y = M x with M the 0/1 mask of x > 0 (by real part).

    M is constant near x, so every pass multiplies by M. At x = 0 the derivative
    is taken to be 0. ``x: (T, N, *features)``; ``y`` has the shape of ``x``.
    """

    def forward(self, theta, x):
        """y = M x."""
        mask = x.real > 0
        return masked(x, mask), mask

    def backward(self, theta, mask, dy, on_data=False):
        """dx = M dy."""
        return masked(dy, mask), {}

    def forward_tangent(self, theta, theta_dot, mask, x_dot, on_data=False):
        """y_dot = M x_dot."""
        return masked(x_dot, mask), None

    def backward_tangent(self, theta, theta_dot, mask, mask_dot, dy, dy_dot, on_data=False):
        """dx_dot = M dy_dot."""
        return masked(dy_dot, mask), {}
