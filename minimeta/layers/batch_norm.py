"""Batch normalization with the statistics of the current batch, always.

For each task and channel, over the P = N * height * width values of that channel:

    mu = mean(x),  u = x - mu,  s2 = mean(u^2),  r = (s2 + eps)^(-1/2),  y = gamma r u + beta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..arrays.backend import Array, array_module
from .base import Layer, Shape, expect_shape, plus, rows, sum_rows, times


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalization over examples and pixels, then a learned scale and shift of each channel.

    ``theta["scale"]: (T or 1, channels)``, one at first; ``theta["shift"]: (T or 1, channels)``, zero at first.
    ``x: (T, N, *pixels, channels)``; ``y`` has the shape of ``x``. ``eps`` is added to the variance (TensorFlow's 0.001).
    """

    channels: int
    eps: float = 1e-3

    @property
    def shapes(self) -> dict[str, Shape]:
        return {"scale": (self.channels,), "shift": (self.channels,)}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {"scale": np.ones(self.channels), "shift": np.zeros(self.channels)}

    def output_shape(self, input_shape: Shape) -> Shape:
        matches = len(input_shape) > 0 and input_shape[-1] == self.channels
        expect_shape(self, f"(..., {self.channels})", matches, input_shape)
        return input_shape

    def forward(self, theta, x):
        """y = a u + beta with a = gamma r: one factor a channel, so the normalized values are never formed."""
        u = rows(x)
        u = plus(u, -_mean(u))
        r = 1 / array_module(x).sqrt(_mean(u * u) + self.eps)
        y = times(u, theta["scale"][:, None] * r)
        y = plus(y, theta["shift"][:, None], out=y)
        return y.reshape(x.shape), (u, r)

    def backward(self, theta, cache, dy):
        """With sigma = sum(dy u):

            dbeta = sum(dy),  dgamma = r sigma,
            dx = a (dy - mean(dy) - u c),  c = r^2 sigma / P.

        The second term comes through mu, the third through s2: ds2 = -1/2 gamma r^3 sigma and ds2/du = 2 u / P. The path
        from s2 to mu vanishes, since sum(u) = 0.
        """
        u, r = cache
        d = rows(dy)
        sigma, total = sum_rows(d * u), sum_rows(d)
        dx = self._input_gradient(d, u, total, r * r * sigma)
        dx = times(dx, theta["scale"][:, None] * r)
        return dx.reshape(dy.shape), {"scale": (r * sigma)[:, 0], "shift": total[:, 0]}

    def forward_tangent(self, theta, theta_dot, cache, x_dot):
        """u_dot = x_dot - mean(x_dot),  s2_dot = 2 mean(u u_dot),  r_dot = -1/2 r^3 s2_dot,

        y_dot = a u_dot + a_dot u + beta_dot,  a_dot = gamma_dot r + gamma r_dot.
        """
        u, r = cache
        u_dot = rows(x_dot)
        u_dot = plus(u_dot, -_mean(u_dot))
        r_dot = -(r * r * r) * _mean(u * u_dot)
        gamma, gamma_dot = theta["scale"][:, None], theta_dot["scale"][:, None]
        y_dot = times(u_dot, gamma * r) + times(u, gamma_dot * r + gamma * r_dot)
        y_dot = plus(y_dot, theta_dot["shift"][:, None], out=y_dot)
        return y_dot.reshape(x_dot.shape), (u_dot, r_dot)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot):
        """The product rule on backward, with sigma_dot = sum(dy_dot u + dy u_dot):

        dbeta_dot = sum(dy_dot),  dgamma_dot = r_dot sigma + r sigma_dot,
        dx_dot = a_dot (dy - mean(dy) - u c) + a (dy_dot - mean(dy_dot) - u c_dot - u_dot c),
        c_dot = (2 r r_dot sigma + r^2 sigma_dot) / P.
        """
        (u, r), (u_dot, r_dot) = cache, cache_dot
        d, d_dot = rows(dy), rows(dy_dot)
        sigma, total = sum_rows(d * u), sum_rows(d)
        sigma_dot, total_dot = sum_rows(d_dot * u + d * u_dot), sum_rows(d_dot)
        c_sum = r * r * sigma
        c_sum_dot = 2 * r * r_dot * sigma + r * r * sigma_dot
        gamma, gamma_dot = theta["scale"][:, None], theta_dot["scale"][:, None]
        dx_dot = self._input_gradient(d_dot, u, total_dot, c_sum_dot) - times(
            u_dot, c_sum / u.shape[1]
        )
        dx_dot = times(dx_dot, gamma * r)
        dx_dot = dx_dot + times(
            self._input_gradient(d, u, total, c_sum), gamma_dot * r + gamma * r_dot
        )
        dgamma_dot = r_dot * sigma + r * sigma_dot
        return dx_dot.reshape(dy_dot.shape), {"scale": dgamma_dot[:, 0], "shift": total_dot[:, 0]}

    @staticmethod
    def _input_gradient(d: Array, u: Array, total: Array, c_sum: Array) -> Array:
        """d - total / P - u (c_sum / P), all of ``(T, P, C)``: backward's bracket."""
        count = d.shape[1]
        bracket = times(u, c_sum / -count)
        bracket += d
        return plus(bracket, total / -count, out=bracket)


def _mean(a: Array) -> Array:
    return sum_rows(a) / a.shape[1]
