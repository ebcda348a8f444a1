"""Batch normalization with the statistics of the current batch, always.

Statistics are those of one task and one channel. mean and sum run over the
channel's P = N * height * width values; o multiplies each value with its
channel's number.

    mu = mean(x),  u = x - mu,  s2 = mean(u o u),  r = (s2 + eps)^(-1/2),
    a = gamma r,   y = a o u + beta.

With sigma = sum(dy o u) and c = r^2 sigma / P, the gradients are

    dbeta = sum(dy),  dgamma = r sigma,
    dx = a o dy - (a c) o u - a mean(dy).

Their first term is the path through u alone. The second comes through s2:
dL/ds2 = -1/2 gamma r^3 sigma, and ds2/du = 2 u / P. The third comes through mu,
where the path from s2 to mu vanishes, because sum(u) = 0.

The tangents are the product rule, line by line:

    u_dot = x_dot - mean(x_dot),  s2_dot = 2 mean(u o u_dot),
    r_dot = -1/2 r^3 s2_dot,
    a_dot = gamma_dot r + gamma r_dot,
    y_dot = a o u_dot + a_dot o u + beta_dot,

    sigma_dot = sum(dy_dot o u) + sum(dy o u_dot),
    c_dot = (2 r r_dot sigma + r^2 sigma_dot) / P,
    dbeta_dot = sum(dy_dot),  dgamma_dot = r_dot sigma + r sigma_dot,
    dx_dot = a o dy_dot + a_dot o dy - (a c) o u_dot - (a_dot c + a c_dot) o u
             - (a_dot mean(dy) + a mean(dy_dot)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..arrays.backend import Array, array_module
from ..arrays.elementwise import elementwise
from ..arrays.kernels import centred, channel_combination, channel_dots, dots_and_sums
from ..errors import ShapeError
from .base import LAYERS, Layer, Shape, expect_shape


@LAYERS.register("BatchNorm")
@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalization of each channel, then a learned scale and shift of it.

    ``theta["scale"]: (T or 1, channels)``, gamma, one at first;
    ``theta["shift"]: (T or 1, channels)``, beta, zero at first.
    ``x: (T, N, *pixels, channels)``; ``y`` has the shape of ``x``. ``eps`` is
    added to the variance (TensorFlow's 0.001).

    The code has the symbols of the derivation above. mu, r, a, c, sigma and
    their dots are ``(T, channels)``; u and u_dot have the shape of x, and are
    cached with r and r_dot. One factor a channel serves y, so the normalized
    values are never formed.
    """

    channels: int
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ShapeError(f"{self}: channels must be at least 1")

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
        u, square = centred(x)
        a, r = _scales(theta["scale"], square, _count(x), self.eps)
        return channel_combination((a, u), shift=theta["shift"]), (u, r)

    def backward(self, theta, cache, dy, on_data=False):
        (u, r), P = cache, _count(dy)
        sigma, total = dots_and_sums(dy, u)
        a, of_u, shift, dgamma = _pulled(theta["scale"], r, sigma, total, P)
        dx = channel_combination((a, dy), (of_u, u), shift=shift)
        return dx, {"scale": dgamma, "shift": total}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        (u, r), P = cache, _count(x_dot)
        u_dot, dot = centred(x_dot, u)
        scales = theta["scale"], theta_dot["scale"]
        a, a_dot, r_dot = _moving_scales(*scales, r, dot, P)
        y_dot = channel_combination((a, u_dot), (a_dot, u), shift=theta_dot["shift"])
        return y_dot, (u_dot, r_dot)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        (u, r), (u_dot, r_dot), P = cache, cache_dot, _count(dy)
        sigma, total = dots_and_sums(dy, u)
        sigma_dot, total_dot = dots_and_sums(dy_dot, u)
        sigma_dot = sigma_dot + channel_dots(dy, u_dot)
        moving = theta_dot["scale"], r_dot, sigma_dot, total_dot
        a, a_dot, of_u_dot, of_u, shift, dgamma_dot = _pulled_dots(
            theta["scale"], r, sigma, total, *moving, P
        )
        dx_dot = channel_combination(
            (a, dy_dot), (a_dot, dy), (of_u_dot, u_dot), (of_u, u), shift=shift
        )
        return dx_dot, {"scale": dgamma_dot, "shift": total_dot}


# The numbers of a channel, of shape (T, channels). Each function is one kernel
# on a device.


@elementwise
def _scales(gamma, square, P, eps):
    """a and r, where ``square`` is sum(u o u)."""
    r = 1 / array_module(square).sqrt(square / P + eps)
    return gamma * r, r


@elementwise
def _pulled(gamma, r, sigma, total, P):
    """a, -a c and -a mean(dy), the factors of dx; and dgamma."""
    a, c = gamma * r, r * r * sigma / P
    return a, -a * c, -a * total / P, r * sigma


@elementwise
def _moving_scales(gamma, gamma_dot, r, dot, P):
    """a, a_dot and r_dot, where ``dot`` is sum(u o u_dot)."""
    r_dot = -(r * r * r) * dot / P
    return gamma * r, gamma_dot * r + gamma * r_dot, r_dot


@elementwise
def _pulled_dots(gamma, r, sigma, total, gamma_dot, r_dot, sigma_dot, total_dot, P):
    """a, a_dot, -a c and -(a_dot c + a c_dot), the factors of dx_dot; its
    shift; and dgamma_dot."""
    a, a_dot = gamma * r, gamma_dot * r + gamma * r_dot
    c = r * r * sigma / P
    c_dot = (2 * r * r_dot * sigma + r * r * sigma_dot) / P
    of_u, shift = -a_dot * c - a * c_dot, -(a_dot * total + a * total_dot) / P
    return a, a_dot, -a * c, of_u, shift, r_dot * sigma + r * sigma_dot


def _count(x: Array) -> int:
    """P, the number of values of one channel of one task."""
    return math.prod(x.shape[1:-1])
