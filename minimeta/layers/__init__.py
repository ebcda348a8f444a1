"""Layers: one file each, four explicit passes each (see base.py).

A new layer is one file here, its name below, an entry of ``LAYERS`` in
testing/self_check.py, one in ``layers_with_shapes`` in testing/strategies.py,
and one in tools/mutation_targets.py. Tests miss it where one is forgotten.
"""

from .base import LAYERS, Layer, expect_shape
from .batch_norm import BatchNorm
from .context import Context
from .conv2d import Conv2D
from .dense import Dense
from .film import FiLM
from .flatten import Flatten
from .max_pool2d import MaxPool2D
from .relu import ReLU
from .smooth import Smooth
from .softplus import Softplus
from .tanh import Tanh

__all__ = [
    "LAYERS",
    "BatchNorm",
    "Context",
    "Conv2D",
    "Dense",
    "FiLM",
    "Flatten",
    "Layer",
    "MaxPool2D",
    "ReLU",
    "Smooth",
    "Softplus",
    "Tanh",
    "expect_shape",
]
