"""BatchNorm and ReLU as one layer, with a max pooling between them or
without."""

from __future__ import annotations

from dataclasses import dataclass

from ..arrays.kernels import alike, normalization
from .batch_norm import BatchNorm
from .max_pool2d import MaxPool2D


@dataclass(frozen=True)
class RectifiedNorm(BatchNorm):
    """``BatchNorm``, with ``pooled`` a ``MaxPool2D``, and ``ReLU``, computed
    together (arrays/host_norm.py has the derivation).

    Parameters and x are those of BatchNorm; y is that of the last layer. It
    takes the arrays that have twins (``arrays.kernels.has_twins``).
    """

    pooled: bool = False

    def output_shape(self, input_shape):
        shape = super().output_shape(input_shape)
        return MaxPool2D().output_shape(shape) if self.pooled else shape

    def forward(self, theta, x):
        given = alike(theta["scale"], theta["shift"], x)
        return normalization().forward(*given, self.eps, self.pooled)

    def backward(self, theta, cache, dy, on_data=False):
        gamma, dy, *parts = alike(theta["scale"], dy, *cache[:3])
        dx, dgamma, dbeta = normalization().backward(gamma, (*parts, cache[3]), dy)
        return dx, {"scale": dgamma, "shift": dbeta}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        moving = theta["scale"], theta_dot["scale"], theta_dot["shift"]
        gamma, gamma_dot, beta_dot, x_dot, *parts = alike(*moving, x_dot, *cache[:3])
        given = gamma, gamma_dot, beta_dot, (*parts, cache[3]), x_dot
        return normalization().forward_tangent(*given)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        moving = theta["scale"], theta_dot["scale"], dy, dy_dot
        gamma, gamma_dot, dy, dy_dot, *parts = alike(*moving, *cache[:3], *cache_dot)
        given = gamma, gamma_dot, (*parts[:3], cache[3]), tuple(parts[3:]), dy, dy_dot
        dx_dot, dgamma_dot, dbeta_dot = normalization().backward_tangent(*given)
        return dx_dot, {"scale": dgamma_dot, "shift": dbeta_dot}
