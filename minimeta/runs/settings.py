"""The settings of a run: the objects themselves, as flags and as JSON.

``Settings`` is a frozen dataclass of frozen dataclasses. Each owns its fields,
their help and their refusals. Tasks, algorithms and rules are registered by
name, so that JSON and the command line can choose them. The device, the threads
and the folders do not change a run's numbers, so they are no settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..algorithms import ALGORITHMS, COMBINERS, Algorithm, Plan, Reptile, gradient_agreement
from ..errors import SettingsError, ShapeError
from ..fields import every_flag, expanded, flags_in, flags_of, json_of, made_from, refuse_unread
from ..inner import RULES, SGD, InnerRule
from ..objectives import Differentiable, objective_in
from ..registry import setting
from ..tasks import MinibatchSchedule
from ..training.evaluation import Scoring
from . import first_edition
from .task_settings import TASKS, SineSettings, TaskSettings


@dataclass(frozen=True)
class Training:
    """The outer loop.

    Raises
    ------
    SettingsError
        if gradient agreement has only one task.
    """

    iterations: int = setting(30_000, "meta-steps", least=1)
    meta_batch: int = setting(1, "tasks per meta-step", least=1)
    combine: str = setting(
        "mean",
        "how the directions of a meta-batch are combined: with equal weights, or weighted by "
        "gradient agreement",
        choices=COMBINERS,
    )
    epsilon_final: float = setting(
        0.0, "final outer step size; the step size changes linearly", least=0
    )
    carry_inner_state: bool = setting(
        True, "pass the inner rule's state, such as Adam's moments, from task to task"
    )
    seed: int = setting(0, "seed of all random numbers", least=0)
    dtype: Literal["float32", "float64"] = setting("float32", "floating-point precision")

    def __post_init__(self) -> None:
        agreement = COMBINERS.get(self.combine) is gradient_agreement
        if agreement and self.meta_batch < 2:
            raise SettingsError(
                "gradient agreement weighs tasks against each other: set meta_batch to 2 or more"
            )


@dataclass(frozen=True)
class Settings:
    """A meta-training run and its evaluation; by default the preset "sine".

    Every setting that ``minimeta train`` takes as a flag is a field of one of
    these dataclasses, or of a class registered in ``TASKS``, ``ALGORITHMS``,
    ``RULES`` or ``MEASURES``.

    Raises
    ------
    SettingsError
        if a value does not fit its field, or makes no sense with another value.
    """

    task: TaskSettings = setting(SineSettings(), "tasks to learn", registry=TASKS)
    algorithm: Algorithm = setting(
        Reptile(SGD(0.02)), "meta-learning algorithm", registry=ALGORITHMS
    )
    schedule: MinibatchSchedule = setting(MinibatchSchedule(5, 10))
    outer: InnerRule = setting(
        SGD(0.1),
        "outer rule",
        registry=RULES,
        prefix="outer_",
        renamed={"lr": "epsilon"},
        defaults={"beta1": 0.9},
    )
    training: Training = setting(Training())
    evaluation: Scoring = setting(Scoring(), prefix="eval_")
    model: dict | None = setting(
        None, "network and loss, as JSON, in place of the task's own", hash=False
    )

    def __post_init__(self) -> None:
        flags = flags_of(self)  # checks every value
        if not isinstance(flags.get("epsilon"), (int, float)):
            raise SettingsError("the outer rule needs one step size: set epsilon to a number")
        self.prepared(self.objective())

    def objective(self) -> Differentiable:
        """The objective: that of ``model``, or the task's own.

        Raises
        ------
        SettingsError
            if ``model`` describes no objective, or the task has none.
        """
        if self.model is None:
            return self.task.objective()
        try:
            return objective_in(self.model)
        except (SettingsError, ShapeError) as error:
            raise SettingsError(f"model: {error}") from error

    def prepared(self, objective: Differentiable) -> Algorithm:
        """The algorithm, fitted to this run on the task's ``objective``.

        Raises
        ------
        SettingsError
            if the algorithm makes no sense in this run.
        """
        return self.algorithm.prepared(
            Plan(
                objective,
                self.schedule.k,
                self.schedule.tail == "separate",
                self.training.meta_batch,
                COMBINERS[self.training.combine],
                self.task.inputs,
            )
        )

    def flags(self) -> dict[str, Any]:
        """The flat form: every flag that the run reads, as JSON."""
        return flags_of(self)

    def changed(self, **flags: Any) -> Settings:
        """These settings with other values for some flags.

        The name of another task, algorithm, rule or measure chooses another
        class. Flags that both classes have keep their values. An object may
        stand for its flags: ``algorithm=MAML(SGD(0.01))``.

        Raises
        ------
        SettingsError
            if the new settings make no sense, or do not read one of ``flags``.
        """
        flags = expanded(Settings, flags)
        first_edition.refuse_moved(flags)
        changed = _settings_of(self.flags() | flags)
        refuse_unread(Settings, list(flags), changed.flags())
        idle = [flag for flag in changed.task.model_settings if flag in flags]
        if changed.model is not None and idle:
            raise SettingsError(
                f"{idle[0]} describes the task's own network and loss, but this run has others: "
                f"leave {idle[0]} out"
            )
        return changed

    def to_dict(self) -> dict[str, Any]:
        """The nested form, a JSON object."""
        return json_of(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Settings:
        """Settings from JSON, in the nested form or that of the first edition.

        Raises
        ------
        SettingsError
            if a name is unknown, or a value does not fit or makes no sense.
        """
        if not first_edition.is_first_edition(stored):
            return _settings_of(flags_in(cls, stored))
        unknown = sorted(set(stored) - set(every_flag(cls)))
        if unknown:
            raise SettingsError(f"unknown settings: {', '.join(unknown)}")
        return _settings_of(first_edition.flags_in(stored))


def _settings_of(flags: Mapping[str, Any]) -> Settings:
    """Settings with these flags; ``Settings()`` provides missing defaults."""
    return made_from(Settings, dict(flags), flags_of(Settings()))
