"""The networks of the papers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .. import layers
from ..errors import SettingsError
from ..layers import Layer
from .network import Network

_ACTIVATIONS = {"relu": layers.ReLU, "tanh": layers.Tanh, "softplus": layers.Softplus}


def mlp(sizes: Sequence[int], activation: str = "relu", context: int = 0) -> Network:
    """Dense layers with ``activation`` between them.

    ``sizes`` lists the widths, inputs and outputs included. ``activation`` is
    ``"relu"``, ``"tanh"`` or ``"softplus"``. ``context`` parameters are
    appended to the inputs (CAVIA).

    Raises
    ------
    SettingsError
        if there are fewer than two sizes, if a size is below 1 or not a whole
        number, or if the activation is unknown.
    """
    if not isinstance(sizes, (Sequence, np.ndarray)) or not all(map(_is_whole, [*sizes, context])):
        raise SettingsError(
            "mlp needs a list of sizes, which are whole numbers such as [1, 40, 40, 1], and a "
            f"whole number as context, got {sizes!r} and {context!r}"
        )
    if len(sizes) < 2 or min(sizes) < 1:
        raise SettingsError(
            f"mlp needs at least two sizes, each 1 or more, got {list(sizes)}: "
            "give the number of inputs first and of outputs last"
        )
    if activation not in _ACTIVATIONS:
        raise SettingsError(
            f"unknown activation {activation!r}: choose one of {', '.join(_ACTIVATIONS)}"
        )
    stack: list[Layer] = [layers.Context(context)] if context else []
    for inputs, outputs in pairwise([sizes[0] + context, *sizes[1:]]):
        stack += [layers.Dense(inputs, outputs), _ACTIVATIONS[activation]()]
    return Network((sizes[0],), tuple(stack[:-1]))


def _is_whole(size: Any) -> bool:
    return isinstance(size, (int, np.integer)) and not isinstance(size, bool)


def convnet(
    input_shape: Sequence[int], ways: int = 5, filters: int = 64, context: int = 0
) -> Network:
    """The Omniglot network for images of any size, to ``ways`` logits.

    It has four blocks of convolution with stride 2, batch norm and ReLU, then a
    dense layer. ``input_shape`` is (height, width, channels). ``context``
    parameters scale and shift the third block's channels (CAVIA), by a FiLM
    layer between batch norm and ReLU.

    Raises
    ------
    SettingsError
        if ``input_shape`` is not three whole numbers above 0.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise SettingsError(f"convnet needs (height, width, channels), got {input_shape!r}")
    stack: list[Layer] = []
    for block, inputs in enumerate((shape[2], filters, filters, filters)):
        stack += [layers.Conv2D(inputs, filters, stride=2), layers.BatchNorm(filters)]
        stack += [*_film(block, filters, context), layers.ReLU()]
    pixels = math.prod(-(-side // 2**4) for side in shape[:2])
    return Network(shape, (*stack, layers.Flatten(), layers.Dense(pixels * filters, ways)))


def omniglot_convnet(ways: int = 5, filters: int = 64, context: int = 0) -> Network:
    """The Omniglot network: ``convnet`` for 28 x 28 x 1."""
    return convnet((28, 28, 1), ways, filters, context)


def mini_imagenet_convnet(ways: int = 5, filters: int = 32, context: int = 0) -> Network:
    """The mini-ImageNet network, from 84 x 84 x 3 to ``ways`` logits.

    It has four blocks of convolution, batch norm, max pool and ReLU, then a
    dense layer. ``context`` parameters scale and shift the third block's
    channels (CAVIA), by a FiLM layer between max pool and ReLU.
    """
    stack: list[Layer] = []
    for block, inputs in enumerate((3, filters, filters, filters)):
        stack += [layers.Conv2D(inputs, filters), layers.BatchNorm(filters), layers.MaxPool2D()]
        stack += [*_film(block, filters, context), layers.ReLU()]
    return Network((84, 84, 3), (*stack, layers.Flatten(), layers.Dense(6 * 6 * filters, ways)))


def _film(block: int, filters: int, context: int) -> list[Layer]:
    """The FiLM layer of the third block, if there is a context.

    The CAVIA paper's networks have a FiLM layer in the third block only.
    """
    return [layers.FiLM(filters, context)] if context and block == 2 else []
