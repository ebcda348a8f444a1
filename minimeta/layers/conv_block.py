"""A convolution, BatchNorm, a max pooling or none, and ReLU, as one layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..arrays.kernels import alike, block, patches
from .base import Layer
from .conv2d import Cache as PatchCache
from .conv2d import Conv2D
from .rectified_norm import RectifiedNorm


@dataclass(frozen=True)
class ConvBlock(Layer):
    """``convolution`` and ``norm``, a task at a time (arrays/host_block.py has
    the derivation).

    The parameters are those of both, in this order. It takes the arrays that
    have twins (``arrays.kernels.has_twins``). The tangents are those of the two
    layers, one after the other.
    """

    convolution: Conv2D
    norm: RectifiedNorm

    @cached_property
    def _numbers(self):
        return block().Block(
            self.convolution.kernel, self.convolution.stride, self.norm.eps, self.norm.pooled
        )

    @property
    def shapes(self):
        return self.convolution.shapes | self.norm.shapes

    def init(self, rng):
        return self.convolution.init(rng) | self.norm.init(rng)

    def output_shape(self, input_shape):
        return self.norm.output_shape(self.convolution.output_shape(input_shape))

    def forward(self, theta, x):
        *parameters, x = alike(*self._parameters(theta), x)
        return block().forward(tuple(parameters), x, self._numbers)

    def backward(self, theta, cache, dy, on_data=False):
        *parameters, dy, x, v, mu, r = alike(*self._parameters(theta), dy, *cache[:4])
        given = tuple(parameters), (x, v, mu, r, cache[4]), dy
        dx, dW, db, dgamma, dbeta = block().backward(*given, self._numbers, on_data)
        weight = dW.reshape(-1, *self.convolution.shapes["weight"])
        return dx, {"weight": weight, "bias": db, "scale": dgamma, "shift": dbeta}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        given = theta, theta_dot, self._patches(cache), x_dot
        v_dot, patches_dot = self.convolution.forward_tangent(*given, on_data)
        y_dot, norm_dot = self.norm.forward_tangent(theta, theta_dot, cache[1:], v_dot)
        return y_dot, (patches_dot, norm_dot)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        patches_dot, norm_dot = cache_dot
        dv, _ = self.norm.backward(theta, cache[1:], dy)
        given = theta, theta_dot, cache[1:], norm_dot, dy, dy_dot
        dv_dot, of_norm = self.norm.backward_tangent(*given)
        given = theta, theta_dot, self._patches(cache), patches_dot, dv, dv_dot
        dx_dot, of_convolution = self.convolution.backward_tangent(*given, on_data)
        return dx_dot, of_convolution | of_norm

    def _parameters(self, theta):
        """W as matrices, b, gamma and beta."""
        weight = theta["weight"]
        matrices = weight.reshape(weight.shape[0], -1, self.convolution.outputs)
        return matrices, theta["bias"], theta["scale"], theta["shift"]

    def _patches(self, cache):
        """The cache that the convolution itself would have."""
        x = cache[0]
        return PatchCache(patches(x, self.convolution.kernel, self.convolution.stride), x.shape)
