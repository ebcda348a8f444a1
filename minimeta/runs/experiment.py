"""Floor 6: settings by name, the papers' presets, and how settings become objects.

``Settings`` is flat and plain (numbers, words), so that it is at once a JSON file, a set of command-line flags and the
key by which a checkpoint knows its run. What does not change a run's numbers (device, threads, folders) is not in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from ..algorithms import (
    ADML,
    ANIL,
    CAVIA,
    FOMAML,
    IMAML,
    MAML,
    MEASURES,
    TAML,
    Algorithm,
    EntropyTAML,
    MetaSGD,
    Reptile,
    gradient_agreement,
    mean,
)
from ..errors import SettingsError
from ..inner import SGD, Adam, InnerRule
from ..losses import MeanSquaredError, SoftmaxCrossEntropy, Summed
from ..objectives import Objective, mini_imagenet_convnet, mlp, omniglot_convnet
from ..tasks import (
    FewShotImages,
    MinibatchSchedule,
    Sinusoid,
    load_mini_imagenet,
    load_omniglot,
    split_omniglot,
)
from ..training.evaluation import Adaptation
from ..training.meta_training import MetaTraining


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """One meta-training run. Every field is a flag of ``minimeta train``; see ``minimeta train --help``.

    Raises
    ------
    SettingsError
        for a value that is not one of a field's choices, or makes no sense beside another.
    """

    task: Literal["sine", "omniglot", "mini-imagenet"] = _setting("sine", "what is learned")
    algorithm: Literal[
        "reptile", "fomaml", "maml", "meta-sgd", "anil", "cavia", "imaml", "adml", "taml"
    ] = _setting("reptile", "how")
    combine: Literal["mean", "agreement"] = _setting(
        "mean", "weights of a meta-batch's tasks: equal, or gradient agreement"
    )
    iterations: int = _setting(30_000, "meta-steps")
    meta_batch: int = _setting(1, "tasks in a meta-step")
    k: int = _setting(
        5,
        "mini-batches a task: Reptile's inner steps; MAML and FOMAML adapt on k-1 and score on the last",
    )
    size: int = _setting(10, "examples in a mini-batch")
    tail: Literal["shared", "separate"] = _setting(
        "shared", "last mini-batch: from the same examples, or held-out ones"
    )
    order: Literal["cycle", "replacement"] = _setting(
        "cycle", "cut mini-batches from shuffled passes, or draw each anew"
    )
    shots: int | None = _setting(
        None, "examples of each class (points, in regression) to cut mini-batches from"
    )
    tail_shots: int | None = _setting(None, "examples of each class in a separate tail")
    inner: Literal["sgd", "adam"] = _setting("sgd", "inner rule")
    inner_lr: float = _setting(0.02, "inner step size alpha")
    reduction: Literal["mean", "sum"] = _setting(
        "mean", "of a mini-batch's losses (images); the Reptile authors' is the sum"
    )
    rate_low: float = _setting(0.005, "Meta-SGD: step sizes start uniform in [RATE_LOW, RATE_HIGH]")
    rate_high: float = _setting(0.1, "see rate_low")
    regularization: float = _setting(1.0, "iMAML: lambda, the pull towards phi in the inner loop")
    cg_steps: int = _setting(5, "iMAML: steps of conjugate gradients")
    attack: float = _setting(
        0.1, "ADML: how far adversarial inputs move, pixels in [0, 1] or x in [-5, 5]"
    )
    bias: Literal["theil", "generalized-entropy", "atkinson", "gini", "log-variance", "entropy"] = (
        _setting(
            "theil",
            "TAML: phi is kept from unequal losses of tasks, by this measure; entropy: from certainty before adaptation",
        )
    )
    bias_weight: float = _setting(0.1, "TAML: how much that counts beside the loss")
    inner_beta1: float = _setting(0.0, "inner Adam's decay of the first moment")
    inner_beta2: float = _setting(0.999, "inner Adam's decay of the second moment")
    carry_inner_state: bool = _setting(True, "pass inner Adam's moments from task to task")
    fomaml_update: Literal["gradient", "step"] = _setting(
        "step", "FOMAML's direction: the last gradient, or the last step"
    )
    store: Literal["points", "iterates", "checkpoints"] = _setting(
        "points",
        "MAML and its kin: keep activations (fast), iterates alone, or about 2 sqrt(k) iterates (small); recompute the rest",
    )
    outer: Literal["sgd", "adam"] = _setting("sgd", "outer rule")
    epsilon: float = _setting(0.1, "outer step size at the start")
    epsilon_final: float = _setting(0.0, "outer step size at the end; it changes linearly")
    ways: int = _setting(5, "classes in a task (images)")
    filters: int = _setting(64, "filters of each convolution (images)")
    part: bool = _setting(False, "use what there is of a part of the data (mini-imagenet)")
    hidden: str = _setting("64,64", "hidden layer sizes (sine)")
    activation: Literal["relu", "tanh", "softplus"] = _setting("tanh", "hidden units (sine)")
    context: int | None = _setting(
        None, "CAVIA: parameters that the inner loop adapts, beside the inputs (sine) or by FiLM"
    )
    phase: float = _setting(2 * math.pi, "phases are uniform in [0, PHASE] (sine)")
    grid: int | None = _setting(
        50, "a task's x are this many evenly spaced points; 0: uniform x (sine)"
    )
    eval_shots: int = _setting(10, "examples of each class to adapt on in evaluation")
    eval_steps: int = _setting(32, "inner steps in evaluation")
    eval_size: int = _setting(10, "examples in a mini-batch in evaluation")
    seed: int = _setting(0, "of everything random")
    dtype: Literal["float32", "float64"] = _setting("float32", "precision")

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(Settings).items():
            _check_value(name, hint, getattr(self, name))
        for makes_no_sense, told in _REFUSED:
            if makes_no_sense(self):
                raise SettingsError(told.format(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Settings from a JSON object; refuses names it does not know."""
        unknown = sorted(set(values) - {each.name for each in fields(cls)})
        if unknown:
            raise SettingsError(f"unknown settings: {', '.join(unknown)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


_ADAPTS = (
    "meta-sgd",
    "anil",
    "cavia",
    "imaml",
    "adml",
    "taml",
)  # without a step these are nothing but joint training
# What makes no sense, and what to use instead, the most basic first; {0} is the settings.
_REFUSED: tuple[tuple[Callable[[Settings], bool], str], ...] = (
    (
        lambda s: s.tail == "separate" and s.k < 2,
        "a separate tail leaves nothing to adapt on where k is 1: set k to 2 or more",
    ),
    (
        lambda s: s.algorithm in _ADAPTS and s.k < 2,
        "{0.algorithm} adapts on k-1 mini-batches and scores on the last: set k to 2 or more",
    ),
    (
        lambda s: s.algorithm == "taml" and s.bias != "entropy" and s.meta_batch < 2,
        "an inequality is one of several tasks: set meta_batch to 2 or more",
    ),
    (
        lambda s: s.combine == "agreement" and s.meta_batch < 2,
        "gradient agreement weighs tasks against each other: set meta_batch to 2 or more",
    ),
    (
        lambda s: s.tail == "separate" and s.algorithm == "reptile",
        "reptile steps through all its mini-batches: a separate tail is for the other algorithms; set tail to shared",
    ),
    (
        lambda s: s.algorithm == "taml" and s.bias != "entropy" and s.combine == "agreement",
        "an inequality weighs the tasks of a meta-batch itself, and its gradient is their mean: set combine to mean",
    ),
    (
        lambda s: s.algorithm == "meta-sgd" and s.inner != "sgd",
        "meta-sgd learns the step sizes of an inner SGD: set inner to sgd",
    ),
    (
        lambda s: s.rate_low > s.rate_high,
        "rate_low must be at most rate_high, got {0.rate_low} and {0.rate_high}",
    ),
    (
        lambda s: s.algorithm == "imaml" and not s.regularization > 0,
        "imaml solves an inner problem with a pull towards phi: set regularization above 0",
    ),
    (
        lambda s: s.algorithm == "adml" and not 0 < s.attack < _box(s)[1] - _box(s)[0],
        "adml moves inputs by more than 0 and less than their range is wide, 1 on images and 10 on sine waves: "
        "set attack to about 0.1, got {0.attack}",
    ),
    (
        lambda s: s.algorithm == "cavia" and s.context is None,
        "cavia adapts context parameters: set context to their number, such as 5 on sine waves, 100 on images",
    ),
    (
        lambda s: s.algorithm != "cavia" and s.context is not None,
        "context parameters are for cavia; {0.algorithm} adapts what all networks have",
    ),
    (
        lambda s: s.algorithm == "taml" and s.bias == "entropy" and s.task == "sine",
        f"entropy is of class probabilities; on regression: set bias to {', '.join(MEASURES)}",
    ),
    (
        lambda s: s.part and s.task != "mini-imagenet",
        "a part of the data is taken of mini-imagenet only: leave part out",
    ),
)


def _check_value(name: str, hint: Any, value: Any) -> None:
    """Raise the SettingsError of a value that does not fit its field's type, or of a count below its least."""
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise SettingsError(f"{name} must be one of {', '.join(get_args(hint))}, got {value!r}")
        return
    kinds = get_args(hint) or (hint,)
    fits = any(type(value) is kind or (kind is float and type(value) is int) for kind in kinds)
    if not fits:
        wanted = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
        raise SettingsError(f"{name} must be {wanted}, got {value!r}")
    if float in kinds:
        _check_number(name, value)
    least = 0 if name in ("seed", "grid") else 1
    if int in kinds and value is not None and value < least:
        raise SettingsError(f"{name} must be {least} or more, got {value}")


def _check_number(name: str, value: float) -> None:
    """Step sizes and phases are finite and not negative; decays are below 1 as well."""
    most = 1.0 if "beta" in name else math.inf
    if not 0 <= value < most:
        raise SettingsError(
            f"{name} must be 0 or more" + (" and below 1" if most == 1 else "") + f", got {value}"
        )


_SINE_MAML = Settings(
    algorithm="maml",
    iterations=70_000,
    meta_batch=25,
    k=2,
    size=10,
    tail="separate",
    inner_lr=0.01,
    outer="adam",
    epsilon=0.001,
    epsilon_final=0.001,
    hidden="40,40",
    activation="relu",
    phase=math.pi,
    grid=None,
    eval_steps=10,
)
# The Reptile authors' program differentiates the sum of the cross-entropy over a mini-batch, for which inner SGD takes so
# many times longer steps. Adam does not, but its moments go from training's mini-batches to evaluation's, whose sums are
# smaller or larger. MAML's program takes a sum too (over the shots), but on Omniglot averages the last features over their
# 2 x 2 pixels: on the flattened features here, its steps are taken on the mean.
_OMNIGLOT = Settings(
    task="omniglot",
    iterations=100_000,
    meta_batch=5,
    k=5,
    size=10,
    shots=10,
    inner="adam",
    inner_lr=0.001,
    reduction="sum",
    epsilon=1.0,
    eval_shots=1,
    eval_steps=50,
    eval_size=5,
)
_OMNIGLOT_MAML = replace(
    _OMNIGLOT,
    algorithm="maml",
    iterations=60_000,
    meta_batch=32,
    k=2,
    size=5,
    tail="separate",
    shots=1,
    tail_shots=1,
    inner="sgd",
    inner_lr=0.4,
    reduction="mean",
    outer="adam",
    epsilon=0.001,
    epsilon_final=0.001,
    eval_steps=3,
)
_MINI_IMAGENET = Settings(
    task="mini-imagenet",
    iterations=100_000,
    meta_batch=5,
    k=8,
    size=10,
    shots=15,
    inner="adam",
    inner_lr=0.001,
    reduction="sum",
    epsilon=1.0,
    filters=32,
    eval_shots=1,
    eval_steps=50,
    eval_size=5,
)

PRESETS: dict[str, tuple[str, Settings]] = {
    "sine": ("Reptile on sine waves: the Reptile authors' demo", Settings()),
    "sine-maml": ("MAML on sine waves: the MAML paper's settings", _SINE_MAML),
    "sine-meta-sgd": (
        "Meta-SGD on sine waves: the Meta-SGD paper's settings",
        replace(_SINE_MAML, algorithm="meta-sgd", iterations=60_000, meta_batch=4),
    ),
    "omniglot-5way": ("Reptile on Omniglot, 5-way: the Reptile paper's settings", _OMNIGLOT),
    "omniglot-20way": (
        "Reptile on Omniglot, 20-way: the Reptile paper's settings",
        replace(
            _OMNIGLOT, ways=20, iterations=200_000, k=10, size=20, inner_lr=0.0005, eval_size=10
        ),
    ),
    "omniglot-5way-fomaml": (
        "FOMAML on Omniglot, 5-way, beside Reptile's settings: the last of 5 steps, on held-out images",
        replace(_OMNIGLOT, algorithm="fomaml", tail="separate", tail_shots=2),
    ),
    "omniglot-5way-maml": (
        "MAML on Omniglot, 5-way 1-shot: the MAML paper's settings",
        _OMNIGLOT_MAML,
    ),
    "omniglot-20way-maml": (
        "MAML on Omniglot, 20-way 1-shot: the MAML paper's settings",
        replace(
            _OMNIGLOT_MAML,
            ways=20,
            meta_batch=16,
            k=6,
            size=20,
            inner_lr=0.1,
            eval_steps=5,
            eval_size=20,
        ),
    ),
    "mini-imagenet-1shot": (
        "Reptile on mini-ImageNet, 5-way 1-shot: the Reptile paper's settings",
        _MINI_IMAGENET,
    ),
    "mini-imagenet-5shot": (
        "Reptile on mini-ImageNet, 5-way 5-shot: the same training, evaluated on 5 shots",
        replace(_MINI_IMAGENET, eval_shots=5, eval_size=15),
    ),
    "mini-imagenet-fomaml": (
        "FOMAML on mini-ImageNet, 5-way 1-shot, beside Reptile's settings: the last of 8 steps, on held-out images",
        replace(_MINI_IMAGENET, algorithm="fomaml", tail="separate", tail_shots=2),
    ),
}


@dataclass(frozen=True)
class Experiment:
    """Settings made into objects."""

    settings: Settings
    training: MetaTraining
    test_tasks: Sinusoid | FewShotImages
    images: dict[str, Any] | None = None  # how many of a class there are, and their digest

    @property
    def adaptation(self) -> Adaptation:
        """How evaluation adapts."""
        return Adaptation(self.settings.eval_steps, self.settings.eval_size)


def build(
    settings: Settings, data: str | None = None, xp: ModuleType = np, workers: int | None = None
) -> Experiment:
    """The objects that ``settings`` describe, on the device of ``xp``; ``data`` is where the images are.

    Raises
    ------
    SettingsError, DataError
    """
    if settings.task == "sine":
        sizes = [1, *_sizes(settings.hidden), 1]
        objective = Objective(
            mlp(sizes, settings.activation, settings.context or 0), MeanSquaredError()
        )
        train_tasks = Sinusoid(phases=(0.0, settings.phase), grid=settings.grid or None)
        test_tasks, images = train_tasks, None
    else:
        convnet = omniglot_convnet if settings.task == "omniglot" else mini_imagenet_convnet
        loss = (
            Summed(SoftmaxCrossEntropy()) if settings.reduction == "sum" else SoftmaxCrossEntropy()
        )
        objective = Objective(convnet(settings.ways, settings.filters, settings.context or 0), loss)
        halves, white, images = _images(settings, data)
        train_tasks, test_tasks = (
            FewShotImages(xp.asarray(half), settings.ways, white) for half in halves
        )
    training = MetaTraining(
        objective=objective,
        algorithm=algorithm_of(settings),
        tasks=train_tasks,
        schedule=schedule_of(settings),
        outer=Adam(settings.epsilon, beta1=0.9)
        if settings.outer == "adam"
        else SGD(settings.epsilon),
        iterations=settings.iterations,
        epsilon_final=settings.epsilon_final,
        meta_batch=settings.meta_batch,
        combine=gradient_agreement if settings.combine == "agreement" else mean,
        carry_inner_state=settings.carry_inner_state,
        seed=settings.seed,
        dtype=np.dtype(settings.dtype),
        xp=xp,
        workers=workers,
    )
    return Experiment(settings, training, test_tasks, images)


def _images(
    settings: Settings, data: str | None
) -> tuple[Sequence[np.ndarray], int, dict[str, Any]]:
    """Images to train and to test on, what is white in them, and what tells them from others."""
    if settings.task == "omniglot":
        images = load_omniglot(data).images
        return split_omniglot(images, settings.seed), 1, _told_apart(images)
    halves = [load_mini_imagenet(data, split, settings.part).images for split in ("train", "test")]
    return halves, 255, _told_apart(*halves)


def _told_apart(*images: np.ndarray) -> dict[str, Any]:
    """How many there are of a class, and the first digits of the SHA-256 of all: no other images have both."""
    digest = hashlib.sha256()
    for each in images:
        digest.update(np.ascontiguousarray(each))
    return {"a_class": images[0].shape[1], "sha256": digest.hexdigest()[:12]}


def schedule_of(settings: Settings) -> MinibatchSchedule:
    """How training cuts mini-batches."""
    return MinibatchSchedule(
        settings.k,
        settings.size,
        settings.tail,
        settings.order,
        settings.shots,
        settings.tail_shots,
    )


def algorithm_of(settings: Settings) -> Algorithm:
    """The algorithm with its inner rule."""
    if settings.inner == "sgd":
        rule = SGD(settings.inner_lr)
    else:
        rule = Adam(settings.inner_lr, settings.inner_beta1, settings.inner_beta2)
    make, _ = _ALGORITHMS[settings.algorithm]
    return make(settings, rule)


def _adml(settings: Settings, rule: InnerRule) -> ADML:
    return ADML(rule, settings.store, settings.attack, *_box(settings))


def _box(settings: Settings) -> tuple[float, float]:
    """The range of a task's inputs."""
    return Sinusoid.domain if settings.task == "sine" else (0.0, 1.0)  # black and white


def _taml(settings: Settings, rule: InnerRule) -> TAML | EntropyTAML:
    if settings.bias == "entropy":
        return EntropyTAML(rule, settings.store, settings.bias_weight)
    return TAML(rule, settings.store, MEASURES[settings.bias](), settings.bias_weight)


# How each is built, and the settings that it reads and not all do.
_ALGORITHMS: dict[str, tuple[Callable[[Settings, InnerRule], Algorithm], tuple[str, ...]]] = {
    "reptile": (lambda s, rule: Reptile(rule), ()),
    "fomaml": (lambda s, rule: FOMAML(rule, s.fomaml_update), ("fomaml_update",)),
    "maml": (lambda s, rule: MAML(rule, s.store), ("store",)),
    "meta-sgd": (
        lambda s, rule: MetaSGD(s.rate_low, s.rate_high, s.store),
        ("rate_low", "rate_high", "store"),
    ),
    "anil": (lambda s, rule: ANIL(rule, s.store), ("store",)),
    "cavia": (lambda s, rule: CAVIA(rule, s.store), ("context", "store")),
    "imaml": (
        lambda s, rule: IMAML(rule, s.regularization, s.cg_steps),
        ("regularization", "cg_steps"),
    ),
    "adml": (_adml, ("attack", "store")),
    "taml": (_taml, ("bias", "bias_weight", "store")),
}
# The same by what else decides: a setting's value, and what is read with it alone.
_ONLY_WITH: dict[tuple[str, str], tuple[str, ...]] = {
    **{("algorithm", name): own for name, (_, own) in _ALGORITHMS.items()},
    ("task", "sine"): ("hidden", "activation", "phase", "grid"),
    ("task", "omniglot"): ("ways", "filters", "reduction"),
    ("task", "mini-imagenet"): ("ways", "filters", "reduction", "part"),
    ("inner", "adam"): ("inner_beta1", "inner_beta2", "carry_inner_state"),
}


def refuse_unused(settings: Settings, given: Collection[str]) -> None:
    """Raise the SettingsError of a setting among ``given``, those that the user named, that the run would not read.

    Not in ``Settings``, which does not know them: what a preset or an old run set for another algorithm does no harm.
    """
    if settings.algorithm == "meta-sgd" and "inner_lr" in given:
        raise SettingsError(
            "meta-sgd learns its step sizes: leave inner_lr out, or set rate_low and rate_high"
        )
    for name in given:
        owners = [owner for owner, own in _ONLY_WITH.items() if name in own]
        if owners and all(getattr(settings, by) != value for by, value in owners):
            by, values = owners[0][0], ", ".join(value for _, value in owners)
            one = "one of these" if len(owners) > 1 else values
            raise SettingsError(f"{name} belongs to {values}: leave it out, or set {by} to {one}")


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes):
        raise SettingsError(f"hidden must be layer sizes such as 64,64, got {text!r}")
    return sizes
