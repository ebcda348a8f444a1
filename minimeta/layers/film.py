"""FiLM: a scale and a shift of each channel that the context parameters choose, y = gamma o x + beta.

The context c stands before a linear map, which gives one number for each of the two:

    [gamma, beta] = c W + b.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.backend import Array
from ..errors import ShapeError
from .base import (
    Layer,
    Parameters,
    Shape,
    beside,
    expect_shape,
    glorot_uniform,
    plus,
    product,
    rows,
    sum_rows,
    times,
)


@dataclass(frozen=True)
class FiLM(Layer):
    """Feature-wise linear modulation (Perez et al. 2018) by ``size`` context parameters (CAVIA's, on images).

    ``theta["context"]: (T or 1, size)``, zero at first; ``theta["weight"]: (T or 1, size, 2 channels)``, Glorot-uniform at
    first; ``theta["bias"]: (T or 1, 2 channels)``, at first one for gamma and zero for beta, so that a fresh layer changes
    nothing. ``x: (T, N, *pixels, channels)``; ``y`` has the shape of ``x``: gamma and beta, ``(T, 1, channels)``, are the
    same for every example and pixel of a task.
    """

    channels: int
    size: int

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ShapeError(f"{self}: channels must be at least 1")
        if self.size < 1:
            raise ShapeError(
                f"{self}: size must be at least 1; leave the layer out for a network without context"
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
        """y = gamma o x + beta, [gamma, beta] = c W + b."""
        gamma, beta = self._halves(
            product(theta["context"][:, None], theta["weight"]) + theta["bias"][:, None]
        )
        u = rows(x)
        y = times(u, gamma)
        return plus(y, beta, out=y).reshape(x.shape), (u, gamma)

    def backward(self, theta, cache, dy):
        """dL = <dy, gamma o dx + dgamma o x + dbeta> and [dgamma, dbeta] = dc W + c dW + db, so dx = gamma o dy and, with

            s = [sum(dy o x), sum(dy)],

        the gradient by [gamma, beta]: dc = s W^T, dW = c^T s, db = s.
        """
        u, gamma = cache
        d = rows(dy)
        return times(d, gamma).reshape(dy.shape), self._gradients(
            theta, beside(sum_rows(d * u), sum_rows(d))
        )

    def forward_tangent(self, theta, theta_dot, cache, x_dot):
        """y_dot = gamma_dot o x + gamma o x_dot + beta_dot, [gamma_dot, beta_dot] = c_dot W + c W_dot + b_dot."""
        u, gamma = cache
        c, c_dot = theta["context"][:, None], theta_dot["context"][:, None]
        along = (
            product(c_dot, theta["weight"])
            + product(c, theta_dot["weight"])
            + theta_dot["bias"][:, None]
        )
        gamma_dot, beta_dot = self._halves(along)
        u_dot = rows(x_dot)
        y_dot = times(u, gamma_dot) + times(u_dot, gamma)
        return plus(y_dot, beta_dot, out=y_dot).reshape(x_dot.shape), (u_dot, gamma_dot)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot):
        """The product rule on backward, with s_dot = [sum(dy_dot o x + dy o x_dot), sum(dy_dot)]:

        dx_dot = gamma o dy_dot + gamma_dot o dy,
        dc_dot = s_dot W^T + s W_dot^T,  dW_dot = c^T s_dot + c_dot^T s,  db_dot = s_dot.
        """
        (u, gamma), (u_dot, gamma_dot) = cache, cache_dot
        d, d_dot = rows(dy), rows(dy_dot)
        dx_dot = times(d_dot, gamma) + times(d, gamma_dot)
        dtheta_dot = self._gradients(
            theta, beside(sum_rows(d_dot * u + d * u_dot), sum_rows(d_dot))
        )
        turned = self._gradients(theta_dot, beside(sum_rows(d * u), sum_rows(d)))
        for name in ("context", "weight"):
            dtheta_dot[name] = dtheta_dot[name] + turned[name]
        return dx_dot.reshape(dy_dot.shape), dtheta_dot

    def _halves(self, both: Array) -> tuple[Array, Array]:
        """[gamma, beta] as gamma, beta."""
        return both[..., : self.channels], both[..., self.channels :]

    @staticmethod
    def _gradients(theta: Parameters, s: Array) -> dict[str, Array]:
        """dc = s W^T, dW = c^T s, db = s for ``s: (T, 1, 2 channels)``."""
        dc = product(s, theta["weight"].swapaxes(1, 2))
        return {
            "context": dc[:, 0],
            "weight": product(theta["context"][..., None], s),
            "bias": s[:, 0],
        }
