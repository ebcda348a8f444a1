"""2-D convolution with "same" padding, as one matrix product over patches (im2col).

Let X be the matrix of patches: row p holds the kernel x kernel x channels values that output pixel p sees, padded with
zeros. X = S x is linear in x, with S a 0/1 selection, so the convolution is y = (S x) W + 1 b^T with W the weights as a
(kernel*kernel*in, out) matrix. Everything below is this formula, its transpose, and their product rules; S^T adds each
patch entry back to the pixel that it was copied from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import ShapeError
from .base import Layer, Shape, beside, expect_shape, glorot_uniform, plus, rows, sum_rows


class _Cache(NamedTuple):
    patches: Array  # (T, N * height' * width', kernel * kernel * in)
    image_shape: Shape  # (T, N, height, width, in)


@dataclass(frozen=True)
class Conv2D(Layer):
    """Convolution of channels-last images, ``kernel`` x ``kernel`` taps, stride 1 or more, TensorFlow's "same" padding.

    ``theta["weight"]: (T or 1, kernel, kernel, inputs, outputs)``, Glorot-uniform at first;
    ``theta["bias"]: (T or 1, outputs)``, zero at first. ``x: (T, N, height, width, inputs)``,
    ``y: (T, N, ceil(height / stride), ceil(width / stride), outputs)``. Zeros are padded so that the last window fits; an
    odd total puts the extra row below and the extra column to the right.
    """

    inputs: int
    outputs: int
    stride: int = 1
    kernel: int = 3

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, self.stride, self.kernel) < 1:
            raise ShapeError(f"{self}: sizes, stride and kernel must be at least 1")

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
        """y = X W + 1 b^T with X = S x."""
        cache = _Cache(self._patches(x), x.shape)
        return self._affine(cache, theta), cache

    def backward(self, theta, cache, dy):
        """dL = <dy, (S dx) W + X dW + 1 db^T>: dx = S^T (dy W^T), dW = X^T dy, db = 1^T dy."""
        dx = self._add_back(rows(dy), theta["weight"], cache.image_shape)
        return dx, self.backward_on_data(theta, cache, dy)

    def forward_tangent(self, theta, theta_dot, cache, x_dot):
        """y_dot = X_dot W + X W_dot + 1 b_dot^T with X_dot = S x_dot."""
        patches_dot = self._patches(x_dot)
        y_dot = self._affine(cache, theta_dot)
        return y_dot + (patches_dot @ self._matrix(theta)).reshape(y_dot.shape), patches_dot

    def backward_tangent(self, theta, theta_dot, cache, patches_dot, dy, dy_dot):
        """dx_dot = S^T (dy_dot W^T + dy W_dot^T), dW_dot = X_dot^T dy + X^T dy_dot, db_dot = 1^T dy_dot.

        The sum in dx_dot is one product, [dy_dot dy] [W W_dot]^T.
        """
        both = beside(rows(dy_dot), rows(dy))
        dx_dot = self._add_back(
            both, beside(theta["weight"], theta_dot["weight"]), cache.image_shape
        )
        dtheta_dot = self.backward_on_data(theta, cache, dy_dot)
        dtheta_dot["weight"] += self._taps(patches_dot.swapaxes(1, 2) @ rows(dy))
        return dx_dot, dtheta_dot

    def backward_on_data(self, theta, cache, dy):
        """dW = X^T dy, db = 1^T dy."""
        dy = rows(dy)
        return {"weight": self._taps(cache.patches.swapaxes(1, 2) @ dy), "bias": sum_rows(dy)[:, 0]}

    def forward_tangent_on_data(self, theta, theta_dot, cache, x_dot):
        """y is linear in (W, b): y_dot is y at (W_dot, b_dot)."""
        return self._affine(cache, theta_dot), None

    def backward_tangent_on_data(self, theta, theta_dot, cache, patches_dot, dy, dy_dot):
        """dtheta is linear in dy: dtheta_dot is dtheta at dy_dot."""
        return self.backward_on_data(theta, cache, dy_dot)

    def _affine(self, cache: _Cache, theta) -> Array:
        """X W + 1 b^T, as images."""
        y = cache.patches @ self._matrix(theta)
        y = plus(y, theta["bias"][:, None], out=y)
        return y.reshape(-1, cache.image_shape[1], *self.output_shape(cache.image_shape[2:]))

    def _matrix(self, theta) -> Array:
        """W: a view of the weights as (T or 1, kernel * kernel * in, out)."""
        weight = theta["weight"]
        return weight.reshape(weight.shape[0], -1, self.outputs)

    def _taps(self, matrix: Array) -> Array:
        """A matrix shaped as W, as the weights: (T, kernel, kernel, in, out)."""
        return matrix.reshape(-1, *self.shapes["weight"])

    def _padding(self, size: int) -> tuple[int, int]:
        """Zeros before and after an axis of length ``size``: TensorFlow's "same"."""
        total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2

    def _patches(self, x: Array) -> Array:
        """X = S x as (T, N * height' * width', kernel * kernel * in): one copy of a strided view."""
        xp = array_module(x)
        tasks, examples, height, width, channels = x.shape
        (top, bottom), (left, right) = self._padding(height), self._padding(width)
        padded = xp.zeros(
            (tasks, examples, top + height + bottom, left + width + right, channels), dtype=x.dtype
        )
        padded[:, :, top : top + height, left : left + width] = x
        high, wide, _ = self.output_shape(x.shape[2:])
        t, n, h, w, c = padded.strides
        windows = xp.lib.stride_tricks.as_strided(
            padded,
            (tasks, examples, high, wide, self.kernel, self.kernel, channels),
            (t, n, h * self.stride, w * self.stride, h, w, c),
        )
        return windows.reshape(tasks, examples * high * wide, -1)

    def _add_back(self, dy: Array, weight: Array, image_shape: Shape) -> Array:
        """S^T (dy W^T): for each of the kernel * kernel taps, add its dy W_tap^T to the pixels that it sees.

        Tap by tap, because the gradient of all patches at once is larger than a cache, and often than the image nine-fold.
        """
        xp = array_module(dy)
        _, examples, height, width, channels = image_shape
        (top, bottom), (left, right) = self._padding(height), self._padding(width)
        high, wide, _ = self.output_shape(image_shape[2:])
        dtype = np.promote_types(dy.dtype, weight.dtype)
        padded = xp.zeros(
            (dy.shape[0], examples, top + height + bottom, left + width + right, channels),
            dtype=dtype,
        )
        for i in range(self.kernel):
            for j in range(self.kernel):
                seen = padded[
                    :,
                    :,
                    i : i + high * self.stride : self.stride,
                    j : j + wide * self.stride : self.stride,
                ]
                seen += (dy @ weight[:, i, j].swapaxes(1, 2)).reshape(seen.shape)
        return padded[:, :, top : top + height, left : left + width]
