"""Dense: y = x W + 1 b^T."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.kernels import channel_sums, product_sum
from ..errors import ShapeError
from .base import LAYERS, Layer, Shape, expect_shape, glorot_uniform


@LAYERS.register("Dense")
@dataclass(frozen=True)
class Dense(Layer):
    """Affine map of ``inputs`` features to ``outputs`` features.

    ``theta["weight"]: (T or 1, inputs, outputs)``, Glorot-uniform at first;
    ``theta["bias"]: (T or 1, outputs)``, zero at first.
    ``x: (T, N, inputs)``, ``y: (T, N, outputs)``.
    """

    inputs: int
    outputs: int

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs) < 1:
            raise ShapeError(f"{self}: inputs and outputs must be at least 1")

    @property
    def shapes(self) -> dict[str, Shape]:
        return {"weight": (self.inputs, self.outputs), "bias": (self.outputs,)}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        weight = glorot_uniform(rng, (self.inputs, self.outputs), self.inputs, self.outputs)
        return {"weight": weight, "bias": np.zeros(self.outputs)}

    def output_shape(self, input_shape: Shape) -> Shape:
        expect_shape(self, f"({self.inputs},)", input_shape == (self.inputs,), input_shape)
        return (self.outputs,)

    def forward(self, theta, x):
        """y = x W + 1 b^T."""
        return product_sum((x, theta["weight"]), shift=theta["bias"]), x

    def backward(self, theta, x, dy, on_data=False):
        """dL = <dy, dx W + x dW + 1 db^T>, so

        dx = dy W^T,  dW = x^T dy,  db = 1^T dy.
        """
        dx = None if on_data else product_sum((dy, theta["weight"].swapaxes(1, 2)))
        return dx, {"weight": product_sum((x.swapaxes(1, 2), dy)), "bias": channel_sums(dy)}

    def forward_tangent(self, theta, theta_dot, x, x_dot, on_data=False):
        """y_dot = x W_dot + x_dot W + 1 b_dot^T."""
        pairs = [(x, theta_dot["weight"])]
        if not on_data:
            pairs.append((x_dot, theta["weight"]))
        return product_sum(*pairs, shift=theta_dot["bias"]), x_dot

    def backward_tangent(self, theta, theta_dot, x, x_dot, dy, dy_dot, on_data=False):
        """dx_dot = dy_dot W^T + dy W_dot^T,

        dW_dot = x^T dy_dot + x_dot^T dy,  db_dot = 1^T dy_dot.
        """
        if on_data:
            return self.backward(theta, x, dy_dot, on_data)
        W, W_dot = theta["weight"], theta_dot["weight"]
        dx_dot = product_sum((dy_dot, W.swapaxes(1, 2)), (dy, W_dot.swapaxes(1, 2)))
        weight = product_sum((x.swapaxes(1, 2), dy_dot), (x_dot.swapaxes(1, 2), dy))
        return dx_dot, {"weight": weight, "bias": channel_sums(dy_dot)}
