"""What a layer is: an immutable description with four explicit passes, and no arrays of its own.

A layer maps ``x: (T, N, *features)`` to ``y: (T, N, *features')`` for T tasks of N examples at once. ``theta`` holds its
parameters by name, each with a leading task axis of length T, or 1 where all tasks share them. Write
y = f(theta, x), and let L be a real function of y with gradient dy = dL/dy. A dot is the directional derivative along
(theta_dot, x_dot), Pearlmutter's R-operator:

    forward            y              = f(theta, x)
    backward           dx, dtheta     = (df/dx)^T dy, (df/dtheta)^T dy
    forward_tangent    y_dot          = (df/dx) x_dot + (df/dtheta) theta_dot
    backward_tangent   dx_dot, dtheta_dot: the dot of backward's two results, with dy moving along dy_dot

The last pass is what makes a Hessian-vector product exact: forward-over-reverse, no finite differences, no graph.

A network's lowest layer stands on data: nobody asks for its dx, and x_dot = 0. Three passes more, ``..._on_data``, are the
last three in that case; a layer may leave them as they are here, or write down what remains of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ..arrays.backend import Array, array_module
from ..errors import ShapeError

Parameters = Mapping[str, Array]
Shape = tuple[int, ...]


class Layer(ABC):
    """Base class of all layers. A subclass is a frozen dataclass of sizes and writes the four passes."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # What a subclass changes in a general pass must not be undone by a pass on data that it inherits.
        if {"forward", "backward", "forward_tangent", "backward_tangent"} & vars(cls).keys():
            for name in ("backward_on_data", "forward_tangent_on_data", "backward_tangent_on_data"):
                if name not in vars(cls):
                    setattr(cls, name, vars(Layer)[name])

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name and shape of each parameter, in their order in ``phi``; without the task axis."""
        return {}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters, float64 on the host, one array for each entry of ``shapes``."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Features out for features in.

        Raises
        ------
        ShapeError
            if the layer cannot take ``input_shape``.
        """
        return input_shape

    @abstractmethod
    def forward(self, theta: Parameters, x: Array) -> tuple[Array, Any]:
        """y, cache. ``x: (T, N, *features)``; the cache is whatever the other passes need."""

    @abstractmethod
    def backward(self, theta: Parameters, cache: Any, dy: Array) -> tuple[Array, dict[str, Array]]:
        """dx, dtheta. ``dtheta`` always has T tasks on its leading axis, even where ``theta`` is shared."""

    @abstractmethod
    def forward_tangent(
        self, theta: Parameters, theta_dot: Parameters, cache: Any, x_dot: Array
    ) -> tuple[Array, Any]:
        """y_dot, cache_dot."""

    @abstractmethod
    def backward_tangent(
        self,
        theta: Parameters,
        theta_dot: Parameters,
        cache: Any,
        cache_dot: Any,
        dy: Array,
        dy_dot: Array,
    ) -> tuple[Array, dict[str, Array]]:
        """dx_dot, dtheta_dot."""

    def backward_on_data(self, theta: Parameters, cache: Any, dy: Array) -> dict[str, Array]:
        """dtheta alone."""
        return self.backward(theta, cache, dy)[1]

    def forward_tangent_on_data(
        self, theta: Parameters, theta_dot: Parameters, cache: Any, x_dot: Array
    ) -> tuple[Array, Any]:
        """y_dot, cache_dot, given that ``x_dot`` is zero."""
        return self.forward_tangent(theta, theta_dot, cache, x_dot)

    def backward_tangent_on_data(
        self,
        theta: Parameters,
        theta_dot: Parameters,
        cache: Any,
        cache_dot: Any,
        dy: Array,
        dy_dot: Array,
    ) -> dict[str, Array]:
        """dtheta_dot alone, given that x_dot was zero."""
        return self.backward_tangent(theta, theta_dot, cache, cache_dot, dy, dy_dot)[1]


def expect_shape(layer: Layer, expected: str, matches: bool, input_shape: Shape) -> None:
    """Raise the ShapeError that names ``layer``, what it expected and what came, unless ``matches``."""
    if not matches:
        raise ShapeError(
            f"{layer} expects inputs of shape {expected} after the task and example axes, got {input_shape}"
        )


def rows(x: Array) -> Array:
    """Examples and pixels on one axis: ``(T, N, *pixels, C)`` as ``(T, P, C)``."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def sum_rows(a: Array) -> Array:
    """Sum over the middle axis, ``(T, P, C) -> (T, 1, C)``, as the matrix product 1^T a.

    BLAS sums columns at the speed of memory; NumPy's own reduction over a middle axis is five times slower.
    """
    xp = array_module(a)
    return xp.ones((1, a.shape[1]), dtype=a.dtype) @ a


def plus(a: Array, v: Array, out: Array | None = None) -> Array:
    """a + v for ``a: (T, P, C)`` and one number a channel, ``v: (T or 1, 1, C)``; into a contiguous ``out`` if given."""
    return _by_channel(array_module(a).add, a, v, out)


def times(a: Array, v: Array, out: Array | None = None) -> Array:
    """a v, likewise."""
    return _by_channel(array_module(a).multiply, a, v, out)


def _by_channel(operation: Callable[..., Array], a: Array, v: Array, out: Array | None) -> Array:
    """``operation(a, v)`` with several rows of ``a`` taken as one long row, and v repeated to its length.

    NumPy goes through a broadcast row by row, and through rows of more than 4096 numbers up to twice as fast.
    """
    tasks, count, channels = a.shape
    together = _rows_together(count, channels)
    if together == 1:
        return operation(a, v, out=out)
    wide = (tasks, count // together, together * channels)
    repeated = (
        array_module(v)
        .broadcast_to(v[:, :, None], (len(v), 1, together, channels))
        .reshape(len(v), 1, -1)
    )
    return operation(
        a.reshape(wide), repeated, out=None if out is None else out.reshape(wide)
    ).reshape(a.shape)


@lru_cache
def _rows_together(count: int, channels: int) -> int:
    """The largest divisor of ``count`` that makes rows of at most 6144 numbers; 1 where all is small anyway."""
    if count * channels < 1 << 16:
        return 1
    return next(each for each in range(max(1, 6144 // channels), 0, -1) if count % each == 0)


def product(a: Array, b: Array) -> Array:
    """a @ b. Where the inner axis has length 1 it is an outer product, which broadcasting does three times faster."""
    return a * b if a.shape[-1] == 1 else a @ b


def beside(a: Array, b: Array) -> Array:
    """[a b]: a and b along their last axis, where one may have one task and the other T."""
    xp, tasks = array_module(a), max(a.shape[0], b.shape[0])
    return xp.concatenate(
        [xp.broadcast_to(each, (tasks, *each.shape[1:])) for each in (a, b)], axis=-1
    )


def glorot_uniform(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010), float64."""
    bound = (6.0 / (fan_in + fan_out)) ** 0.5
    return rng.uniform(-bound, bound, shape)
