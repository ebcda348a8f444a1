"""Tasks as settings.

Each task builds its objective without data, and its task distributions from
data.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from ..arrays.backend import Array, to_host
from ..errors import SettingsError
from ..losses import MeanSquaredError, SoftmaxCrossEntropy, Summed
from ..objectives import (
    Differentiable,
    Network,
    Objective,
    mini_imagenet_convnet,
    mlp,
    omniglot_convnet,
)
from ..registry import Registry, setting
from ..tasks import FewShotImages, Sinusoid, load_mini_imagenet, load_omniglot, split_omniglot
from ..tasks.mini_imagenet import IMAGES
from ..training.learner_file import checked_inputs

TASKS = Registry("task")


class TaskData(NamedTuple):
    """Task distributions to train and to test on.

    ``images`` identifies the images by their number per class and their digest;
    None without images.
    """

    train: Any
    test: Any
    images: dict[str, Any] | None = None


class TaskSettings(ABC):
    """Base of the tasks: frozen dataclasses, registered in ``TASKS``.

    ``inputs`` is the range of the inputs. ``model_settings`` are the fields
    that describe the network and the loss.
    """

    inputs: tuple[float, float] = (-math.inf, math.inf)
    model_settings: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def objective(self) -> Differentiable:
        """The objective. It needs no data."""

    @abstractmethod
    def tasks(self, data: str | None, seed: int, xp: ModuleType) -> TaskData:
        """The task distributions on the device of ``xp``.

        ``data`` is the folder of the images.

        Raises
        ------
        DataError, SettingsError
            if there are no images, or too few.
        """

    def classes(self) -> str:
        """How many classes a task has, such as "5-way "; by default nothing."""
        return ""

    def remark(self, test_tasks: Any) -> str:
        """A remark to print with scores on ``test_tasks``, or an empty text."""
        return ""


@TASKS.register("sine")
@dataclass(frozen=True)
class SineSettings(TaskSettings):
    """Regression on sine waves, by a network of dense layers."""

    hidden: tuple[int, ...] = setting((64, 64), "sizes of the hidden layers (sine)", least=1)
    activation: Literal["relu", "tanh", "softplus"] = setting(
        "tanh", "activation of the hidden layers (sine)"
    )
    context: int | None = setting(
        None,
        "CAVIA: number of context parameters, beside the inputs (sine) or by FiLM (images)",
        least=1,
    )
    phase: float = setting(2 * math.pi, "phases are uniform in [0, PHASE] (sine)", least=0)
    grid: int | None = setting(
        50, "number of evenly spaced x of a task; none or 0: uniform x (sine)", least=0
    )
    inputs = Sinusoid.domain
    model_settings = ("hidden", "activation", "context")

    def __post_init__(self) -> None:
        if self.grid == 0:  # 0 and None mean the same
            object.__setattr__(self, "grid", None)

    def objective(self) -> Objective:
        """Mean squared error of the network."""
        network = mlp([1, *self.hidden, 1], self.activation, self.context or 0)
        return Objective(network, MeanSquaredError())

    def tasks(self, data: str | None, seed: int, xp: ModuleType) -> TaskData:
        """One distribution, to train and to test on."""
        waves = Sinusoid(phases=(0.0, self.phase), grid=self.grid)
        return TaskData(waves, waves)


@dataclass(frozen=True)
class ImageSettings(TaskSettings):
    """Base of few-shot classification of images."""

    ways: int = setting(5, "classes per task (images)", least=1)
    filters: int = setting(64, "filters per convolution (images)", least=1)
    reduction: Literal["mean", "sum"] = setting(
        "mean",
        "mean or sum of the losses of a mini-batch's images; the Reptile authors' program takes "
        "the sum (images)",
    )
    context: int | None = setting(
        None, "CAVIA: number of context parameters, by FiLM (images)", least=1
    )
    inputs = (0.0, 1.0)  # black and white
    model_settings = ("filters", "reduction", "context")

    def classes(self) -> str:
        """The ways."""
        return f"{self.ways}-way "

    @abstractmethod
    def network(self) -> Network:
        """The network, from images to logits."""

    def objective(self) -> Objective:
        """Cross-entropy of the network."""
        loss = SoftmaxCrossEntropy()
        return Objective(self.network(), Summed(loss) if self.reduction == "sum" else loss)

    def _tasks(self, halves: Any, white: int, images: dict[str, Any], xp: ModuleType) -> TaskData:
        """Task distributions of two ``halves`` of images."""
        train, test = (FewShotImages(xp.asarray(half), self.ways, white) for half in halves)
        return TaskData(train, test, images)


@TASKS.register("omniglot")
@dataclass(frozen=True)
class OmniglotSettings(ImageSettings):
    """Few-shot classification of Omniglot's characters."""

    def network(self) -> Network:
        """Four convolutions of stride 2."""
        return omniglot_convnet(self.ways, self.filters, self.context or 0)

    def tasks(self, data: str | None, seed: int, xp: ModuleType) -> TaskData:
        """Characters, split at random by ``seed``."""
        images = load_omniglot(data).images
        return self._tasks(split_omniglot(images, seed), 1, fingerprint(images), xp)


@TASKS.register("mini-imagenet")
@dataclass(frozen=True)
class MiniImageNetSettings(ImageSettings):
    """Few-shot classification of mini-ImageNet's photographs."""

    filters: int = setting(32, "filters per convolution (images)", least=1)
    part: bool = setting(
        False, "accept a part of the data set: fewer images per class (mini-imagenet)"
    )

    def network(self) -> Network:
        """Four convolutions with max pooling."""
        return mini_imagenet_convnet(self.ways, self.filters, self.context or 0)

    def tasks(self, data: str | None, seed: int, xp: ModuleType) -> TaskData:
        """The classes of the train and the test split."""
        halves = [load_mini_imagenet(data, split, self.part).images for split in ("train", "test")]
        return self._tasks(halves, 255, fingerprint(*halves), xp)

    def remark(self, test_tasks: FewShotImages) -> str:
        """The number of images per class, where the data are a part."""
        if not self.part:
            return ""
        return f", on a part: {test_tasks.images.shape[1]} of {IMAGES} images a class"


@TASKS.register("own")
@dataclass(frozen=True)
class OwnTasks(TaskSettings):
    """Tasks of the user's own, given in Python beside the settings.

    Settings cannot hold a distribution of tasks. They hold the name of its
    class and the range of its inputs. The network and the loss stand in
    ``Settings.model``.
    """

    distribution: str = setting(help="class of the tasks, given in Python (own)")
    inputs: tuple[float, float] = setting((-math.inf, math.inf), "range of the inputs (own)")

    def __post_init__(self) -> None:
        checked_inputs(self.inputs)

    def objective(self) -> Objective:
        """Raises a SettingsError: tasks of one's own come with a network."""
        raise SettingsError(
            "tasks of your own are given in Python, with a network: "
            "minimeta.train(preset, folder, tasks=..., network=...)"
        )

    def tasks(self, data: str | None, seed: int, xp: ModuleType) -> TaskData:
        """Raises a SettingsError: the distribution is given in Python."""
        raise SettingsError(
            f"this run learns tasks of its own ({self.distribution}), which its folder does not "
            "hold: give them in Python, as tasks=..."
        )


def fingerprint(*images: Array) -> dict[str, Any]:
    """The number of images per class and a digest, which identify the images.

    The digest is the first digits of the SHA-256 of all images.
    """
    digest = hashlib.sha256()
    for each in images:
        digest.update(np.ascontiguousarray(to_host(each)))
    return {"a_class": images[0].shape[1], "sha256": digest.hexdigest()[:12]}
