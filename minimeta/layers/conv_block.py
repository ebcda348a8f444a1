"""A convolution, BatchNorm, a max pooling or none, and ReLU, as one layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..arrays.kernels import alike, block
from .base import Layer
from .conv2d import Conv2D
from .rectified_norm import RectifiedNorm


@dataclass(frozen=True)
class ConvBlock(Layer):
    """``convolution`` and ``norm``, a task at a time (arrays/host_block.py has
    the derivation).

    The parameters are those of both, in this order. It takes the arrays that
    have twins (``arrays.kernels.has_twins``).
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
        return block().forward(*self._alike((theta,), (), x), self._numbers)

    def backward(self, theta, cache, dy, on_data=False):
        given = self._alike((theta,), (cache,), dy)
        dx, dphi = block().backward(*given, self._numbers, on_data)
        return dx, self._named(dphi)

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        given = self._alike((theta, theta_dot), (cache,), x_dot)
        return block().forward_tangent(*given, self._numbers, on_data)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        given = self._alike((theta, theta_dot), (cache, cache_dot), dy, dy_dot)
        dx_dot, dphi_dot = block().backward_tangent(*given, self._numbers, on_data)
        return dx_dot, self._named(dphi_dot)

    def _alike(self, thetas, caches, *others):
        """Parameters, caches and other arrays as the passes take them, all
        numbers in one dtype; ``chosen`` holds none."""
        groups = [*map(self._parameters, thetas), *caches]
        numbers = [a for group in groups for a in group if a.dtype.kind in "fc"]
        made = iter(alike(*numbers, *others))
        taken = [
            type(group)(*(next(made) if a.dtype.kind in "fc" else a for a in group))
            for group in groups
        ]
        return *taken, *made

    def _parameters(self, theta):
        weight = theta["weight"]
        matrices = weight.reshape(weight.shape[0], -1, self.convolution.outputs)
        return block().Parameters(matrices, theta["bias"], theta["scale"], theta["shift"])

    def _named(self, dphi):
        W, b, gamma, beta = dphi
        weight = W.reshape(-1, *self.convolution.shapes["weight"])
        return {"weight": weight, "bias": b, "scale": gamma, "shift": beta}
