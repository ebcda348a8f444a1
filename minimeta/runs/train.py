"""Floor 6: a meta-training run in its folder, from its start or its last checkpoint to its end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays import memory
from ..errors import CheckpointError, DivergenceError, SettingsError
from ..training.meta_training import MetaState, MetaTraining, checked_mean
from .experiment import Experiment, Settings, build
from .folder import RunFolder
from .provenance import provenance


@dataclass(frozen=True)
class Saving:
    """How often: metrics every ``every`` meta-steps, a checkpoint when ``seconds`` have passed since the last one.

    Checkpoints fall on multiples of ``every``. None of this changes the numbers of a run.
    """

    every: int = 10
    seconds: float = 10.0

    def __post_init__(self) -> None:
        if self.every < 1 or not self.seconds >= 0:
            raise SettingsError(
                f"saving needs every >= 1 and seconds >= 0, got {self.every} and {self.seconds}"
            )


def train(
    settings: Settings,
    out: str | os.PathLike,
    *,
    resume: bool = False,
    data: str | None = None,
    xp: ModuleType = np,
    workers: int | None = None,
    saving: Saving = Saving(),
    progress: bool = False,
    until: int | None = None,
) -> MetaState:
    """Train as ``settings`` say, in the folder ``out``; with ``resume``, go on from the checkpoint there.

    The end is bit-identical however often the run was interrupted. ``until``: stop after so many meta-steps of the run, with
    a checkpoint; what is further on already stays.

    Raises
    ------
    DivergenceError
        with the meta-step, if the loss stops being finite; the last checkpoint before it stays.
    CheckpointError, DataError, SettingsError
    """
    folder = RunFolder(Path(out))
    if resume and settings_in(folder.config_path, folder.config()) != settings:
        raise CheckpointError(
            f"{out} was begun with other settings than those it is to be resumed with"
        )
    experiment = _build(settings, data, xp, workers)
    experiment.training.sample(
        0
    )  # what the tasks cannot serve is refused before anything is written
    with folder.held():
        if not resume:
            folder.create(settings.to_dict())
        config = folder.config()
        if resume and folder.begun:
            state = folder.load(config, xp)
            folder.clear_after(state.iteration)
            _check_same_images(folder, experiment)
        else:
            state = experiment.training.start()
            folder.save(state, config)
        last, end = state, min(settings.iterations if until is None else until, settings.iterations)
        if state.iteration < end:
            made = {"provenance": provenance(xp.__name__), "images": experiment.images}
            folder.append_metrics({"iteration": state.iteration} | made)
        try:
            for last in _advance(experiment.training, state, folder, saving, progress, end):
                folder.save(last, config)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped: the same command with --resume goes on from the last checkpoint in {out}"
            ) from None
    return last


def _check_same_images(folder: RunFolder, experiment: Experiment) -> None:
    """Refuse to go on with other images than those that a run was begun with, where its metrics tell."""
    begun = folder.facts().get("images")
    if begun not in (None, experiment.images):
        raise CheckpointError(
            f"{folder.path} was begun with other images: {begun}, not {experiment.images}"
        )


def open_run(
    out: str | os.PathLike, data: str | None = None, xp: ModuleType = np, workers: int | None = None
) -> tuple[Experiment, MetaState]:
    """The experiment and the last state in the folder ``out``."""
    folder = RunFolder(Path(out))
    config = folder.config()
    state = folder.load(config, xp)
    return _build(settings_in(folder.config_path, config), data, xp, workers), state


def settings_in(file: Path, stored: Mapping[str, Any]) -> Settings:
    """The settings that ``file`` holds; what is wrong with them is told with its name."""
    try:
        return Settings.from_dict(dict(stored))
    except SettingsError as error:
        raise SettingsError(f"{file}: {error}") from error


_built: ContextVar[dict[tuple, Experiment] | None] = ContextVar("_built", default=None)


@contextmanager
def built_once() -> Iterator[None]:
    """Within the block, ``train`` and ``open_run`` keep the last experiment, images and all, for the next of the same."""
    token = _built.set({})
    try:
        yield
    finally:
        _built.reset(token)


def _build(settings: Settings, data: str | None, xp: ModuleType, workers: int | None) -> Experiment:
    kept, key = _built.get(), (settings, data, xp, workers)
    if kept is None:
        return build(*key)
    if key not in kept:
        kept.clear()
        kept[key] = build(*key)
    return kept[key]


def _advance(
    training: MetaTraining,
    state: MetaState,
    folder: RunFolder,
    saving: Saving,
    progress: bool,
    end: int,
) -> Iterator[MetaState]:
    """Train until meta-step ``end``; give the states to be saved, the last one included."""
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
                    f"a parameter stopped being finite by meta-step {state.iteration}"
                )
            now = time.monotonic()
            folder.append_metrics(
                {
                    "iteration": state.iteration,
                    "loss": mean_loss,
                    "epsilon": training.epsilon_at(state.iteration - 1),
                    "seconds": round(now - started, 3),
                    "peak_memory": memory.peak_memory(),
                }
            )
            bar.update(state.iteration - first)
            bar.set_postfix(loss=f"{mean_loss:.3g}", refresh=False)
            if now - saved >= saving.seconds or state.iteration == end:
                yield state
                saved = now
