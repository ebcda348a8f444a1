"""Losses: one file each, three explicit passes (see base.py)."""

from .base import LOSSES, Loss
from .entropy import Entropy
from .mean_squared_error import MeanSquaredError
from .softmax_cross_entropy import SoftmaxCrossEntropy
from .summed import Summed

__all__ = ["LOSSES", "Entropy", "Loss", "MeanSquaredError", "SoftmaxCrossEntropy", "Summed"]
