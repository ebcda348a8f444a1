"""2x2 max pooling with stride 2 and "same" padding.

Each output is a copy of one input, the winner of its window: y = P x with P a 0/1 selection that does not change in a
neighbourhood of x. All four passes apply P or P^T. Where two inputs tie, the first in row-major order wins; there the
function has a kink, and P is one of its subgradients.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..backend import Array, array_module
from .base import Layer, Shape, expect_shape


@dataclass(frozen=True)
class MaxPool2D(Layer):
    """Largest value (by real part) of each 2x2 window.

    ``x: (T, N, height, width, C)``, ``y: (T, N, ceil(height / 2), ceil(width / 2), C)``; the windows of an odd last row
    or column see only what is there (TensorFlow's "same" padding).
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        expect_shape(self, "(height, width, channels)", len(input_shape) == 3, input_shape)
        return (-(-input_shape[0] // 2), -(-input_shape[1] // 2), input_shape[2])

    def forward(self, theta, x):
        """y = P x; the cache is P: which of the four corners of each window won, and the shape of x."""
        xp = array_module(x)
        y = x[:, :, ::2, ::2].copy()
        winner = xp.zeros(y.shape, dtype=xp.uint8)
        for corner in (1, 2, 3):
            values = _corner(x, corner)
            inside = (slice(None), slice(None), slice(values.shape[2]), slice(values.shape[3]))
            # A NaN wins (it is not equal to itself), or a diverging network would go unnoticed.
            better = (values.real > y[inside].real) | (values != values)
            y[inside] = xp.where(better, values, y[inside])
            winner[inside] = xp.where(better, xp.uint8(corner), winner[inside])
        return y, (winner, x.shape)

    def backward(self, theta, cache, dy):
        """dx = P^T dy."""
        return _scatter(cache, dy), {}

    def forward_tangent(self, theta, theta_dot, cache, x_dot):
        """y_dot = P x_dot."""
        winner, _ = cache
        y_dot = x_dot[:, :, ::2, ::2] * (winner == 0)
        for corner in (1, 2, 3):
            values = _corner(x_dot, corner)
            rows, columns = values.shape[2:4]
            y_dot[:, :, :rows, :columns] += values * (winner[:, :, :rows, :columns] == corner)
        return y_dot, None

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot):
        """dx_dot = P^T dy_dot."""
        return _scatter(cache, dy_dot), {}


def _corner(x: Array, corner: int) -> Array:
    """A view of every window's upper left (0), upper right (1), lower left (2) or lower right (3) value."""
    return x[:, :, corner // 2 :: 2, corner % 2 :: 2]


def _scatter(cache: tuple[Array, Shape], dy: Array) -> Array:
    """P^T dy: every value to the corner that won, zero elsewhere."""
    winner, image_shape = cache
    dx = array_module(dy).empty((dy.shape[0], *image_shape[1:]), dtype=dy.dtype)
    for corner in range(4):
        values = _corner(dx, corner)
        rows, columns = values.shape[2:4]
        values[...] = dy[:, :, :rows, :columns] * (winner[:, :, :rows, :columns] == corner)
    return dx
