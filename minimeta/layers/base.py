"""A layer is an immutable description with four explicit passes.

It holds no arrays. It maps ``x: (T, N, *features)`` to
``y: (T, N, *features')`` for T tasks of N examples at once. ``theta`` holds its
parameters by name, each with a leading task axis of length T, or 1 where all
tasks share them. Write y = f(theta, x), and let L be a real function of y with
gradient dy = dL/dy. A dot is the directional derivative along (theta_dot,
x_dot), Pearlmutter's R-operator:

    forward            y              = f(theta, x)
    backward           dx, dtheta     = (df/dx)^T dy, (df/dtheta)^T dy
    forward_tangent    y_dot          = (df/dx) x_dot + (df/dtheta) theta_dot
    backward_tangent   dx_dot, dtheta_dot: the dots of backward's two results,
                       with dy moving along dy_dot

The last pass makes a Hessian-vector product exact: it is forward-over-reverse,
without finite differences and without a graph.

A network's lowest layer stands on data: there x_dot = 0, and no one needs dx.
The network says so by ``on_data=True``. A layer may then spare work and give
None for dx and dx_dot, or ignore the argument.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.backend import Array
from ..errors import ShapeError
from ..registry import Registry

Parameters = Mapping[str, Array]
Shape = tuple[int, ...]

# Layers by the names that files give them.
LAYERS = Registry("layer")


class Layer(ABC):
    """Base class of all layers.

    A subclass is a frozen dataclass of sizes and writes the four passes. Every
    array has the dtype of ``theta`` and ``x``.
    """

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes by name, in their order in ``phi``, without the task axis."""
        return {}

    def init(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters by name, float64 on the host; no task axis."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of the output features for inputs of shape ``input_shape``.

        Raises
        ------
        ShapeError
            if the layer cannot take ``input_shape``.
        """
        return input_shape

    @abstractmethod
    def forward(self, theta: Parameters, x: Array) -> tuple[Array, Any]:
        """y, cache. ``x: (T, N, *features)``; the cache is for the other
        passes."""

    @abstractmethod
    def backward(
        self, theta: Parameters, cache: Any, dy: Array, on_data: bool = False
    ) -> tuple[Array | None, dict[str, Array]]:
        """dx, dtheta.

        ``dtheta`` always has T tasks, even where ``theta`` is shared.
        ``on_data``: dx is not needed and may be None.
        """

    @abstractmethod
    def forward_tangent(
        self,
        theta: Parameters,
        theta_dot: Parameters,
        cache: Any,
        x_dot: Array,
        on_data: bool = False,
    ) -> tuple[Array, Any]:
        """y_dot, cache_dot. ``on_data`` states that ``x_dot`` is zero."""

    @abstractmethod
    def backward_tangent(
        self,
        theta: Parameters,
        theta_dot: Parameters,
        cache: Any,
        cache_dot: Any,
        dy: Array,
        dy_dot: Array,
        on_data: bool = False,
    ) -> tuple[Array | None, dict[str, Array]]:
        """dx_dot, dtheta_dot.

        ``on_data``: dx_dot is not needed and may be None; ``cache_dot`` is that
        of ``forward_tangent`` with ``on_data``.
        """


def expect_shape(layer: Layer, expected: str, matches: bool, input_shape: Shape) -> None:
    """Raise a ShapeError unless ``matches``.

    The error names ``layer``, the ``expected`` shape and ``input_shape``.
    """
    if not matches:
        raise ShapeError(
            f"{layer} expects inputs of shape {expected} after the task and example axes, "
            f"got {input_shape}"
        )


def glorot_uniform(rng: np.random.Generator, shape: Shape, fan_in: int, fan_out: int) -> np.ndarray:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    bound = (6.0 / (fan_in + fan_out)) ** 0.5
    return rng.uniform(-bound, bound, shape)
