"""The algorithms, one file each.

An algorithm sees objectives, inner rules and trajectories, and never a layer.
"""

from .adml import ADML, fgsm
from .anil import ANIL
from .base import ALGORITHMS, Algorithm, InnerProblem, Outcome, Plan, mean
from .cavia import CAVIA
from .gradient_agreement import agreement_weights, gradient_agreement
from .imaml import IMAML
from .inequality import MEASURES, Atkinson, GeneralizedEntropy, Gini, Inequality, LogVariance, Theil
from .maml import FOMAML, MAML
from .meta_sgd import MetaSGD
from .reptile import Reptile
from .taml import TAML, EntropyTAML

# How the directions of a meta-batch become one, by the name in settings.
COMBINERS = {"mean": mean, "agreement": gradient_agreement}

__all__ = [
    "ADML",
    "ALGORITHMS",
    "ANIL",
    "CAVIA",
    "COMBINERS",
    "FOMAML",
    "IMAML",
    "MAML",
    "MEASURES",
    "TAML",
    "Algorithm",
    "Atkinson",
    "EntropyTAML",
    "GeneralizedEntropy",
    "Gini",
    "Inequality",
    "InnerProblem",
    "LogVariance",
    "MetaSGD",
    "Outcome",
    "Plan",
    "Reptile",
    "Theil",
    "agreement_weights",
    "fgsm",
    "gradient_agreement",
    "mean",
]
