"""ReLU: y = x where x > 0, else 0."""

from __future__ import annotations

from dataclasses import dataclass

from .base import Layer


@dataclass(frozen=True)
class ReLU(Layer):
    """y = M x with M the 0/1 mask of x > 0 (by real part). M is constant near x, so every pass multiplies by M.

    ``x: (T, N, *features)``; ``y`` has the shape of ``x``. At x = 0 the derivative is taken to be 0.
    """

    def forward(self, theta, x):
        """y = M x. A product, not a maximum: it is faster, and it lets NaN through."""
        mask = x.real > 0
        return x * mask, mask

    def backward(self, theta, mask, dy):
        """dx = M dy."""
        return dy * mask, {}

    def forward_tangent(self, theta, theta_dot, mask, x_dot):
        """y_dot = M x_dot."""
        return x_dot * mask, None

    def backward_tangent(self, theta, theta_dot, mask, mask_dot, dy, dy_dot):
        """dx_dot = M dy_dot."""
        return dy_dot * mask, {}
