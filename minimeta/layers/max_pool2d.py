"""2x2 max pooling with stride 2 and "same" padding.

Each output is a copy of one input, the winner of its window: y = P x with P a 0/1 selection that does not change in a
neighbourhood of x. All four passes apply P or P^T. Where two inputs tie, the function has a kink, and P is one of its
subgradients: here the upper of two wins, then the left.

The largest of a window is the largest of its columns' largest: P = P_w P_h, each a choice between neighbours on one axis.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.backend import Array, array_module
from .base import Layer, expect_shape

_HEIGHT, _WIDTH = 2, 3  # axes of (T, N, height, width, C)


@dataclass(frozen=True)
class MaxPool2D(Layer):
    """Largest value (by real part) of each 2x2 window.

    ``x: (T, N, height, width, C)``, ``y: (T, N, ceil(height / 2), ceil(width / 2), C)``; the windows of an odd last row
    or column see only what is there (TensorFlow's "same" padding).
    """

    def output_shape(self, input_shape):
        expect_shape(self, "(height, width, channels)", len(input_shape) == 3, input_shape)
        return (-(-input_shape[0] // 2), -(-input_shape[1] // 2), input_shape[2])

    def forward(self, theta, x):
        """y = P x; the cache is P: who won in P_h, and in P_w."""
        columns, lower = _largest(x, _HEIGHT)
        y, right = _largest(columns, _WIDTH)
        return y, (lower, right)

    def backward(self, theta, cache, dy):
        """dx = P^T dy = P_h^T P_w^T dy."""
        lower, right = cache
        return _spread(lower, _spread(right, dy, _WIDTH), _HEIGHT), {}

    def forward_tangent(self, theta, theta_dot, cache, x_dot):
        """y_dot = P x_dot."""
        lower, right = cache
        return _chosen(right, _chosen(lower, x_dot, _HEIGHT), _WIDTH), None

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot):
        """dx_dot = P^T dy_dot."""
        return self.backward(theta, cache, dy_dot)


def _neighbours(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Views of the first and the second of each pair along ``axis``, and of what is left over: nothing, or the last."""
    before, pairs = (slice(None),) * axis, x.shape[axis] // 2
    first, second = x[(*before, slice(0, 2 * pairs, 2))], x[(*before, slice(1, None, 2))]
    return first, second, x[(*before, slice(2 * pairs, None))]


def _then(y: Array, rest: Array, axis: int) -> Array:
    """``y``, and after it what was left over."""
    return array_module(y).concatenate([y, rest], axis=axis) if rest.shape[axis] else y


def _largest(x: Array, axis: int) -> tuple[Array, Array]:
    """The larger of each pair, then what is left over; and where the second won. NaN is larger than everything."""
    xp, (first, second, rest) = array_module(x), _neighbours(x, axis)
    won = second.real > first.real
    # The maximum of complex numbers looks at the imaginary parts of a tie; of real ones it is far faster than a choice.
    largest = (
        xp.where(won | (second != second), second, first)
        if x.dtype.kind == "c"
        else xp.maximum(first, second)
    )
    return _then(largest, rest, axis), won


def _chosen(won: Array, x: Array, axis: int) -> Array:
    """P x."""
    first, second, rest = _neighbours(x, axis)
    y = first * ~won
    y += second * won
    return _then(y, rest, axis)


def _spread(won: Array, dy: Array, axis: int) -> Array:
    """P^T dy: every value to the one of the pair that won, zero to the other."""
    xp, pairs = array_module(dy), won.shape[axis]
    dx = xp.empty((*dy.shape[:axis], dy.shape[axis] + pairs, *dy.shape[axis + 1 :]), dtype=dy.dtype)
    first, second, rest = _neighbours(dx, axis)
    before = (slice(None),) * axis
    of_pairs = dy[(*before, slice(pairs))]
    xp.multiply(of_pairs, won, out=second)
    xp.subtract(of_pairs, second, out=first)
    rest[...] = dy[(*before, slice(pairs, None))]
    return dx
