"""Floor 5: one file an algorithm. None of them sees a layer: only objectives, rules and trajectories."""

from .base import Algorithm, Outcome, mean
from .imaml import IMAML
from .maml import FOMAML, MAML
from .reptile import Reptile

__all__ = ["FOMAML", "IMAML", "MAML", "Algorithm", "Outcome", "Reptile", "mean"]
