"""Layers that compute as one where they follow each other.

Where arrays have twins, a network goes through its layers in stages: a layer,
or several that a layer of their own computes in fewer passes over memory. Such
a layer has the parameters of those it stands for, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .base import Layer
from .batch_norm import BatchNorm
from .dense import Dense
from .max_pool2d import MaxPool2D
from .perceptron import Perceptron
from .rectified_norm import RectifiedNorm
from .relu import ReLU


def joined(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The stages of ``layers``."""
    return tuple(_stages(list(layers)))


def _stages(rest: list[Layer]) -> Iterator[Layer]:
    while rest:
        kinds = [type(each) for each in rest]
        count = _alternating(kinds)
        if count > 1:
            dense = rest[:count:2]
            yield Perceptron((dense[0].inputs, *(each.outputs for each in dense)))
        elif kinds[:2] == [BatchNorm, ReLU]:
            count = 2
            yield RectifiedNorm(rest[0].channels, rest[0].eps)
        elif kinds[:3] == [BatchNorm, MaxPool2D, ReLU]:
            count = 3
            yield RectifiedNorm(rest[0].channels, rest[0].eps, pooled=True)
        else:
            count = 1
            yield rest[0]
        rest = rest[count:]


def _alternating(kinds: Sequence[type]) -> int:
    """How many layers at the start are Dense, ReLU, Dense, ..., Dense."""
    count = int(kinds[0] is Dense)
    while count and list(kinds[count : count + 2]) == [ReLU, Dense]:
        count += 2
    return count
