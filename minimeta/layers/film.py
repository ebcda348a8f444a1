"""FiLM: a scale and a shift of each channel that the context parameters choose.

The context c stands before a linear map, which gives both for every channel:

    [gamma, beta] = c W + b,  y = gamma o x + beta,

where o multiplies each value with its channel's number, and sum runs over the
examples and pixels. With s = [sum(dy o x), sum(dy)], the
gradient by [gamma, beta],

    dx = gamma o dy,  dc = s W^T,  dW = c^T s,  db = s,

since dL = <dy, gamma o dx + dgamma o x + dbeta> and
[dgamma, dbeta] = dc W + c dW + db. The tangents are the product rule:

    [gamma_dot, beta_dot] = c_dot W + c W_dot + b_dot,
    y_dot = gamma o x_dot + gamma_dot o x + beta_dot,

    s_dot = [sum(dy_dot o x) + sum(dy o x_dot), sum(dy_dot)],
    dx_dot = gamma o dy_dot + gamma_dot o dy,
    dc_dot = s_dot W^T + s W_dot^T,
    dW_dot = c^T s_dot + c_dot^T s,  db_dot = s_dot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.backend import Array
from ..arrays.kernels import beside, channel_combination, channel_dots, channel_sums, product_sum
from ..errors import ShapeError
from .base import LAYERS, Layer, Parameters, Shape, expect_shape, glorot_uniform


@LAYERS.register("FiLM")
@dataclass(frozen=True)
class FiLM(Layer):
    """Feature-wise linear modulation (Perez et al. 2018).

    The ``size`` context parameters are those of CAVIA on images.

    ``theta["context"]: (T or 1, size)``, zero at first;
    ``theta["weight"]: (T or 1, size, 2 channels)``, Glorot-uniform at first;
    ``theta["bias"]: (T or 1, 2 channels)``, at first one for gamma and zero for
    beta, so that a fresh layer changes nothing.
    ``x: (T, N, *pixels, channels)``; ``y`` has the shape of ``x``.

    The code has the symbols of the derivation above. gamma, beta and their dots
    are ``(T or 1, channels)``; s and s_dot are ``(T, 2 channels)``.

    Raises
    ------
    ShapeError
        on construction, if ``channels`` or ``size`` is not positive.
    """

    channels: int
    size: int

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ShapeError(f"{self}: channels must be at least 1")
        if self.size < 1:
            raise ShapeError(
                f"{self}: size must be at least 1; leave the layer out for a network "
                "without context"
            )

    @property
    def shapes(self) -> dict[str, Shape]:
        return {
            "context": (self.size,),
            "weight": (self.size, 2 * self.channels),
            "bias": (2 * self.channels,),
        }

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        weight = glorot_uniform(rng, (self.size, 2 * self.channels), self.size, 2 * self.channels)
        return {
            "context": np.zeros(self.size),
            "weight": weight,
            "bias": np.repeat([1.0, 0.0], self.channels),
        }

    def output_shape(self, input_shape: Shape) -> Shape:
        matches = len(input_shape) > 0 and input_shape[-1] == self.channels
        expect_shape(self, f"(..., {self.channels})", matches, input_shape)
        return input_shape

    def forward(self, theta, x):
        c, W, b = _matrices(theta)
        gamma, beta = self._halves(product_sum((c, W), shift=b))
        return channel_combination((gamma, x), shift=beta), (x, gamma)

    def backward(self, theta, cache, dy, on_data=False):
        x, gamma = cache
        c, W, _ = _matrices(theta)
        s = _beside(channel_dots(dy, x), channel_sums(dy))
        dc, dW = product_sum((s, _t(W))), product_sum((_t(c), s))
        dx = channel_combination((gamma, dy))
        return dx, {"context": dc[:, 0], "weight": dW, "bias": s[:, 0]}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        x, gamma = cache
        (c, W, _), (c_dot, W_dot, b_dot) = _matrices(theta), _matrices(theta_dot)
        gamma_dot, beta_dot = self._halves(product_sum((c_dot, W), (c, W_dot), shift=b_dot))
        y_dot = channel_combination((gamma, x_dot), (gamma_dot, x), shift=beta_dot)
        return y_dot, (x_dot, gamma_dot)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        (x, gamma), (x_dot, gamma_dot) = cache, cache_dot
        (c, W, _), (c_dot, W_dot, _) = _matrices(theta), _matrices(theta_dot)
        s = _beside(channel_dots(dy, x), channel_sums(dy))
        s_dot = _beside(channel_dots(dy_dot, x) + channel_dots(dy, x_dot), channel_sums(dy_dot))
        dc_dot = product_sum((s_dot, _t(W)), (s, _t(W_dot)))
        dW_dot = product_sum((_t(c), s_dot), (_t(c_dot), s))
        dx_dot = channel_combination((gamma, dy_dot), (gamma_dot, dy))
        return dx_dot, {"context": dc_dot[:, 0], "weight": dW_dot, "bias": s_dot[:, 0]}

    def _halves(self, both: Array) -> tuple[Array, Array]:
        """[gamma, beta], ``(T, 1, 2 channels)``, as two ``(T, channels)``."""
        return both[:, 0, : self.channels], both[:, 0, self.channels :]


def _matrices(theta: Parameters) -> tuple[Array, Array, Array]:
    """c as one row, ``(T or 1, 1, size)``; W; and b."""
    return theta["context"][:, None], theta["weight"], theta["bias"]


def _beside(a: Array, b: Array) -> Array:
    """[a, b] as one row: ``(T, channels)`` twice as ``(T, 1, 2 channels)``."""
    return beside([a, b])[:, None]


def _t(matrix: Array) -> Array:
    """The transpose of each task's matrix."""
    return matrix.swapaxes(1, 2)
