"""An experiment: settings made into objects, which load data when needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from ..algorithms import COMBINERS, Algorithm
from ..arrays.memory import refuse_beyond_memory
from ..errors import SettingsError, ShapeError
from ..objectives import Differentiable, HasExamples
from ..tasks import Minibatches
from ..training.evaluation import Accuracy, Evaluation, score
from ..training.learner import Learner
from ..training.meta_training import MetaState, MetaTraining
from ..training.scoring import Scoring
from .settings import Settings
from .task_settings import TaskData


@dataclass(frozen=True, eq=False)
class Experiment:
    """The objects that ``settings`` describe, on the device of ``xp``.

    The objective, the algorithm and a learner need no data. The other objects
    load the images in ``data`` at their first use, and the experiment keeps
    these images. ``own`` are tasks of the user's own, in place of those of the
    settings. Training and evaluation use ``workers`` threads.
    """

    settings: Settings
    data: str | None = None
    xp: ModuleType = np
    workers: int | None = None
    own: TaskData | None = None

    @cached_property
    def objective(self) -> Differentiable:
        """The objective of the tasks."""
        return self.settings.objective()

    @cached_property
    def algorithm(self) -> Algorithm:
        """The algorithm, fitted to the run."""
        return self.settings.prepared(self.objective)

    def learner(self, state: MetaState) -> Learner:
        """A learner with the meta-parameters of ``state``."""
        scoring, inputs = self.settings.evaluation, self.settings.task.inputs
        return Learner(self.objective, self.algorithm, state.meta, state.inner, scoring, inputs)

    @cached_property
    def _tasks(self) -> TaskData:
        if self.own is not None:
            return self.own
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
        training = self.settings.training
        return MetaTraining(
            objective=self.objective,
            algorithm=self.algorithm,
            tasks=self.train_tasks,
            schedule=self.settings.schedule,
            outer=self.settings.outer,
            iterations=training.iterations,
            epsilon_final=training.epsilon_final,
            meta_batch=training.meta_batch,
            combine=COMBINERS[training.combine],
            carry_inner_state=training.carry_inner_state,
            seed=training.seed,
            dtype=np.dtype(training.dtype),
            xp=self.xp,
            workers=self.workers,
        )

    def check(self) -> None:
        """Draw two tasks, and compute their losses.

        Raises
        ------
        DataError, SettingsError, ShapeError
            if the data do not suffice for a task, or do not fit the network.
        """
        refuse_beyond_memory(self._numbers())
        training, schedule = self.training, self.settings.schedule
        batches = training.sample(0, tasks=2)
        _check_sample(training.tasks, batches, schedule.k, training.dtype)
        meta = training.start().meta
        start = self.algorithm.problem(self.objective, meta).start
        real = batches[0][1].dtype.kind not in "iu"
        if isinstance(self.objective, HasExamples) and self.objective.examples().classes is None:
            _require(training.tasks, real, "y of real numbers, since the loss predicts no classes")
        try:
            for batch in (batches[0], batches[-1]):
                self.objective.at(start, batch)
        except ShapeError as error:
            raise ShapeError(f"the tasks do not fit the network and its loss: {error}") from error

    def _numbers(self) -> int:
        """A lower bound of the numbers that a meta-step holds at once: the
        examples and the directions of a meta-batch."""
        schedule, flags = self.settings.schedule, self.settings.flags()
        ways = flags.get("ways", 1)
        examples = max(sum(schedule.shots_each(ways)) * ways, schedule.k * schedule.size)
        examples = max(examples, flags.get("grid") or 0)
        return self.settings.training.meta_batch * (examples + self.objective.size)


def _check_sample(tasks: Any, batches: Any, k: int, dtype: Any) -> None:
    """Raise a SettingsError unless ``batches`` are k mini-batches of 2
    tasks."""
    _require(tasks, isinstance(batches, Minibatches), "Minibatches")
    _require(tasks, len(batches) == k, f"k = {k} mini-batches, got {len(batches)}")
    _require(tasks, batches.tasks == 2, f"2 tasks where 2 are asked for, got {batches.tasks}")
    for name, array in zip("xy", batches[0], strict=True):
        fits = array.dtype == dtype or (name == "y" and array.dtype.kind in "iu")
        _require(tasks, fits, f"{name} of dtype {np.dtype(dtype)}, got {array.dtype}")


def _require(tasks: Any, holds: bool, what: str) -> None:
    """Raise a SettingsError if a distribution did not return ``what``."""
    if not holds:
        raise SettingsError(f"{type(tasks).__name__}.sample must return {what}")


def evaluate(
    experiment: Experiment,
    state: MetaState,
    scoring: Scoring | None = None,
    **how: Any,
) -> Accuracy | Evaluation:
    """Score the learner of ``state`` on unseen tasks.

    ``scoring``, if given, replaces that of the settings. ``score`` explains
    ``how``.

    Raises
    ------
    DataError, DivergenceError, SettingsError
    """
    how = {"workers": experiment.workers} | how
    scoring = scoring or experiment.settings.evaluation
    return score(experiment.learner(state), experiment.test_tasks, scoring, **how)
