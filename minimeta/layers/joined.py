"""Layers that compute as one where they follow each other.

A network goes through its layers in stages: a layer, or several that a layer of
their own computes in fewer passes over memory. Such a layer has the parameters
of the first of them, and the others have none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .base import Layer
from .batch_norm import BatchNorm, RectifiedBatchNorm
from .relu import ReLU

_JOINED: dict[tuple[type[Layer], ...], Callable[..., Layer]] = {
    (BatchNorm, ReLU): lambda norm, _: RectifiedBatchNorm(norm.channels, norm.eps),
}


class Stage(NamedTuple):
    """``layer`` computes ``count`` layers, from number ``first`` on."""

    first: int
    count: int
    layer: Layer


def joined(layers: Sequence[Layer]) -> tuple[Stage, ...]:
    """The stages of ``layers``."""
    stages, first = [], 0
    while first < len(layers):
        stages.append(_stage(layers, first))
        first += stages[-1].count
    return tuple(stages)


def _stage(layers: Sequence[Layer], first: int) -> Stage:
    for kinds, join in _JOINED.items():
        several = layers[first : first + len(kinds)]
        if tuple(map(type, several)) == kinds:
            return Stage(first, len(kinds), join(*several))
    return Stage(first, 1, layers[first])
