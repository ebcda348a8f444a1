"""Blocks of convolution, BatchNorm, a max pooling or none, and ReLU, with a
Dense layer above them or none, as one layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..arrays.backend import Array
from ..arrays.kernels import alike, convnet
from .base import Layer, Shape
from .conv2d import Conv2D
from .dense import Dense
from .flatten import Flatten
from .rectified_norm import RectifiedNorm


@dataclass
class _Cache:
    """The shape of x, the cache of the forward pass, and the pair of the last
    backward pass: its dy and its e."""

    shape: Shape
    given: tuple[Array, ...]
    pulled: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class ConvNet(Layer):
    """``blocks``, pairs of a convolution and a norm, then, with ``head``,
    ``Flatten`` and that layer; computed in one call a pass
    (arrays/host_convnet.py has the derivation).

    ``theta["phi"]: (T or 1, D)`` holds the parameters of all layers, in their
    order in a network. ``x: (T, N, height, width, C)``. It takes the arrays
    that have twins (``arrays.kernels.has_twins``).
    """

    blocks: tuple[tuple[Conv2D, RectifiedNorm], ...]
    head: Dense | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that it stands for."""
        stack = tuple(layer for block in self.blocks for layer in block)
        return stack if self.head is None else (*stack, Flatten(), self.head)

    @property
    def shapes(self) -> dict[str, Shape]:
        return self._shapes

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        sizes = (math.prod(shape) for each in self.layers for shape in each.shapes.values())
        return {"phi": (sum(sizes),)}

    @cached_property
    def _net(self) -> Any:
        block = convnet().Block
        numbers = (
            block(conv.inputs, conv.outputs, conv.kernel, conv.stride, norm.eps, norm.pooled)
            for conv, norm in self.blocks
        )
        return convnet().Blocks(tuple(numbers), 0 if self.head is None else self.head.outputs)

    def output_shape(self, input_shape: Shape) -> Shape:
        for layer in self.layers:
            input_shape = layer.output_shape(input_shape)
        return input_shape

    def forward(self, theta, x):
        y, cache = convnet().forward(*alike(theta["phi"], x), self._net)
        return y, _Cache(x.shape, cache)

    def backward(self, theta, cache, dy, on_data=False):
        phi, upstream, given = _alike(cache.given, theta["phi"], dy)
        dx, dphi, e = convnet().backward(phi, given, upstream, self._net, cache.shape, on_data)
        cache.pulled = dy, e
        return dx, {"phi": dphi}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        phi, phi_dot, x_dot, given = _alike(cache.given, theta["phi"], theta_dot["phi"], x_dot)
        return convnet().forward_tangent(phi, phi_dot, given, x_dot, self._net, on_data)

    def backward_tangent(self, theta, theta_dot, cache, cache_dot, dy, dy_dot, on_data=False):
        if cache.pulled is None or cache.pulled[0] is not dy:  # a point under another loss
            self.backward(theta, cache, dy, on_data)
        arrays = theta["phi"], theta_dot["phi"], cache.pulled[1], dy, dy_dot, *cache_dot
        phi, phi_dot, *upstream, a_dot, v_dot, mu_dot, r_dot, given = _alike(cache.given, *arrays)
        dots = type(cache_dot)(a_dot, v_dot, mu_dot, r_dot)
        numbers = self._net, cache.shape, on_data
        dx_dot, dphi_dot = convnet().backward_tangent(
            phi, phi_dot, given, dots, *upstream, *numbers
        )
        return dx_dot, {"phi": dphi_dot}


def _alike(cache, *arrays):
    """``arrays``, and ``cache``, with all numbers in one dtype; ``chosen``
    holds none."""
    *numbers, chosen = cache
    made = alike(*arrays, *numbers)
    return *made[: len(arrays)], type(cache)(*made[len(arrays) :], chosen)
