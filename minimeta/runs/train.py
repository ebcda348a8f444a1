"""A meta-training run in its folder, new or from its last checkpoint."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays import memory
from ..arrays.backend import Array
from ..errors import (
    CheckpointError,
    DivergenceError,
    MinimetaError,
    SettingsError,
    one_line,
)
from ..training.meta_training import MetaState, MetaTraining, checked_mean
from ..training.states import Rules, check_finite
from .bars import hidden
from .experiment import Experiment
from .folder import RunFolder, digest
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
    progress: bool | None = False,
    until: int | None = None,
    extend: bool = True,
) -> MetaState:
    """Train in the folder ``out``, from its checkpoint with ``resume``.

    The result is bit-identical however often the run was interrupted. With
    ``until``, the run stops at that meta-step, with a checkpoint. A run that is
    already beyond it does not change. ``progress`` shows a bar; None shows it
    on a terminal and in a notebook.

    With ``resume`` the settings may ask for more ``iterations`` than the run
    was started with, if its outer step size is constant. The run is extended,
    and has the bits of a run that was started with as many. Without ``extend``
    more iterations are refused.

    Ctrl-C saves a checkpoint at the meta-step reached. A second Ctrl-C stops at
    once.

    Raises
    ------
    DivergenceError
        if a loss, a parameter or a rule's state is no longer finite; names the
        meta-step. The last checkpoint before it is kept.
    CheckpointError, DataError, SettingsError
    """
    folder, settings = RunFolder(Path(out)), experiment.settings
    if resume:
        config = folder.config()
        _check_resumed(folder, settings_in(folder.config_path, config), settings, extend)
        if folder.begun:
            folder.check_checkpoint(config)
    else:
        folder.check_new()
    # Data that do not suffice, or do not fit, are refused before anything is
    # written.
    experiment.check()
    with folder.held():
        state = _resumed(experiment, folder, extend) if resume else _started(experiment, folder)
        end = settings.training.iterations
        end = end if until is None else min(until, end)
        return _trained(experiment, state, folder, saving, progress, end)


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The flags with other values in the settings of a run than here."""
    names = dict.fromkeys([*after, *before])
    return [flag for flag in names if before.get(flag) != after.get(flag)]


