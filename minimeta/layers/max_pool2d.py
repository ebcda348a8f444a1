"""2x2 max pooling with stride 2 and "same" padding.

Each output is a copy of one input, the largest of its window: y = P x with P a
0/1 selection that does not change in a neighbourhood of x. All four passes
apply P or P^T. Where two inputs tie, the function has a kink, and P is one of
its subgradients: the upper of two is selected, then the left.

The largest of a window is the largest of its columns' largest values. So
P = P_w P_h, each a selection from pairs of neighbours along one axis.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.kernels import pair_maxima, pair_selection, pair_selection_transpose
from .base import LAYERS, Layer, Shape, expect_shape

_HEIGHT, _WIDTH = 2, 3  # axes of (T, N, height, width, C)


@LAYERS.register("MaxPool2D")
@dataclass(frozen=True)
class MaxPool2D(Layer):
    """Largest value (by real part) of each 2x2 window.

    ``x: (T, N, height, width, C)``,
    ``y: (T, N, ceil(height / 2), ceil(width / 2), C)``. A window of an odd last
    row or column holds only the pixels that are there (TensorFlow's "same"
    padding).
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        expect_shape(self, "(height, width, channels)", len(input_shape) == 3, input_shape)
        return (-(-input_shape[0] // 2), -(-input_shape[1] // 2), input_shape[2])

    def forward(self, theta, x):
        """y = P x. The cache is P: where the lower and the right are
        selected."""
        columns, lower = pair_maxima(x, _HEIGHT)
        y, right = pair_maxima(columns, _WIDTH)
        return y, (lower, right)

    def backward(self, theta, cache, dy, on_data=False):
        """dx = P^T dy = P_h^T P_w^T dy."""
        lower, right = cache
        columns = pair_selection_transpose(right, dy, _WIDTH)
        return pair_selection_transpose(lower, columns, _HEIGHT), {}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        """y_dot = P x_dot = P_w P_h x_dot."""
        lower, right = cache
        columns = pair_selection(lower, x_dot, _HEIGHT)
        return pair_selection(right, columns, _WIDTH), None

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        """dx_dot = P^T dy_dot."""
        return self.backward(theta, cache, dy_dot)
