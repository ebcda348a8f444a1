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
from typing import Any, NamedTuple

import numpy as np

from ..arrays.backend import Array, array_module
from ..arrays.kernels import beside, has_twins
from ..errors import SettingsError, ShapeError
from ..layers.base import Layer, Parameters, Shape
from ..layers.joined import joined
from .protocols import check_float, check_generator


class Theta(NamedTuple):
    """Parameters as the passes of a network take them.

    ``stages`` are the layers, or layers that stand for several of them
    (layers/joined.py). ``parameters`` are those of each stage.
    """

    stages: tuple[Layer, ...]
    parameters: tuple[Parameters, ...]


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
    def _slots(self) -> Slots:
        return _slots_of(self.layers)

    @cached_property
    def _joined(self) -> tuple[tuple[Layer, ...], Slots]:
        """The stages of the network where arrays have twins, and their
        parameters."""
        stages = joined(self.layers)
        return stages, _slots_of(stages)

    def init(self, rng: np.random.Generator, dtype: Any = np.float32, xp: ModuleType = np) -> Array:
        """A fresh phi ``(D,)`` of ``dtype`` in the array module ``xp``: drawn
        on the host, the same on every device."""
        check_generator(rng)
        parts = []
        for layer in self.layers:
            values = layer.init(rng)
            parts += [np.ravel(values[name]) for name in layer.shapes]
        return xp.asarray(np.concatenate(parts) if parts else np.empty(0), dtype=dtype)

    def unpack(self, phi: Array) -> tuple[Parameters, ...]:
        """Views of ``phi``, never copies: for each layer a dict from name to
        ``(T or 1, *shape)``.

        Raises
        ------
        ShapeError
            if ``phi`` is neither ``(D,)`` nor ``(T, D)``.
        """
        return _views(self._rows(phi), self._slots)

    def theta(self, phi: Array, *others: Array) -> Theta:
        """``phi`` as the passes take it.

        ``others`` are the arrays that a pass computes with: stages that need
        twins are chosen where all have one dtype.

        Raises
        ------
        ShapeError
            if ``phi`` is neither ``(D,)`` nor ``(T, D)``.
        """
        rows = self._rows(phi)
        if has_twins(rows, *others):
            stages, slots = self._joined
            return Theta(stages, _views(rows, slots))
        return Theta(self.layers, _views(rows, self._slots))

    def _rows(self, phi: Array) -> Array:
        """``phi`` with a task axis, of length 1 where tasks share it."""
        if phi.ndim not in (1, 2) or phi.shape[-1] != self.size:
            raise ShapeError(
                f"phi must have shape ({self.size},) or (tasks, {self.size}), got {phi.shape}"
            )
        return phi if phi.ndim == 2 else phi[None]

    def dot(self, theta: Theta, phi_dot: Array) -> tuple[Parameters, ...]:
        """A direction ``phi_dot: (D,) or (T, D)`` as the parameters of the
        stages of ``theta``."""
        slots = self._slots if theta.stages is self.layers else self._joined[1]
        return _views(self._rows(phi_dot), slots)

    def forward(self, phi: Array, x: Array) -> Array:
        """Predictions ``(T, N, *output_shape)`` for
        ``x: (T, N, *input_shape)``."""
        check_float("phi", phi)
        inputs = as_inputs(x, phi.dtype)
        theta = self.theta(phi, inputs)
        if phi.ndim == 2 and phi.shape[0] != x.shape[0]:
            raise ShapeError(
                f"phi and x must hold equally many tasks: phi {phi.shape} holds {phi.shape[0]}, "
                f"x {x.shape} holds {x.shape[0]}"
            )
        return self.forward_cached(theta, inputs)[0]

    def forward_cached(self, theta: Theta, x: Array) -> tuple[Array, list[Any]]:
        """y, and the stages' caches. ``theta`` is that of ``Network.theta``."""
        if x.ndim < 2 or x.shape[2:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            raise ShapeError(f"x must have shape (tasks, examples, {wanted}), got {x.shape}")
        caches = []
        for stage, parameters in zip(*theta, strict=True):
            x, cache = stage.forward(parameters, x)
            caches.append(cache)
        return x, caches

    def backward(
        self, theta: Theta, caches: Sequence[Any], dy: Array, on_data: bool = False
    ) -> tuple[Array | None, Array, list[Array]]:
        """dx, dphi ``(T, D)``, and dy of every stage, which backward_tangent
        needs.

        With ``on_data`` dx is not needed and may be None.
        """
        dz, count = dy, len(theta.stages)
        dys, dthetas = [dy] * count, [{}] * count
        for i in reversed(range(count)):
            dys[i] = dy
            given = theta.parameters[i], caches[i], dy
            if on_data and i == 0:
                dy, dthetas[i] = theta.stages[i].backward(*given, on_data=True)
            else:
                dy, dthetas[i] = theta.stages[i].backward(*given)
        return dy, _as_rows(theta.stages, dthetas, dz), dys

    def forward_tangent(
        self,
        theta: Theta,
        theta_dot: Sequence[Parameters],
        caches: Sequence[Any],
        x_dot: Array,
        on_data: bool = False,
    ) -> tuple[Array, list[Any]]:
        """y_dot, and the dots of the caches.

        ``theta_dot`` is that of ``Network.dot``. ``on_data`` states that x_dot
        is zero.
        """
        caches_dot = []
        for i, stage in enumerate(theta.stages):
            given = theta.parameters[i], theta_dot[i], caches[i], x_dot
            if on_data and i == 0:
                x_dot, cache_dot = stage.forward_tangent(*given, on_data=True)
            else:
                x_dot, cache_dot = stage.forward_tangent(*given)
            caches_dot.append(cache_dot)
        return x_dot, caches_dot

    def backward_tangent(
        self,
        theta: Theta,
        theta_dot: Sequence[Parameters],
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
        dz_dot, count = dy_dot, len(theta.stages)
        dthetas_dot = [{}] * count
        for i in reversed(range(count)):
            given = theta.parameters[i], theta_dot[i], caches[i], caches_dot[i], dys[i], dy_dot
            if on_data and i == 0:
                dy_dot, dthetas_dot[i] = theta.stages[i].backward_tangent(*given, on_data=True)
            else:
                dy_dot, dthetas_dot[i] = theta.stages[i].backward_tangent(*given)
        return dy_dot, _as_rows(theta.stages, dthetas_dot, dz_dot)


# The name, slice of phi and shape of each parameter, layer by layer.
Slots = tuple[tuple[tuple[str, slice, Shape], ...], ...]


def _slots_of(layers: Sequence[Layer]) -> Slots:
    start, slots = 0, []
    for layer in layers:
        of_layer = []
        for name, shape in layer.shapes.items():
            stop = start + math.prod(shape)
            of_layer.append((name, slice(start, stop), shape))
            start = stop
        slots.append(tuple(of_layer))
    return tuple(slots)


def _views(rows: Array, slots: Slots) -> tuple[Parameters, ...]:
    """Views of ``rows: (T or 1, D)`` by name, for each layer."""
    count = rows.shape[0]
    return tuple(
        {
            name: rows[:, place] if len(shape) == 1 else rows[:, place].reshape(count, *shape)
            for name, place, shape in of_layer
        }
        for of_layer in slots
    )


def _as_rows(stages: Sequence[Layer], dthetas: Sequence[Parameters], like: Array) -> Array:
    """Arrays by name, stage by stage, as rows ``(T, D)`` in the order of
    phi."""
    tasks = like.shape[0]
    parts = [
        dtheta[name].reshape(tasks, -1)
        for stage, dtheta in zip(stages, dthetas, strict=True)
        for name in stage.shapes
    ]
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
