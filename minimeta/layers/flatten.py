"""Flatten: all features of an example on one axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .base import LAYERS, Layer, Shape


@LAYERS.register("Flatten")
@dataclass(frozen=True)
class Flatten(Layer):
    """``(T, N, *features)`` to ``(T, N, size)``, in C order.

    Flattening only renames indices, so every pass is a reshape.
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, theta, x):
        return x.reshape(*x.shape[:2], -1), x.shape

    def backward(self, theta, shape, dy, on_data=False):
        return dy.reshape(-1, *shape[1:]), {}

    def forward_tangent(self, theta, theta_dot, shape, x_dot, on_data=False):
        return x_dot.reshape(*x_dot.shape[:2], -1), None

    def backward_tangent(self, theta, theta_dot, shape, cache_dot, dy, dy_dot, on_data=False):
        return dy_dot.reshape(-1, *shape[1:]), {}
