"""minimeta: gradient-based meta-learning with every derivative derived by hand, in NumPy and CuPy."""

from . import layers
from .algorithms import FOMAML, MAML, Reptile, mean
from .backend import array_module
from .errors import (
    CheckpointError,
    DataError,
    DeviceError,
    DivergenceError,
    MinimetaError,
    SettingsError,
    ShapeError,
)
from .inner import SGD, Adam
from .losses import MeanSquaredError, SoftmaxCrossEntropy
from .network import Network, mini_imagenet_convnet, mlp, omniglot_convnet
from .objectives import Objective, Polynomial, Quadratic
from .tasks import Episode, Minibatches, MinibatchSchedule, Sinusoid
from .trajectory import Trajectory, adapt, unroll

__version__ = "0.1.0"

__all__ = [
    "FOMAML", "MAML", "SGD", "Adam", "CheckpointError", "DataError", "DeviceError", "DivergenceError", "Episode",
    "MeanSquaredError", "MinibatchSchedule", "Minibatches", "MinimetaError", "Network", "Objective", "Polynomial",
    "Quadratic", "Reptile", "SettingsError", "ShapeError", "Sinusoid", "SoftmaxCrossEntropy", "Trajectory", "adapt",
    "array_module", "layers", "mean", "mini_imagenet_convnet", "mlp", "omniglot_convnet", "unroll",
]  # fmt: skip
