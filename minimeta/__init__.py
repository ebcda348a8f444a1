"""minimeta: gradient-based meta-learning in NumPy and CuPy.

Every derivative is derived by hand.

To use it: ``train(preset, folder)`` trains and returns a learner.
``load(folder)`` gives the learner again. ``learner.fit(x, y)`` adapts the
learner to a task of your own, and ``learner.predict(x)`` predicts.
``evaluate(learner, tasks)`` scores it, and ``presets()`` lists the papers'
settings.

To study it: an ``Objective(network, loss)`` gives the loss, the gradient and
Hessian-vector products at one vector of parameters. An algorithm, such as
``MAML(SGD(0.01))``, turns them into a direction of meta-learning.

Letters in shapes and formulas:

phi       the parameters of a network, one vector ``(D,)``; the initialization
          that is learned
meta      the meta-parameters ``(M,)``: phi, or phi and further learned numbers
D, M      the number of parameters, and of meta-parameters
T         the tasks of a meta-batch, an axis of every array
k         the mini-batches of a task, in order
N         the examples of a mini-batch
alpha     the step size of the inner loop, which adapts to a task
epsilon   the step size of the outer loop, which learns meta
x, y      the data of a meta-batch, ``(k, T, N, *input)`` and ``(k, T, N,
          *target)``
support   the examples that a learner adapts to
query     the examples that it is scored on
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
    convnet,
    mini_imagenet_convnet,
    mlp,
    omniglot_convnet,
)
from .runs.api import evaluate, experiment, load, presets, train
from .runs.experiment import Experiment
from .runs.metrics import metrics_arrays as metrics
from .runs.settings import Settings
from .tasks import (
    Episode,
    ExampleTasks,
    FewShotImages,
    ImageClasses,
    Minibatches,
    MinibatchSchedule,
    Sinusoid,
    load_image_folder,
    load_mini_imagenet,
    load_omniglot,
    minibatches_of,
    split_omniglot,
)
from .theory import taylor
from .theory.directions import compare_directions
from .training.evaluation import Accuracy, Evaluation
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
    "Accuracy",
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
    "ImageClasses",
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
    "convnet",
    "evaluate",
    "experiment",
    "fgsm",
    "gradient_agreement",
    "keep_freed_memory",
    "layers",
    "load",
    "load_image_folder",
    "load_mini_imagenet",
    "load_omniglot",
    "mean",
    "metrics",
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
