"""2-D convolution with "same" padding, as one product over patches (im2col).

Row p of the patches X = S x holds the kernel x kernel x inputs values that the
output pixel p sees, and zeros where it sees the padding. S is a 0/1 selection.
With W the weights as a (kernel * kernel * inputs, outputs) matrix, the
convolution is

    y = (S x) W + 1 b^T.

The passes are this formula, its transpose, and their product rules. S^T adds
each entry of a patch back to the pixel that it was copied from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..arrays.backend import Array
from ..arrays.kernels import channel_sums, patches, patches_transpose, product_sum
from ..errors import ShapeError
from .base import LAYERS, Layer, Parameters, Shape, expect_shape, glorot_uniform


class Cache(NamedTuple):
    """What the other passes need of the forward pass."""

    patches: Array  # S x: (T, N * height' * width', kernel * kernel * inputs)
    image_shape: Shape  # the shape of x: (T, N, height, width, inputs)


@LAYERS.register("Conv2D")
@dataclass(frozen=True)
class Conv2D(Layer):
    """Convolution of channels-last images by ``kernel`` x ``kernel`` taps.

    ``theta["weight"]: (T or 1, kernel, kernel, inputs, outputs)``,
    Glorot-uniform at first; ``theta["bias"]: (T or 1, outputs)``, zero at
    first. ``x: (T, N, height, width, inputs)``,
    ``y: (T, N, ceil(height / stride), ceil(width / stride), outputs)``. The
    padding is TensorFlow's "same": zeros, so that the last window fits; an odd
    total puts the extra row below and the extra column to the right.

    Raises
    ------
    ShapeError
        on construction, if a size, ``stride`` or ``kernel`` is not positive.
    """

    inputs: int
    outputs: int
    stride: int = 1
    kernel: int = 3

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, self.stride, self.kernel) < 1:
            raise ShapeError(f"{self}: inputs, outputs, stride and kernel must be at least 1")

    @property
    def shapes(self) -> dict[str, Shape]:
        return {
            "weight": (self.kernel, self.kernel, self.inputs, self.outputs),
            "bias": (self.outputs,),
        }

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        taps = self.kernel**2
        weight = glorot_uniform(rng, self.shapes["weight"], taps * self.inputs, taps * self.outputs)
        return {"weight": weight, "bias": np.zeros(self.outputs)}

    def output_shape(self, input_shape: Shape) -> Shape:
        matches = len(input_shape) == 3 and input_shape[2] == self.inputs
        expect_shape(self, f"(height, width, {self.inputs})", matches, input_shape)
        return (-(-input_shape[0] // self.stride), -(-input_shape[1] // self.stride), self.outputs)

    def forward(self, theta, x):
        """y = (S x) W + 1 b^T."""
        cache = Cache(patches(x, self.kernel, self.stride), x.shape)
        y = product_sum((cache.patches, self._matrix(theta)), shift=theta["bias"])
        return self._images(y, cache), cache

    def backward(self, theta, cache, dy, on_data=False):
        """dL = <dy, (S dx) W + (S x) dW + 1 db^T>, so

        dx = S^T (dy W^T),  dW = (S x)^T dy,  db = 1^T dy.
        """
        dy = self._rows(dy)
        dx = None if on_data else self._transpose(cache, (dy, self._matrix(theta)))
        return dx, self._gradients(dy, (cache.patches, dy))

    def forward_tangent(self, theta, theta_dot, cache, x_dot, on_data=False):
        """y_dot = (S x) W_dot + (S x_dot) W + 1 b_dot^T."""
        pairs = [(cache.patches, self._matrix(theta_dot))]
        patches_dot = None if on_data else patches(x_dot, self.kernel, self.stride)
        if not on_data:
            pairs.append((patches_dot, self._matrix(theta)))
        return self._images(product_sum(*pairs, shift=theta_dot["bias"]), cache), patches_dot

    def backward_tangent(self, theta, theta_dot, cache, patches_dot, dy, dy_dot, on_data=False):
        """dx_dot = S^T (dy_dot W^T + dy W_dot^T),

        dW_dot = (S x)^T dy_dot + (S x_dot)^T dy,  db_dot = 1^T dy_dot.
        """
        dy, dy_dot = self._rows(dy), self._rows(dy_dot)
        if on_data:
            return None, self._gradients(dy_dot, (cache.patches, dy_dot))
        dx_dot = self._transpose(
            cache, (dy_dot, self._matrix(theta)), (dy, self._matrix(theta_dot))
        )
        return dx_dot, self._gradients(dy_dot, (cache.patches, dy_dot), (patches_dot, dy))

    def _matrix(self, theta: Parameters) -> Array:
        """W, a view of the weights:
        ``(T or 1, kernel^2 * inputs, outputs)``."""
        return theta["weight"].reshape(-1, self.kernel**2 * self.inputs, self.outputs)

    def _rows(self, images: Array) -> Array:
        """One row per pixel: ``(T, N * height' * width', outputs)``."""
        return images.reshape(images.shape[0], -1, self.outputs)

    def _images(self, rows: Array, cache: Cache) -> Array:
        """The inverse of ``_rows``: rows of pixels as images."""
        tasks, examples, *pixels = cache.image_shape
        return rows.reshape(tasks, examples, *self.output_shape(tuple(pixels)))

    def _transpose(self, cache: Cache, *pairs: tuple[Array, Array]) -> Array:
        """S^T sum_i dy_i W_i^T, of the shape of x."""
        return patches_transpose(
            *pairs, image_shape=cache.image_shape, kernel=self.kernel, stride=self.stride
        )

    def _gradients(self, dy: Array, *pairs: tuple[Array, Array]) -> dict[str, Array]:
        """dW = sum_i X_i^T dy_i for the pairs (X_i, dy_i), and db = 1^T dy."""
        weight = product_sum(*((X.swapaxes(1, 2), each) for X, each in pairs))
        return {"weight": weight.reshape(-1, *self.shapes["weight"]), "bias": channel_sums(dy)}
