"""minimeta: gradient-based meta-learning in NumPy and CuPy.

Every derivative is derived by hand.
"""

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
from .inner import SGD, Adam, Trajectory, unroll
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
from .runs.api import evaluate, experiment, load, presets, train
from .runs.experiment import Experiment
from .runs.settings import Settings
from .tasks import (
    Episode,
    ExampleTasks,
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
from .training.evaluation import Evaluation
from .training.learner import Learner, adapt
from .training.meta_training import MetaTraining
from .training.scoring import Scoring
from .version import __version__

__all__ = [
    "ADML",
    "ANIL",
    "CAVIA",
    "FOMAML",
    "IMAML",
    "MAML",
    "SGD",
    "TAML",
    "Adam",
    "Atkinson",
    "CheckpointError",
    "DataError",
    "DeviceError",
    "DivergenceError",
    "Entropy",
    "EntropyTAML",
    "Episode",
    "Evaluation",
    "ExampleTasks",
    "Experiment",
    "FewShotImages",
    "GeneralizedEntropy",
    "Gini",
    "Learner",
    "LogVariance",
    "MeanSquaredError",
    "MetaSGD",
    "MetaTraining",
    "MinibatchSchedule",
    "Minibatches",
    "MinimetaError",
    "Network",
    "Objective",
    "Polynomial",
    "Quadratic",
    "Reptile",
    "Scoring",
    "Settings",
    "SettingsError",
    "ShapeError",
    "Sinusoid",
    "SoftmaxCrossEntropy",
    "Sphere",
    "Summed",
    "SweepError",
    "Theil",
    "Trajectory",
    "VectorsError",
    "__version__",
    "adapt",
    "array_module",
    "compare_directions",
    "evaluate",
    "experiment",
    "fgsm",
    "gradient_agreement",
    "keep_freed_memory",
    "layers",
    "load",
    "load_mini_imagenet",
    "load_omniglot",
    "mean",
    "mini_imagenet_convnet",
    "minibatches_of",
    "mlp",
    "omniglot_convnet",
    "presets",
    "split_omniglot",
    "taylor",
    "train",
    "unroll",
]
