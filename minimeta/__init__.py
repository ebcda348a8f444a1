"""minimeta: gradient-based meta-learning with every derivative derived by hand, in NumPy and CuPy."""

from . import layers
from .algorithms import (
    ADML,
    ANIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    TAML,
    Atkinson,
    EntropyTAML,
    GeneralizedEntropy,
    Gini,
    LogVariance,
    MetaSGD,
    Reptile,
    Theil,
    fgsm,
    gradient_agreement,
    mean,
)
from .arrays.backend import array_module
from .arrays.memory import keep_freed_memory
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
from .inner import SGD, Adam, Trajectory, adapt, unroll
from .losses import Entropy, MeanSquaredError, SoftmaxCrossEntropy, Summed
from .objectives import (
    Network,
    Objective,
    Polynomial,
    Quadratic,
    Sphere,
    mini_imagenet_convnet,
    mlp,
    omniglot_convnet,
)
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
from .theory import taylor
from .theory.directions import compare_directions
from .version import __version__

__all__ = [
    "ADML", "ANIL", "CAVIA", "FOMAML", "IMAML", "MAML", "SGD", "TAML", "Adam", "Atkinson", "CheckpointError",
    "DataError", "DeviceError", "DivergenceError", "Entropy", "EntropyTAML", "Episode", "FewShotImages",
    "GeneralizedEntropy", "Gini", "LogVariance", "MeanSquaredError", "MetaSGD", "MinibatchSchedule", "Minibatches",
    "MinimetaError", "Network", "Objective", "Polynomial", "Quadratic", "Reptile", "SettingsError", "ShapeError",
    "Sinusoid", "SoftmaxCrossEntropy", "Sphere", "Summed", "SweepError", "Theil", "Trajectory", "VectorsError",
    "adapt", "array_module", "compare_directions", "fgsm", "gradient_agreement", "keep_freed_memory", "layers", "load_mini_imagenet",
    "load_omniglot", "mean", "mini_imagenet_convnet", "minibatches_of", "mlp", "omniglot_convnet", "split_omniglot",
    "taylor", "unroll",
]  # fmt: skip
