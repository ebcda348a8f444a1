"""Floor 5: one file an algorithm. None of them sees a layer: only objectives, rules and trajectories."""

from .base import Algorithm, Outcome, mean
from .inequality import MEASURES, Atkinson, GeneralizedEntropy, Gini, Inequality, LogVariance, Theil
from .maml import FOMAML, MAML
from .reptile import Reptile

__all__ = [
    "FOMAML", "MAML", "MEASURES", "Algorithm", "Atkinson", "GeneralizedEntropy", "Gini", "Inequality", "LogVariance",
    "Outcome", "Reptile", "Theil", "mean",
]  # fmt: skip
