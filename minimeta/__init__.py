"""minimeta: gradient-based meta-learning with every derivative derived by hand, in NumPy and CuPy."""

from . import host, layers, taylor
from .algorithms import ADML, ANIL, CAVIA, FOMAML, IMAML, MAML, MetaSGD, Reptile, fgsm, gradient_agreement, mean
from .backend import array_module
from .errors import (
    CheckpointError,
    DataError,
    DeviceError,
    DivergenceError,
    MinimetaError,
    SettingsError,
    ShapeError,
    SweepError,
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
    load_mini_imagenet,
    load_omniglot,
    minibatches_of,
    split_omniglot,
)
from .trajectory import Trajectory, adapt, unroll

__version__ = "0.1.0"

host.keep_freed_memory()

__all__ = [
    "ADML", "ANIL", "CAVIA", "FOMAML", "IMAML", "MAML", "SGD", "Adam", "CheckpointError", "DataError", "DeviceError",
    "DivergenceError", "Episode", "FewShotImages", "MeanSquaredError", "MetaSGD", "MinibatchSchedule", "Minibatches",
    "MinimetaError", "Network", "Objective", "Polynomial", "Quadratic", "Reptile", "SettingsError", "ShapeError",
    "Sinusoid", "SoftmaxCrossEntropy", "Sphere", "SweepError", "Trajectory", "VectorsError", "adapt", "array_module",
    "fgsm", "gradient_agreement", "layers", "load_mini_imagenet", "load_omniglot", "mean", "mini_imagenet_convnet",
    "minibatches_of", "mlp", "omniglot_convnet", "split_omniglot", "taylor", "unroll",
]  # fmt: skip
