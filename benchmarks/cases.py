"""The work that benchmarks/speed.py times.

A case has a network, tasks and settings.

Arrays are drawn from a seed. A case is written as a folder that any third party
can read: ``case.json``, in the terms of the conformance vectors
(docs/vectors.md), and ``arrays.npz``. Images are random and have the right
shape; they take the same time as real images.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minimeta import (
    SGD,
    Adam,
    FewShotImages,
    MeanSquaredError,
    Minibatches,
    MinibatchSchedule,
    Network,
    Objective,
    Sinusoid,
    SoftmaxCrossEntropy,
    mini_imagenet_convnet,
    mlp,
    omniglot_convnet,
)
from minimeta.losses import Loss
from minimeta.testing import conformance_vectors as vectors
from minimeta.training.meta_training import TaskDistribution

Kind = Literal["maml", "reptile", "evaluation", "hvp", "memory"]


@dataclass(frozen=True)
class Case:
    """A piece of work, always from the same phi on the same mini-batches.

    ``kind`` defines a step. ``"maml"`` and ``"reptile"``: a meta-step with the
    rule ``outer`` and fresh inner moments for every task. ``"evaluation"``:
    adapt to all mini-batches except the last, and predict the last in one
    batch. ``"hvp"``: a Hessian-vector product, or the gradient, of the first
    mini-batch. ``"memory"``: MAML's gradient.
    """

    name: str
    title: str
    kind: Kind
    network: Network
    loss: Loss
    distribution: TaskDistribution
    schedule: MinibatchSchedule
    tasks: int
    rule: SGD | Adam
    outer: SGD | Adam | None = None

    def objective(self) -> Objective:
        """The objective of the case."""
        return Objective(self.network, self.loss)

    def minibatches(self) -> Minibatches:
        """The mini-batches, float64."""
        return self.distribution.sample(
            self._rng("tasks"), self.tasks, self.schedule, np.float64, np
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """phi ``(D,)``, v ``(T, D)``, and x_1, y_1, x_2, ... by name.

        They are float64, and labels int64.
        """
        rng = self._rng("phi")
        named = {
            "phi": self.network.init(rng, np.float64),
            "v": rng.standard_normal((self.tasks, self.network.size)),
        }
        for i, (x, y) in enumerate(self.minibatches(), start=1):
            named |= {f"x_{i}": x, f"y_{i}": y}
        return named

    def describe(self) -> dict[str, Any]:
        """The case as JSON, without its arrays."""
        sizes = tuple(x.shape[1] for x, _ in self.minibatches())
        problem = vectors.Problem(self.name, self.network, self.loss, self.rule, sizes, self.tasks)
        outer = (
            None
            if self.outer is None
            else {"type": type(self.outer).__name__, **asdict(self.outer)}
        )
        return {
            "name": self.name,
            "title": self.title,
            "kind": self.kind,
            **problem.describe(),
            "outer": outer,
        }

    def write(self, folder: Path) -> None:
        """Write ``case.json`` and ``arrays.npz`` in a new ``folder``."""
        folder.mkdir(parents=True)
        (folder / "case.json").write_text(json.dumps(self.describe(), indent=1) + "\n")
        np.savez(folder / "arrays.npz", **self.arrays())

    def _rng(self, stream: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.name} {stream}".encode()))


def random_images(side: int, channels: int, white: int) -> FewShotImages:
    """5-way tasks from 20 classes of 20 images of independent pixels."""
    images = np.random.default_rng(0).integers(
        0, white, (20, 20, side, side, channels), dtype=np.uint8, endpoint=True
    )
    return FewShotImages(images, ways=5, white=white)


MEMORY_STEPS = (1, 5, 10, 25, 50, 100)

_XENT, _ADAM, _OUTER_ADAM = SoftmaxCrossEntropy(), Adam(0.001), Adam(0.001, beta1=0.9)
_OMNIGLOT, _MINI_IMAGENET = omniglot_convnet(5), mini_imagenet_convnet(5)
_OMNIGLOT_IMAGES, _MINI_IMAGES = random_images(28, 1, white=1), random_images(84, 3, white=255)


def _one_shot(steps: int, order: Literal["cycle", "replacement"] = "cycle") -> MinibatchSchedule:
    """Steps on the 5 support images of a 5-way 1-shot task, then 5 queries."""
    return MinibatchSchedule(
        k=steps + 1, size=5, tail="separate", order=order, shots=1, tail_shots=1
    )


def _inner(steps: int) -> str:
    return f"{steps} inner step{'s' * (steps > 1)}"


def _sine_maml(steps: int) -> Case:
    schedule = MinibatchSchedule(k=steps + 1, size=10, tail="separate", shots=10, tail_shots=10)
    return Case(
        f"sine-maml-{steps}",
        f"sine MAML meta-step, 25 tasks, {_inner(steps)}, 10 shots",
        "maml",
        mlp([1, 40, 40, 1]),
        MeanSquaredError(),
        Sinusoid(),
        schedule,
        25,
        SGD(0.01),
        _OUTER_ADAM,
    )


def _omniglot_maml(steps: int) -> Case:
    return Case(
        f"omniglot-maml-{steps}",
        f"Omniglot MAML meta-step, 32 tasks, {_inner(steps)}, 5-way 1-shot",
        "maml",
        _OMNIGLOT,
        _XENT,
        _OMNIGLOT_IMAGES,
        _one_shot(steps),
        32,
        SGD(0.4),
        _OUTER_ADAM,
    )


def _memory(steps: int) -> Case:
    # With MAML's own step size of 0.4, 100 steps on 5 images of noise diverge.
    return Case(
        f"memory-{steps}",
        f"memory of one MAML gradient, Omniglot, 1 task, {_inner(steps)}",
        "memory",
        _OMNIGLOT,
        _XENT,
        _OMNIGLOT_IMAGES,
        _one_shot(steps),
        1,
        SGD(0.05),
    )


CASES = {
    case.name: case
    for case in (
        _sine_maml(1),
        _sine_maml(5),
        Case(
            "omniglot-reptile",
            "Omniglot Reptile meta-step, 5 tasks, 5 inner Adam steps, 10 images",
            "reptile",
            _OMNIGLOT,
            _XENT,
            _OMNIGLOT_IMAGES,
            MinibatchSchedule(k=5, size=10, shots=10),
            5,
            _ADAM,
            SGD(1.0),
        ),
        _omniglot_maml(1),
        _omniglot_maml(5),
        Case(
            "omniglot-hvp",
            "Hessian-vector product, Omniglot network, 10 images",
            "hvp",
            _OMNIGLOT,
            _XENT,
            _OMNIGLOT_IMAGES,
            MinibatchSchedule(k=1, size=10),
            1,
            _ADAM,
        ),
        Case(
            "omniglot-evaluation",
            "Omniglot 5-way 1-shot evaluation, 10 tasks, 50 inner Adam steps",
            "evaluation",
            _OMNIGLOT,
            _XENT,
            _OMNIGLOT_IMAGES,
            _one_shot(50),
            10,
            _ADAM,
        ),
        Case(
            "mini-imagenet-reptile",
            "mini-ImageNet Reptile meta-step, 5 tasks, 8 inner Adam steps, 10 images",
            "reptile",
            _MINI_IMAGENET,
            _XENT,
            _MINI_IMAGES,
            MinibatchSchedule(k=8, size=10, shots=15),
            5,
            _ADAM,
            SGD(1.0),
        ),
        *(_memory(steps) for steps in MEMORY_STEPS),
    )
}
