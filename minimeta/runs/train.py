"""A meta-training run in its folder, new or from its last checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays import memory
from ..errors import CheckpointError, DivergenceError, SettingsError
from ..training.meta_training import MetaState, MetaTraining, checked_mean
from .experiment import Experiment
from .folder import Rules, RunFolder
from .provenance import provenance
from .settings import Settings


@dataclass(frozen=True)
class Saving:
    """How often a run saves metrics and checkpoints.

    Metrics are written every ``every`` meta-steps. A checkpoint is written at
    the first multiple of ``every`` at which ``seconds`` have passed since the
    last checkpoint. Saving does not change the numbers of a run.
    """

    every: int = 10
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.every < 1 or not self.seconds >= 0:
            raise SettingsError(
                f"saving needs every >= 1 and seconds >= 0, got {self.every} and {self.seconds}"
            )


def train(
    experiment: Experiment,
    out: str | os.PathLike,
    *,
    resume: bool = False,
    saving: Saving = Saving(),
    progress: bool = False,
    until: int | None = None,
) -> MetaState:
    """Train in the folder ``out``, from its checkpoint with ``resume``.

    The result is bit-identical however often the run was interrupted. With
    ``until``, the run stops at that meta-step, with a checkpoint. A run that is
    already beyond it does not change.

    Raises
    ------
    DivergenceError
        if the loss or a parameter is no longer finite; names the meta-step. The
        last checkpoint before it is kept.
    CheckpointError, DataError, SettingsError
    """
    folder, settings = RunFolder(Path(out)), experiment.settings
    if resume and settings_in(folder.config_path, folder.config()).flags() != settings.flags():
        raise CheckpointError(
            f"{out} was started with other settings: resume it with its own settings"
        )
    # Data that do not suffice for a task are refused before anything is
    # written.
    experiment.training.sample(0)
    with folder.held():
        if not resume:
            folder.create(settings.to_dict())
        config = folder.config()
        state = _begun(experiment, folder, config) if resume and folder.begun else None
        if state is None:
            state = experiment.training.start()
            folder.save(state, config, rules_of(settings))
        end = settings.training.iterations
        end = end if until is None else min(until, end)
        return _trained(experiment, state, folder, saving, progress, end)


def _begun(experiment: Experiment, folder: RunFolder, config: Mapping[str, Any]) -> MetaState:
    """The state to continue from; metrics after this state are dropped."""
    state = load(folder, experiment.settings, config, experiment.xp)
    begun = folder.facts().get("images")
    if begun not in (None, experiment.images):
        raise CheckpointError(
            f"{folder.path} was started with other images: {begun}, not {experiment.images}"
        )
    folder.clear_after(state.iteration)
    return state


def _trained(
    experiment: Experiment,
    state: MetaState,
    folder: RunFolder,
    saving: Saving,
    progress: bool,
    end: int,
) -> MetaState:
    """The state at meta-step ``end``, or ``state`` if it is beyond."""
    if state.iteration < end:
        made = {"provenance": provenance(experiment.xp.__name__), "images": experiment.images}
        folder.append_metrics({"iteration": state.iteration} | made)
    config, rules, last = folder.config(), rules_of(experiment.settings), state
    try:
        for last in _advance(experiment.training, state, folder, saving, progress, end):
            folder.save(last, config, rules)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "stopped: the same command with --resume continues from the last checkpoint in "
            f"{folder.path}"
        ) from None
    return last


def open_run(
    out: str | os.PathLike, data: str | None = None, xp: ModuleType = np, workers: int | None = None
) -> tuple[Experiment, MetaState]:
    """The experiment and the last state in the folder ``out``.

    The images in ``data`` are only needed once the experiment's tasks are used.
    """
    folder = RunFolder(Path(out))
    config = folder.config()
    settings = settings_in(folder.config_path, config)
    return Experiment(settings, data, xp, workers), load(folder, settings, config, xp)


def load(
    folder: RunFolder, settings: Settings, config: Mapping[str, Any], xp: ModuleType = np
) -> MetaState:
    """The last state of a run of ``settings``.

    ``config`` holds these settings as the folder's JSON has them.

    Raises
    ------
    CheckpointError
        if the checkpoint is damaged, or does not belong to such a run.
    """
    state, told = folder.load(config, rules_of(settings), xp), settings.training
    if state.iteration > told.iterations or state.meta.dtype != np.dtype(told.dtype):
        raise CheckpointError(
            f"{folder.checkpoint_path} is damaged: expected meta-step {told.iterations} or less in "
            f"{told.dtype}, got {state.iteration} in {state.meta.dtype}"
        )
    return state


def rules_of(settings: Settings) -> Rules:
    """The rules whose states a run carries."""
    return Rules(settings.outer, settings.algorithm.rule)


def settings_in(file: Path, stored: Mapping[str, Any]) -> Settings:
    """The settings ``stored`` in ``file``; an error names the file."""
    try:
        return Settings.from_dict(dict(stored))
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error


def _advance(
    training: MetaTraining,
    state: MetaState,
    folder: RunFolder,
    saving: Saving,
    progress: bool,
    end: int,
) -> Iterator[MetaState]:
    """Train until meta-step ``end``; yield the states to save."""
    from tqdm import tqdm

    saved = time.monotonic()
    started = saved - max((entry.get("seconds", 0.0) for entry in folder.metrics()), default=0.0)
    bar = tqdm(
        total=training.iterations,
        initial=state.iteration,
        unit="step",
        disable=None if progress else True,
        smoothing=0.05,
    )
    with (
        training.stepper() as step,
        bar,
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),
    ):
        while state.iteration < end:
            losses, first = [], state.iteration
            for _ in range(min(saving.every - first % saving.every, end - first)):
                state, loss = step(state)
                losses.append(loss)
            mean_loss = checked_mean(losses, first + 1)
            if not bool(np.isfinite(complex(state.meta.sum()))):
                raise DivergenceError(
                    f"a parameter is no longer finite at meta-step {state.iteration}"
                )
            now = time.monotonic()
            folder.append_metrics(
                {
                    "iteration": state.iteration,
                    "loss": mean_loss,
                    "epsilon": training.epsilon_at(state.iteration - 1),
                    "seconds": round(now - started, 3),
                    "peak_memory": memory.peak_memory(training.xp),
                }
            )
            bar.update(state.iteration - first)
            bar.set_postfix(loss=f"{mean_loss:.3g}", refresh=False)
            if now - saved >= saving.seconds or state.iteration == end:
                yield state
                saved = now
