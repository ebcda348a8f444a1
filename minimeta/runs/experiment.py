"""An experiment: settings made into objects, which load data when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from ..algorithms import COMBINERS, Algorithm
from ..objectives import Differentiable
from ..training.evaluation import (
    Accuracy,
    Evaluation,
    Mode,
    Progress,
    Scoring,
    accuracy,
    adaptation_errors,
)
from ..training.learner import Learner
from ..training.meta_training import MetaState, MetaTraining
from .settings import Settings
from .task_settings import TaskData


@dataclass(frozen=True, eq=False)
class Experiment:
    """The objects that ``settings`` describe, on the device of ``xp``.

    The objective, the algorithm and a learner need no data. The other objects
    load the images in ``data`` at their first use, and the experiment keeps
    these images. Training and evaluation use ``workers`` threads.
    """

    settings: Settings
    data: str | None = None
    xp: ModuleType = np
    workers: int | None = None

    @cached_property
    def objective(self) -> Differentiable:
        """The objective of the tasks."""
        return self.settings.task.objective()

    @cached_property
    def algorithm(self) -> Algorithm:
        """The algorithm, fitted to the run."""
        return self.settings.prepared(self.objective)

    def learner(self, state: MetaState) -> Learner:
        """A learner with the meta-parameters of ``state``."""
        return Learner(self.objective, self.algorithm, state.meta, state.inner)

    @cached_property
    def _tasks(self) -> TaskData:
        settings = self.settings
        return settings.task.tasks(self.data, settings.training.seed, self.xp)

    @property
    def train_tasks(self) -> Any:
        """The distribution of training tasks."""
        return self._tasks.train

    @property
    def test_tasks(self) -> Any:
        """The distribution of unseen tasks."""
        return self._tasks.test

    @property
    def images(self) -> dict[str, Any] | None:
        """The number of images per class and their digest, or None."""
        return self._tasks.images

    @cached_property
    def training(self) -> MetaTraining:
        """The meta-training run."""
        told = self.settings.training
        return MetaTraining(
            objective=self.objective,
            algorithm=self.algorithm,
            tasks=self.train_tasks,
            schedule=self.settings.schedule,
            outer=self.settings.outer,
            iterations=told.iterations,
            epsilon_final=told.epsilon_final,
            meta_batch=told.meta_batch,
            combine=COMBINERS[told.combine],
            carry_inner_state=told.carry_inner_state,
            seed=told.seed,
            dtype=np.dtype(told.dtype),
            xp=self.xp,
            workers=self.workers,
        )


def evaluate(
    experiment: Experiment,
    state: MetaState,
    scoring: Scoring | None = None,
    *,
    count: int = 1000,
    modes: Sequence[Mode] = ("transductive", "inductive"),
    seed: int = 0,
    progress: Progress = iter,
) -> Accuracy | Evaluation:
    """Score the learner of ``state`` on ``count`` unseen tasks.

    The scores are accuracies where the task has classes, else the loss after
    each inner step. ``scoring``, if given, replaces that of the settings.
    ``modes`` applies to accuracies only.

    Raises
    ------
    DataError, DivergenceError, SettingsError
    """
    how = {"count": count, "seed": seed, "workers": experiment.workers, "progress": progress}
    learner, tasks = experiment.learner(state), experiment.test_tasks
    scoring = scoring or experiment.settings.evaluation
    if experiment.settings.task.score == "accuracy":
        return accuracy(learner, tasks, scoring, modes=modes, **how)
    return adaptation_errors(learner, tasks, scoring, **how)
