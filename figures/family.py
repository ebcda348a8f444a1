"""The family compared: every algorithm, and joint training, on sine waves and on 5-way 1-shot Omniglot.

On sine waves every run trains the MAML paper's network on the same number of tasks, with K = 5, 10 and 20 points to adapt on
and K to score on; five seeds; each then adapts to the same 600 unseen waves by 0 to 10 inner steps on K points. Omniglot has
the same number of meta-steps and tasks for all, and one seed. Runs that were made are not made again: a sweep that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minimeta.errors import DivergenceError
from minimeta.evaluation import Adaptation, accuracy, adaptation_errors
from minimeta.experiment import PRESETS, Experiment, Settings
from minimeta.files import write_atomically
from minimeta.meta_training import MetaState
from minimeta.provenance import provenance
from minimeta.run import open_run
from minimeta.sweep import Job, sweep

SHOTS, SEEDS, WAVES, STEPS = (5, 10, 20), 5, 600, 10
TASKS = 1000  # unseen Omniglot tasks

_SINE = Settings(
    algorithm="maml", iterations=20_000, meta_batch=10, k=2, tail="separate", inner_lr=0.01, outer="adam", epsilon=0.001,
    hidden="40,40", activation="relu", phase=math.pi, grid=None, eval_steps=STEPS,
)  # fmt: skip
_REPTILE = dict(algorithm="reptile", k=10, tail="shared", tail_shots=None)

# What each changes on sine waves. One inner step, as in the papers, where one is enough for the algorithm.
ON_SINE: dict[str, dict[str, Any]] = {
    "joint": dict(_REPTILE, k=1),
    "reptile": _REPTILE,
    "reptile-agreement": dict(_REPTILE, combine="agreement"),
    "fomaml": dict(algorithm="fomaml", fomaml_update="gradient"),
    "maml": dict(),
    "maml-agreement": dict(combine="agreement"),
    # Its step sizes are learned for one step; a second one diverges on some waves.
    "meta-sgd": dict(algorithm="meta-sgd", eval_steps=1),
    "anil": dict(algorithm="anil"),
    "cavia": dict(algorithm="cavia", context=5, inner_lr=1.0),
    # Ten steps of Adam come nearer to the inner optimum than those of an SGD that is stable.
    "imaml": dict(
        algorithm="imaml", k=11, regularization=10.0, inner="adam", inner_beta1=0.9, carry_inner_state=False
    ),
}  # fmt: skip


def sine_jobs(budget: float = 1.0, names: Sequence[str] = tuple(ON_SINE)) -> list[Job]:
    """One job for each algorithm, number of points and seed; ``budget`` scales the number of meta-steps."""
    jobs = []
    for shots in SHOTS:
        for name in names:
            changes = ON_SINE[name]
            # Reptile and joint training step on all 2K points that the others cut into support and query.
            points = (
                dict(shots=2 * shots)
                if "k" in changes and changes.get("tail") == "shared"
                else dict(shots=shots, tail_shots=shots)
            )
            sizes = dict(size=2 * shots if name == "joint" else shots, eval_shots=shots, eval_size=shots)
            settings = replace(_SINE, iterations=max(1, round(budget * _SINE.iterations)), **(points | sizes | changes))
            jobs += [Job(f"sine-{shots}-{name}-{seed}", replace(settings, seed=seed)) for seed in range(SEEDS)]
    return jobs


def measure(path: Path, data: str | None) -> dict[str, Any]:
    """A finished run's errors or accuracies, task by task, and what training it took."""
    experiment, state = open_run(path, data, workers=1)
    return (_sine_errors if experiment.settings.task == "sine" else _accuracies)(experiment, state)


def _sine_errors(experiment: Experiment, state: MetaState) -> dict[str, Any]:
    def errors(steps: int) -> np.ndarray:
        training, settings = experiment.training, experiment.settings
        return adaptation_errors(
            training.objective, training.algorithm, state.meta, experiment.test_tasks, count=WAVES, workers=1,
            shots=settings.eval_shots, adaptation=Adaptation(steps, settings.eval_size), inner_state=state.inner,
        ).values  # fmt: skip

    steps, beyond = experiment.settings.eval_steps, None
    if steps < STEPS:
        try:
            errors(STEPS)
        except DivergenceError as error:
            beyond = str(error)
    return {"errors": errors(steps).astype(np.float32).round(5).tolist(), "beyond": beyond}
