"""Dense layers with ReLU between them, as one layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from ..arrays.backend import Array
from ..arrays.kernels import alike, perceptron
from .base import Layer, Shape


@dataclass
class _Cache:
    """``a`` of the forward pass, and the pair of the last backward pass: its dy
    and its e."""

    a: Array
    pulled: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class Perceptron(Layer):
    """``Dense``, ``ReLU``, ``Dense``, ..., ``Dense``, computed in one call a
    pass (arrays/host_perceptron.py has the derivation).

    ``widths`` are those of the inputs and of every Dense layer's outputs.
    ``theta["phi"]: (T or 1, D)`` holds the parameters of all layers, in their
    order in a network. ``x: (T, N, inputs)``, ``y: (T, N, outputs)``. It takes
    the arrays that have twins (``arrays.kernels.has_twins``).
    """

    widths: tuple[int, ...]

    @property
    def shapes(self) -> dict[str, Shape]:
        return self._shapes

    @cached_property
    def _shapes(self) -> dict[str, Shape]:
        return {"phi": (sum((n + 1) * m for n, m in pairwise(self.widths)),)}

    def output_shape(self, input_shape: Shape) -> Shape:
        return (self.widths[-1],)

    def forward(self, theta, x):
        y, a = perceptron().forward(*alike(theta["phi"], x), self.widths)
        return y, _Cache(a)

    def backward(self, theta, cache, dy, on_data=False):
        given = alike(theta["phi"], cache.a, dy)
        dx, dphi, e = perceptron().backward(*given, self.widths, on_data)
        cache.pulled = dy, e
        return dx, {"phi": dphi}

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        given = alike(theta["phi"], theta_dot["phi"], cache.a, x_dot)
        return perceptron().forward_tangent(*given, self.widths, on_data)

    def backward_tangent(self, theta, theta_dot, cache, a_dot, dy, dy_dot, on_data=False):
        pulled = cache.pulled
        if pulled is None or pulled[0] is not dy:  # a point under another loss has another dy
            self.backward(theta, cache, dy, on_data)
            pulled = cache.pulled
        given = alike(theta["phi"], theta_dot["phi"], cache.a, a_dot, pulled[1], dy_dot)
        dx_dot, dphi_dot = perceptron().backward_tangent(*given, self.widths, on_data)
        return dx_dot, {"phi": dphi_dot}
