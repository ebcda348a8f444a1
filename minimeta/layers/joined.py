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
from .convnet import ConvNet
from .dense import Dense
from .flatten import Flatten
from .max_pool2d import MaxPool2D
from .perceptron import Perceptron
from .rectified_norm import RectifiedNorm
from .relu import ReLU


def joined(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The stages of ``layers``."""
    return tuple(_stages(list(layers)))


def _stages(rest: list[Layer]) -> Iterator[Layer]:
    while rest:
        if count := _dense(rest):
            dense = rest[:count:2]
            yield Perceptron((dense[0].inputs, *(each.outputs for each in dense)))
        elif blocks := _blocks(rest):
            count = sum(2 + norm.pooled + 1 for _, norm in blocks)
            head = _head(rest[count:])
            count += 0 if head is None else 2
            yield ConvNet(tuple(blocks), head)
        elif count := _rectified(rest):
            yield _norm(rest[0], count)
        else:
            count = 1
            yield rest[0]
        rest = rest[count:]


def _dense(layers: Sequence[Layer]) -> int:
    """How many layers at the start are Dense, ReLU, Dense, ..., Dense; 0 where
    it is one."""
    kinds, count = _kinds(layers), 1
    if kinds[:1] != [Dense]:
        return 0
    while kinds[count : count + 2] == [ReLU, Dense]:
        count += 2
    return count if count > 1 else 0


def _blocks(layers: Sequence[Layer]) -> list[tuple[Conv2D, RectifiedNorm]]:
    """The blocks at the start: Conv2D and the layers of a ``RectifiedNorm``."""
    found, rest = [], layers
    while _kinds(rest[:1]) == [Conv2D] and (count := _rectified(rest[1:])):
        found.append((rest[0], _norm(rest[1], count)))
        rest = rest[1 + count :]
    return found


def _head(layers: Sequence[Layer]) -> Dense | None:
    """The Dense layer at the start, after Flatten, if it is no Perceptron's."""
    if _kinds(layers[:2]) != [Flatten, Dense] or _dense(layers[1:]):
        return None
    return layers[1]


def _rectified(layers: Sequence[Layer]) -> int:
    """How many layers at the start are BatchNorm, MaxPool2D or not, ReLU."""
    kinds = _kinds(layers[:3])
    if kinds[:2] == [BatchNorm, ReLU]:
        return 2
    return 3 if kinds == [BatchNorm, MaxPool2D, ReLU] else 0


def _kinds(layers: Sequence[Layer]) -> list[type]:
    return [type(each) for each in layers]


def _norm(norm: BatchNorm, count: int) -> RectifiedNorm:
    return RectifiedNorm(norm.channels, norm.eps, pooled=count == 3)
