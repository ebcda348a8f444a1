"""The papers' settings, by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..algorithms import MAML, MetaSGD, Reptile
from ..inner import SGD, Adam
from ..tasks import MinibatchSchedule
from ..training.evaluation import Scoring
from .settings import Settings, Training
from .task_settings import MiniImageNetSettings, OmniglotSettings, SineSettings


@dataclass(frozen=True)
class Preset:
    """Settings, ``base`` with ``changes``, and a text that describes them."""

    text: str
    base: Settings
    changes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """The settings. They are made at first use, because an import should
        not wait for all of them."""
        return self.base.changed(**self.changes) if self.changes else self.base

    def __repr__(self) -> str:
        return self.text


_SINE_MAML = Settings(
    task=SineSettings(hidden=(40, 40), activation="relu", phase=math.pi, grid=None),
    algorithm=MAML(SGD(0.01)),
    schedule=MinibatchSchedule(k=2, size=10, tail="separate"),
    outer=Adam(0.001, beta1=0.9),
    training=Training(iterations=70_000, meta_batch=25, epsilon_final=0.001),
    evaluation=Scoring(shots=10, steps=10, size=10),
)
_SINE_META_SGD = Settings(
    task=_SINE_MAML.task,
    algorithm=MetaSGD(),
    schedule=_SINE_MAML.schedule,
    outer=_SINE_MAML.outer,
    training=Training(iterations=60_000, meta_batch=4, epsilon_final=0.001),
    evaluation=_SINE_MAML.evaluation,
)
# The Reptile authors' program differentiates the sum of the cross-entropy over
# a mini-batch. The sum multiplies the steps of inner SGD by the size of the
# mini-batch. It does not change Adam's steps, except that Adam's moments pass
# from training to evaluation, whose mini-batches have other sizes. MAML's
# program takes a sum too (over the shots), but on Omniglot it averages the last
# features over their 2 x 2 pixels. Here the features are flattened, and MAML's
# steps are taken on the mean.
_OMNIGLOT = Settings(
    task=OmniglotSettings(ways=5, reduction="sum"),
    algorithm=Reptile(Adam(0.001)),
    schedule=MinibatchSchedule(k=5, size=10, shots=10),
    outer=SGD(1.0),
    training=Training(iterations=100_000, meta_batch=5),
    evaluation=Scoring(shots=1, steps=50, size=5),
)
_OMNIGLOT_MAML = Settings(
    task=OmniglotSettings(ways=5),
    algorithm=MAML(SGD(0.4)),
    schedule=MinibatchSchedule(k=2, size=5, tail="separate", shots=1, tail_shots=1),
    outer=Adam(0.001, beta1=0.9),
    training=Training(iterations=60_000, meta_batch=32, epsilon_final=0.001),
    evaluation=Scoring(shots=1, steps=3, size=5),
)
_MINI_IMAGENET = Settings(
    task=MiniImageNetSettings(reduction="sum"),
    algorithm=Reptile(Adam(0.001)),
    schedule=MinibatchSchedule(k=8, size=10, shots=15),
    outer=SGD(1.0),
    training=Training(iterations=100_000, meta_batch=5),
    evaluation=Scoring(shots=1, steps=50, size=5),
)
# FOMAML with Reptile's settings: its direction is a step, as Reptile's is.
_LAST_STEP = dict(algorithm="fomaml", fomaml_update="step", tail="separate", tail_shots=2)

PRESETS: dict[str, Preset] = {
    "sine": Preset("Reptile on sine waves: the Reptile authors' demo", Settings()),
    "sine-maml": Preset("MAML on sine waves: the MAML paper's settings", _SINE_MAML),
    "sine-meta-sgd": Preset(
        "Meta-SGD on sine waves: the Meta-SGD paper's settings", _SINE_META_SGD
    ),
    "omniglot-5way": Preset("Reptile on Omniglot, 5-way: the Reptile paper's settings", _OMNIGLOT),
    "omniglot-20way": Preset(
        "Reptile on Omniglot, 20-way: the Reptile paper's settings",
        _OMNIGLOT,
        dict(ways=20, iterations=200_000, k=10, size=20, inner_lr=0.0005, eval_size=10),
    ),
    "omniglot-5way-fomaml": Preset(
        "FOMAML on Omniglot, 5-way, beside Reptile's settings: the last of 5 steps, on held-out "
        "images",
        _OMNIGLOT,
        _LAST_STEP,
    ),
    "omniglot-5way-maml": Preset(
        "MAML on Omniglot, 5-way 1-shot: the MAML paper's settings", _OMNIGLOT_MAML
    ),
    "omniglot-20way-maml": Preset(
        "MAML on Omniglot, 20-way 1-shot: the MAML paper's settings",
        _OMNIGLOT_MAML,
        dict(ways=20, meta_batch=16, k=6, size=20, inner_lr=0.1, eval_steps=5, eval_size=20),
    ),
    "mini-imagenet-1shot": Preset(
        "Reptile on mini-ImageNet, 5-way 1-shot: the Reptile paper's settings", _MINI_IMAGENET
    ),
    "mini-imagenet-5shot": Preset(
        "Reptile on mini-ImageNet, 5-way 5-shot: the same training, evaluated on 5 shots",
        _MINI_IMAGENET,
        dict(eval_shots=5, eval_size=15),
    ),
    "mini-imagenet-fomaml": Preset(
        "FOMAML on mini-ImageNet, 5-way 1-shot, beside Reptile's settings: the last of 8 steps, "
        "on held-out images",
        _MINI_IMAGENET,
        _LAST_STEP,
    ),
}
