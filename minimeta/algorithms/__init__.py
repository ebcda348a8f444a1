"""Floor 5: one file an algorithm. None of them sees a layer: only objectives, rules and trajectories."""

from .adml import ADML, fgsm
from .anil import ANIL
from .base import Algorithm, Outcome, mean
from .cavia import CAVIA
from .gradient_agreement import agreement_weights, gradient_agreement
from .imaml import IMAML
from .inequality import MEASURES, Atkinson, GeneralizedEntropy, Gini, Inequality, LogVariance, Theil
from .maml import FOMAML, MAML
from .meta_sgd import MetaSGD
from .reptile import Reptile
from .taml import TAML, EntropyTAML

__all__ = [
    "ADML", "ANIL", "CAVIA", "FOMAML", "IMAML", "MAML", "MEASURES", "TAML", "Algorithm", "Atkinson", "EntropyTAML",
    "GeneralizedEntropy", "Gini", "Inequality", "LogVariance", "MetaSGD", "Outcome", "Reptile", "Theil",
    "agreement_weights", "fgsm", "gradient_agreement", "mean",
]  # fmt: skip