def told_differences(
    folder: RunFolder, flags: Sequence[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> str:
    """The refusal of a run: both values of each flag, and the remedy if the run
    is only shorter."""
    told = ", ".join(
        f"{flag} is {one_line(before.get(flag))} in the run, {one_line(after.get(flag))} here"
        for flag in flags
    )
    told = f"{folder.path} was started with other settings: {told}"
    wanted = after.get("iterations", 0)
    if list(flags) != ["iterations"] or wanted < before.get("iterations", 0):
        return told
    return (
        f"{told}; --iterations {wanted} (in Python iterations={wanted}) extends a run whose outer "
        "step size is constant"
    )


def _check_resumed(folder: RunFolder, former: Settings, settings: Settings, extend: bool) -> None:
    """Raise a CheckpointError if a run of ``former`` cannot go on so."""
    before, after = former.flags(), settings.flags()
    other = differing(before, after)
    if not other:
        return
    old, new = before["iterations"], after["iterations"]
    if other != ["iterations"] or new < old or not extend:
        raise CheckpointError(told_differences(folder, other, before, after))
    if settings.outer.lr != settings.training.epsilon_final:
        raise CheckpointError(
            f"{folder.path} cannot be extended from {old} to {new} meta-steps: its outer step size "
            f"changes over the whole run, from {settings.outer.lr} to "
            f"{settings.training.epsilon_final}, so a longer run differs from its first meta-step; "
            "train a new run"
        )


def _started(experiment: Experiment, folder: RunFolder) -> MetaState:
    """The first state of a new run, saved.

    A run that cannot begin, such as for lack of memory, leaves no files.
    """
    settings = experiment.settings
    folder.create(settings.to_dict())
    try:
        state = experiment.training.start()
        folder.save(state, folder.config(), rules_of(settings))
    except BaseException:
        folder.discard()
        raise
    return state


def _resumed(experiment: Experiment, folder: RunFolder, extend: bool) -> MetaState:
    """The state to continue from; metrics after this state are dropped.

    A run that was killed before its first checkpoint begins anew. A run of
    fewer meta-steps is extended.
    """
    settings, config = experiment.settings, folder.config()
    former = settings_in(folder.config_path, config)
    _check_resumed(folder, former, settings, extend)
    longer = settings.training.iterations > former.training.iterations
    if not folder.begun:
        if longer:
            folder.replace_config(settings.to_dict())
        state = experiment.training.start()
        folder.save(state, folder.config(), rules_of(settings))
        return state
    state = load(folder, former, config, experiment.xp)
    folder.check_metrics(config, state.iteration)
    begun = folder.facts(state.iteration).get("images")
    if begun not in (None, experiment.images):
        raise CheckpointError(
            f"{folder.path} was started with other images: {begun}, not {experiment.images}"
        )
    folder.clear_after(state.iteration, former.training.iterations)
    if longer:
        _extend(folder, state, config, settings)
    return state


def _extend(
    folder: RunFolder, state: MetaState, config: Mapping[str, Any], settings: Settings
) -> None:
    """Replace ``config``, the run's old settings, by ``settings``.

    A kill before the new config.json is in place leaves the old run, after that
    the new run: the checkpoint belongs to both, until the next one is saved.
    """
    longer = settings.to_dict()
    old = settings_in(folder.config_path, config).training.iterations
    told = {"from": old, "to": settings.training.iterations, "config": config}
    folder.append_metrics({"iteration": state.iteration, "event": "extended", "extended": told})
    folder.save(state, config, rules_of(settings), becoming=longer)
    folder.replace_config(longer)


def _trained(
    experiment: Experiment,
    state: MetaState,
    folder: RunFolder,
    saving: Saving,
    progress: bool | None,
    end: int,
) -> MetaState:
    """The state at meta-step ``end``, or ``state`` if it is beyond."""
    config, rules, last = folder.config(), rules_of(experiment.settings), state
    try:
        with _interrupt_noted() as interrupted:
            if state.iteration < end:
                folder.append_metrics(_beginning(experiment, state.iteration, config))
            for last in _advance(
                experiment.training, state, folder, saving, progress, end, interrupted
            ):
                folder.save(last, config, rules)
        if interrupted.is_set():
            raise KeyboardInterrupt
    except DivergenceError as error:
        rows = folder.metrics()
        told = {"event": "diverged", "told": str(error)}
        folder.append_metrics({"iteration": rows[-1]["iteration"] if rows else 0} | told)
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: --resume (in Python resume=True) continues from the last checkpoint in "
            f"{folder.path}"
        ) from None
    return last


def _beginning(experiment: Experiment, iteration: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """The row of metrics before the first meta-step of a process."""
    return {
        "iteration": iteration,
        "event": "continued" if iteration else "begun",
        "config": digest(config),
        "provenance": provenance(experiment.xp.__name__),
        "images": experiment.images,
    }


@contextmanager
def _interrupt_noted() -> Iterator[Event]:
    """An event that Ctrl-C sets; a second Ctrl-C interrupts as usual.

    Only the main thread can do this, and only where Ctrl-C raises
    KeyboardInterrupt. Elsewhere the event is never set.
    """
    noted = Event()
    default = signal.default_int_handler
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not default:
        yield noted
        return

    def note(number: int, frame: Any) -> None:
        if noted.is_set():
            default(number, frame)
        noted.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, default)


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
    folder.check_checkpoint(config)
    state, end = folder.load(config, rules_of(settings), xp), settings.training.iterations
    if state.iteration > end:
        raise CheckpointError(
            f"{folder.checkpoint_path} is damaged: expected meta-step {end} or less, "
            f"got {state.iteration}"
        )
    return state


def rules_of(settings: Settings) -> Rules:
    """The rules whose states a run carries, and the shapes of these states.

    No data are needed: the shapes are those of fresh meta-parameters.

    Raises
    ------
    SettingsError
        if the meta-parameters cannot be made, such as for lack of memory.
    """
    objective, dtype = settings.objective(), np.dtype(settings.training.dtype)
    memory.refuse_beyond_memory(objective.size, dtype.itemsize)
    algorithm = settings.prepared(objective)
    try:
        meta = algorithm.init(objective, np.random.default_rng(0), dtype)
        return Rules.of(settings.outer, algorithm, objective, meta)
    except (ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, MinimetaError):
            raise
        told = f"{type(error).__name__}: {error}"
        raise SettingsError(
            f"the meta-parameters of these settings cannot be made: {told}"
        ) from error


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
    progress: bool | None,
    end: int,
    interrupted: Event,
) -> Iterator[MetaState]:
    """Train until meta-step ``end``, or the step at which ``interrupted`` is
    set; yield the states to save."""
    saved = time.monotonic()
    started = saved - max((row.get("seconds", 0.0) for row in folder.metrics()), default=0.0)
    with (
        training.stepper() as step,
        _bar(training, state, progress) as bar,
        np.errstate(over="ignore", invalid="ignore", divide="ignore"),
    ):
        stopping = state.iteration >= end
        while not stopping:
            first = state.iteration
            count = min(saving.every - first % saving.every, end - first)
            state, losses = _steps(step, state, count, interrupted)
            mean_loss = checked_mean(losses, first + 1)
            check_finite(state)
            now = time.monotonic()
            folder.append_metrics(_row(training, state, first, mean_loss, now - started))
            bar.update(state.iteration - first)
            bar.set_postfix(loss=f"{mean_loss:.3g}", refresh=False)
            stopping = state.iteration == end or interrupted.is_set()
            if now - saved >= saving.seconds or stopping:
                yield state
                saved = now


def _bar(training: MetaTraining, state: MetaState, progress: bool | None) -> Any:
    """A progress bar over the meta-steps of the run."""
    from tqdm.auto import tqdm

    return tqdm(
        total=training.iterations,
        initial=state.iteration,
        unit="step",
        disable=hidden(progress),
        smoothing=0.05,
    )


def _steps(
    step: Callable[[MetaState], tuple[MetaState, Array]],
    state: MetaState,
    count: int,
    interrupted: Event,
) -> tuple[MetaState, list[Array]]:
    """The state and the losses after ``count`` meta-steps, or after the step at
    which ``interrupted`` is set."""
    losses: list[Array] = []
    for _ in range(count):
        state, loss = step(state)
        losses.append(loss)
        if interrupted.is_set():
            break
    return state, losses


def _row(
    training: MetaTraining, state: MetaState, first: int, loss: float, seconds: float
) -> dict[str, Any]:
    """The row of losses of the meta-steps from ``first``, counted from 0."""
    return {
        "iteration": state.iteration,
        "loss": loss,
        "epsilon": training.epsilon_at(state.iteration - 1),
        "seconds": round(seconds, 3),
        "peak_memory": memory.peak_memory(training.xp),
        "steps": state.iteration - first,
    }
