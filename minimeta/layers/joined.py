"""Layers that compute as one where they follow each other.

Where arrays have twins, a network goes through its layers in stages: a layer,
or several that a layer of their own computes in fewer passes over memory. Such
a layer has the parameters of those it stands for, in their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .base import Layer
from .batch_norm import BatchNorm
from .conv2d import Conv2D
from .conv_block import ConvBlock
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
        elif kinds[0] is Conv2D and (above := _rectified(rest[1:])):
            count = 1 + above
            yield ConvBlock(rest[0], _norm(rest[1], above))
        elif count := _rectified(rest):
            yield _norm(rest[0], count)
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


def _rectified(layers: Sequence[Layer]) -> int:
    """How many layers at the start are BatchNorm, MaxPool2D or not, ReLU."""
    kinds = [type(each) for each in layers[:3]]
    if kinds[:2] == [BatchNorm, ReLU]:
        return 2
    return 3 if kinds == [BatchNorm, MaxPool2D, ReLU] else 0


def _norm(norm: BatchNorm, count: int) -> RectifiedNorm:
    return RectifiedNorm(norm.channels, norm.eps, pooled=count == 3)
