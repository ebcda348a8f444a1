"""A network: layers over one flat vector of parameters.

``phi`` has shape ``(D,)`` where all tasks share it and ``(T, D)`` where each
has its own copy. In it the parameters stand layer by layer, in a layer as
``Layer.shapes`` lists them, each in C order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import index
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array, array_module
from ..arrays.kernels import beside
from ..errors import SettingsError, ShapeError
from ..layers.base import Layer, Parameters, Shape
from ..layers.joined import Stage, joined
from .protocols import check_float, check_generator

Theta = tuple[Parameters, ...]


@dataclass(frozen=True)
class Network:
    """``layers`` applied in order to examples of ``input_shape`` (features
    only: no task or example axis).

    Its four passes are those of a layer (layers/base.py), with the chain rule
    over the layers and all parameters of a task gathered into one row.
    ``on_data`` is passed to the lowest layer alone, and only where it is True:
    a layer that is written without the argument works anywhere else.

    Raises
    ------
    ShapeError
        on construction, naming the first layer that cannot take what the one
        before it gives.
    SettingsError
        if ``input_shape`` is not a sequence of whole numbers, or ``layers`` not
        one of layers.
    """

    input_shape: Shape
    layers: tuple[Layer, ...]
    output_shape: Shape = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_shape", _checked_shape(self.input_shape))
        object.__setattr__(self, "layers", _checked_layers(self.layers))
        shape = self.input_shape
        for position, layer in enumerate(self.layers):
            try:
                shape = layer.output_shape(shape)
            except ShapeError as error:
                raise ShapeError(f"layer {position}: {error}") from None
        object.__setattr__(self, "output_shape", shape)

    @cached_property
    def size(self) -> int:
        """D, the number of parameters."""
        return sum(math.prod(shape) for layer in self.layers for shape in layer.shapes.values())

    @cached_property
    def head(self) -> slice:
        """The slice of phi that holds the last layer with parameters."""
        places = [slots for slots in self._slots if slots]
        return slice(places[-1][0][1].start, self.size) if places else slice(0, 0)

    @cached_property
    def context(self) -> slice:
        """The place in phi of the first parameter named "context" (of a Context
        or a FiLM layer); empty without one."""
        places = (place for slots in self._slots for name, place, _ in slots if name == "context")
        return next(places, slice(0, 0))

    @cached_property
    def activations(self) -> int:
        """Numbers that a forward pass computes for one example: the outputs of
        all layers."""
        return sum(math.prod(shape) for shape in self._output_shapes)

    @cached_property
    def multiply_adds(self) -> int:
        """About how many a forward pass makes for one example: every parameter
        meets every pixel of its layer's output."""
        return sum(
            math.prod(shape) * math.prod(output[:-1])
            for layer, output in zip(self.layers, self._output_shapes, strict=True)
            for shape in layer.shapes.values()
        )

    @cached_property
    def _output_shapes(self) -> list[Shape]:
        shapes = [self.input_shape]
        for layer in self.layers:
            shapes.append(layer.output_shape(shapes[-1]))
        return shapes[1:]

    @cached_property
    def _stages(self) -> tuple[Stage, ...]:
        """The layers as they are computed, some together."""
        return joined(self.layers)

    @cached_property
    def _slots(self) -> tuple[tuple[tuple[str, slice, Shape], ...], ...]:
        """For each layer, the name, slice of phi and shape of each
        parameter."""
        start, slots = 0, []
        for layer in self.layers:
            of_layer = []
            for name, shape in layer.shapes.items():
                stop = start + math.prod(shape)
                of_layer.append((name, slice(start, stop), shape))
                start = stop
            slots.append(tuple(of_layer))
        return tuple(slots)

    @cached_property
    def _parameters(self) -> tuple[tuple[int, str], ...]:
        """The layer and the name of each parameter, in the order of phi."""
        return tuple((i, name) for i, slots in enumerate(self._slots) for name, _, _ in slots)

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi ``(D,)`` of ``dtype`` in the array module ``xp``: drawn
        on the host, the same on every device."""
        check_generator(rng)
        parts = []
        for layer in self.layers:
            values = layer.init(rng)
            parts += [np.ravel(values[name]) for name in layer.shapes]
        return xp.asarray(np.concatenate(parts) if parts else np.empty(0), dtype=dtype)

    def unpack(self, phi: Array) -> Theta:
        """Views of ``phi``, never copies: for each layer a dict from name to
        ``(T or 1, *shape)``.

        Raises
        ------
        ShapeError
            if ``phi`` is neither ``(D,)`` nor ``(T, D)``.
        """
        if phi.ndim not in (1, 2) or phi.shape[-1] != self.size:
            raise ShapeError(
                f"phi must have shape ({self.size},) or (tasks, {self.size}), got {phi.shape}"
            )
        rows = phi if phi.ndim == 2 else phi[None]
        count = rows.shape[0]
        return tuple(
            {
                name: rows[:, place] if len(shape) == 1 else rows[:, place].reshape(count, *shape)
                for name, place, shape in of_layer
            }
            for of_layer in self._slots
        )

    def forward(self, phi: Array, x: Array) -> Array:
        """Predictions ``(T, N, *output_shape)`` for
        ``x: (T, N, *input_shape)``."""
        check_float("phi", phi)
        theta = self.unpack(phi)
        if phi.ndim == 2 and phi.shape[0] != x.shape[0]:
            raise ShapeError(
                f"phi and x must hold equally many tasks: phi {phi.shape} holds {phi.shape[0]}, "
                f"x {x.shape} holds {x.shape[0]}"
            )
        return self.forward_cached(theta, as_inputs(x, phi.dtype))[0]

    def forward_cached(self, theta: Theta, x: Array) -> tuple[Array, list[Any]]:
        """y, and the stages' caches. ``theta`` is an unpacked phi."""
        if x.ndim < 2 or x.shape[2:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise ShapeError(f"x must have shape (tasks, examples, {wanted}), got {x.shape}")
        caches = []
        for first, _, layer in self._stages:
            x, cache = layer.forward(theta[first], x)
            caches.append(cache)
        return x, caches

    def backward(
        self, theta: Theta, caches: Sequence[Any], dy: Array, on_data: bool = False
    ) -> tuple[Array | None, Array, list[Array]]:
        """dx, dphi ``(T, D)``, and dy of every stage, which backward_tangent
        needs.

        With ``on_data`` dx is not needed and may be None.
        """
        dz, dthetas = dy, [{}] * len(self.layers)
        dys: list[Any] = [dy] * len(self._stages)
        for i, (first, _, layer) in reversed(list(enumerate(self._stages))):
            dys[i] = dy
            if on_data and i == 0:
                dy, dthetas[first] = layer.backward(theta[first], caches[i], dy, on_data=True)
            else:
                dy, dthetas[first] = layer.backward(theta[first], caches[i], dy)
        return dy, self._as_rows(dthetas, dz), dys

    def forward_tangent(
        self,
        theta: Theta,
        theta_dot: Theta,
        caches: Sequence[Any],
        x_dot: Array,
        on_data: bool = False,
    ) -> tuple[Array, list[Any]]:
        """y_dot, and the dots of the caches. ``on_data`` states that x_dot is
        zero."""
        caches_dot = []
        for i, (first, _, layer) in enumerate(self._stages):
            given = theta[first], theta_dot[first], caches[i], x_dot
            if on_data and i == 0:
                x_dot, cache_dot = layer.forward_tangent(*given, on_data=True)
            else:
                x_dot, cache_dot = layer.forward_tangent(*given)
            caches_dot.append(cache_dot)
        return x_dot, caches_dot

    def backward_tangent(
        self,
        theta: Theta,
        theta_dot: Theta,
        caches: Sequence[Any],
        caches_dot: Sequence[Any],
        dys: Sequence[Array],
        dy_dot: Array,
        on_data: bool = False,
    ) -> tuple[Array | None, Array]:
        """dx_dot and dphi_dot ``(T, D)``. ``dys`` is backward's third result.

        ``on_data`` is for the lowest layer: dx_dot is not needed, and may be
        None.
        """
        dz_dot, dthetas_dot = dy_dot, [{}] * len(self.layers)
        for i, (first, _, layer) in reversed(list(enumerate(self._stages))):
            given = theta[first], theta_dot[first], caches[i], caches_dot[i], dys[i], dy_dot
            if on_data and i == 0:
                dy_dot, dthetas_dot[first] = layer.backward_tangent(*given, on_data=True)
            else:
                dy_dot, dthetas_dot[first] = layer.backward_tangent(*given)
        return dy_dot, self._as_rows(dthetas_dot, dz_dot)

    def _as_rows(self, dthetas: Sequence[Parameters], like: Array) -> Array:
        """Arrays by name, layer by layer, as rows ``(T, D)`` in the order of
        phi."""
        tasks = like.shape[0]
        parts = [dthetas[i][name].reshape(tasks, -1) for i, name in self._parameters]
        if not parts:
            return array_module(like).empty((tasks, 0), dtype=like.dtype)
        return beside(parts)


def _checked_shape(shape: Any) -> Shape:
    """A shape as a tuple of Python numbers."""
    try:
        return tuple(map(index, shape))
    except TypeError:
        raise SettingsError(
            f"a Network's input_shape must be a tuple of whole numbers, such as (4,) or "
            f"(28, 28, 1), got {shape!r}"
        ) from None


def _checked_layers(layers: Any) -> tuple[Layer, ...]:
    """The layers as a tuple."""
    if not isinstance(layers, (tuple, list)):
        raise SettingsError(
            f"a Network's layers must be a tuple, such as (Dense(4, 8), ReLU()), got {layers!r}"
        )
    for position, layer in enumerate(layers):
        if isinstance(layer, type) or not isinstance(layer, Layer):
            told = f"the class {layer.__name__}" if isinstance(layer, type) else f"{layer!r}"
            raise SettingsError(
                f"layer {position} of a Network must be a layer, such as Dense(4, 8) or ReLU(), "
                f"got {told}"
            )
    return tuple(layers)


def as_inputs(x: Array, dtype: Any) -> Array:
    """Inputs in the precision of phi, whatever they are stored in (images are
    uint8); complex inputs stay complex."""
    return x if x.dtype.kind == "c" else x.astype(dtype, copy=False)
