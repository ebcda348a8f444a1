"""minimeta: gradient-based meta-learning with every derivative derived by hand, in NumPy and CuPy."""

from . import host, layers, taylor
from .algorithms import FOMAML, IMAML, MAML, Reptile, mean
from .backend import array_module
from .errors import (
    CheckpointError,
    DataError,
    DeviceError,
    DivergenceError,
    MinimetaError,
    SettingsError,
    ShapeError,
    VectorsError,
)
from .inner import SGD, Adam
from .losses import MeanSquaredError, SoftmaxCrossEntropy
from .network import Network, mini_imagenet_convnet, mlp, omniglot_convnet
from .objectives import Objective, Polynomial, Quadratic, Sphere
from .tasks import (
    Episode,
    FewShotImages,
    Minibatches,
    MinibatchSchedule,
    Sinusoid,
    load_omniglot,
    minibatches_of,
    split_omniglot,
)
from .trajectory import Trajectory, adapt, unroll

__version__ = "0.1.0"

host.keep_freed_memory()

__all__ = [
    "FOMAML", "IMAML", "MAML", "SGD", "Adam", "CheckpointError", "DataError", "DeviceError", "DivergenceError", "Episode",
    "FewShotImages", "MeanSquaredError", "MinibatchSchedule", "Minibatches", "MinimetaError", "Network", "Objective",
    "Polynomial", "Quadratic", "Reptile", "SettingsError", "ShapeError", "Sinusoid", "SoftmaxCrossEntropy", "Sphere",
    "Trajectory", "VectorsError", "adapt", "array_module", "layers", "load_omniglot", "mean", "mini_imagenet_convnet",
    "minibatches_of", "mlp", "omniglot_convnet", "split_omniglot", "taylor", "unroll",
]  # fmt: skip
