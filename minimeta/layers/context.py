"""Context: parameters that are inputs, y = [x, 1 c^T]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.backend import array_module
from ..arrays.kernels import beside, channel_sums
from ..errors import ShapeError
from .base import LAYERS, Layer, Shape, expect_shape


@LAYERS.register("Context")
@dataclass(frozen=True)
class Context(Layer):
    """``size`` parameters (CAVIA's) beside the features of each example.

    ``theta["context"]: (T or 1, size)``, zero at first.
    ``x: (T, N, features)``, ``y: (T, N, features + size)``. With E the last
    ``size`` columns of y, which hold c, every pass is that of a linear map: y =
    [x, 1 c^T], dx = dy without E, and dc = 1^T dy E.

    Raises
    ------
    ShapeError
        on construction, if ``size`` is not positive.
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ShapeError(
                f"{self}: size must be at least 1: leave the layer out for a network without "
                "context"
            )

    @property
    def shapes(self) -> dict[str, Shape]:
        return {"context": (self.size,)}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"context": np.zeros(self.size)}

    def output_shape(self, input_shape: Shape) -> Shape:
        expect_shape(self, "(features,)", len(input_shape) == 1, input_shape)
        return (input_shape[0] + self.size,)

    def forward(self, theta, x):
        """y = [x, 1 c^T]."""
        c = theta["context"][:, None]
        return beside([x, array_module(x).broadcast_to(c, (*x.shape[:2], self.size))]), None

    def backward(self, theta, cache, dy, on_data=False):
        """dx = dy without E, dc = 1^T dy E."""
        return dy[..., : -self.size], {"context": channel_sums(dy[..., -self.size :])}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        """y_dot = [x_dot, 1 c_dot^T]."""
        return self.forward(theta_dot, x_dot)[0], None

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        """The same map of dy_dot, since backward depends on dy alone."""
        return self.backward(theta, cache, dy_dot)
