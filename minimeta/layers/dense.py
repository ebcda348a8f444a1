"""Dense: y = x W + b."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Layer, Shape, expect_shape, glorot_uniform, product, sum_rows


@dataclass(frozen=True)
class Dense(Layer):
    """Affine map of ``inputs`` features to ``outputs`` features.

    ``theta["weight"]: (T or 1, inputs, outputs)``, Glorot-uniform at first; ``theta["bias"]: (T or 1, outputs)``, zero
    at first. ``x: (T, N, inputs)``, ``y: (T, N, outputs)``.
    """

    inputs: int
    outputs: int

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
        y = product(x, theta["weight"])
        y += theta["bias"][:, None]
        return y, x

    def backward(self, theta, x, dy):
        """dL = <dy, dx W + x dW + 1 db^T>, so dx = dy W^T, dW = x^T dy, db = 1^T dy."""
        return product(dy, theta["weight"].swapaxes(1, 2)), self.backward_on_data(theta, x, dy)

    def forward_tangent(self, theta, theta_dot, x, x_dot):
        """y_dot = x_dot W + x W_dot + 1 b_dot^T."""
        y_dot, _ = self.forward(theta_dot, x)
        return y_dot + product(x_dot, theta["weight"]), x_dot

    def backward_tangent(self, theta, theta_dot, x, x_dot, dy, dy_dot):
        """The product rule on backward: (dy W^T)_dot = dy_dot W^T + dy W_dot^T, and likewise for x^T dy and 1^T dy."""
        dx_dot = product(dy_dot, theta["weight"].swapaxes(1, 2))
        dx_dot = dx_dot + product(dy, theta_dot["weight"].swapaxes(1, 2))
        dtheta_dot = self.backward_on_data(theta, x, dy_dot)
        dtheta_dot["weight"] += x_dot.swapaxes(1, 2) @ dy
        return dx_dot, dtheta_dot

    def backward_on_data(self, theta, x, dy):
        """dW = x^T dy, db = 1^T dy."""
        return {"weight": x.swapaxes(1, 2) @ dy, "bias": sum_rows(dy)[:, 0]}

    def forward_tangent_on_data(self, theta, theta_dot, x, x_dot):
        """y is linear in (W, b): y_dot is y at (W_dot, b_dot)."""
        return self.forward(theta_dot, x)[0], None

    def backward_tangent_on_data(self, theta, theta_dot, x, x_dot, dy, dy_dot):
        """dtheta is linear in dy: dtheta_dot is dtheta at dy_dot."""
        return self.backward_on_data(theta, x, dy_dot)
