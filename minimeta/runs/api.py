"""The way in from Python: experiments, training, loading and evaluation.

These functions stand at the root of the package, as ``minimeta.train`` and so
on. They put together what the other files of this folder do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.backend import device_module
from ..errors import CheckpointError, SettingsError
from ..fields import flags_of, made_from, refuse_unread
from ..losses import Loss
from ..objectives import Network, Objective, described
from ..tasks import EpisodeDistribution, FewShotImages, ImageClasses, TaskDistribution
from ..training.evaluation import Accuracy, Evaluation, score
from ..training.learner import Learner
from ..training.scoring import Scoring
from .experiment import Experiment
from .folder import RunFolder
from .presets import PRESETS, Preset
from .settings import Settings
from .task_settings import TaskData, fingerprint
from .train import Saving, open_run
from .train import train as train_in_folder

_EPISODE = "episode(rng, tasks, shots, queries, dtype, xp)"
Described = str | Preset | Settings | Experiment


def presets() -> dict[str, Preset]:
    """The papers' settings by name: each a text and ``settings``."""
    return dict(PRESETS)


def experiment(
    what: Described,
    *,
    tasks: TaskDistribution | None = None,
    test_tasks: EpisodeDistribution | None = None,
    network: Network | None = None,
    loss: Loss | None = None,
    data: str | os.PathLike | None = None,
    device: str | None = None,
    workers: int | None = None,
    **settings: Any,
) -> Experiment:
    """An experiment, which ``train`` runs.

    Parameters
    ----------
    what
        the name of a preset (``presets()`` lists them), settings, or an
        experiment to change.
    tasks, test_tasks
        tasks of your own in place of the preset's. ``tasks`` draws meta-batches
        (``TaskDistribution``). ``test_tasks`` draws unseen tasks
        (``EpisodeDistribution``), and is ``tasks`` by default. An attribute
        ``inputs`` of ``tasks``, (lowest, highest), gives the range of x.
    network, loss
        a network and a loss in place of the preset's. Layers and losses of your
        own must be registered (``LAYERS``, ``LOSSES``), so that the run folder
        can name them.
    data
        the folder of the images; by default ``MINIMETA_DATA``.
    device
        ``"cpu"`` or ``"gpu"``; by default ``MINIMETA_DEVICE``, else the CPU.
    workers
        the number of threads; by default as many as the work is worth.
    settings
        any setting, by the name of its flag on the command line, with "_" for
        "-": ``algorithm="fomaml", inner_lr=0.02, iterations=1000``.

    Raises
    ------
    SettingsError
        if a name is unknown, or the settings make no sense together.
    DeviceError
        if the device cannot be used.
    """
    before = what if isinstance(what, Experiment) else Experiment(_settings(what))
    if tasks is not None:
        _refuse_settings_of_tasks(before.settings, settings)
    settings |= _own_settings(before.settings, tasks, network, loss)
    own = before.own
    if tasks is not None or test_tasks is not None:
        own = _task_data(before, tasks, test_tasks)
    return Experiment(
        before.settings.changed(**settings) if settings else before.settings,
        before.data if data is None else os.fspath(data),
        before.xp if device is None and isinstance(what, Experiment) else device_module(device),
        before.workers if workers is None else workers,
        own,
    )


def train(
    what: Described,
    folder: str | os.PathLike,
    *,
    resume: bool = False,
    progress: bool | None = None,
    log_every: int = 10,
    checkpoint_seconds: float = 10.0,
    until: int | None = None,
    **changes: Any,
) -> Learner:
    """Meta-train in a run folder, and return the learner.

    Parameters
    ----------
    what, changes
        the experiment; ``experiment`` explains them.
    folder
        the folder of the run, which must not hold a run yet.
        ``minimeta.load(folder)`` gives the learner again, and
        ``minimeta.metrics(folder)`` its losses.
    resume
        continue the run in ``folder`` from its last checkpoint, or begin it if
        there is none. The end is the same to the bit, however often a run was
        interrupted. The settings must be those of the run. A larger
        ``iterations`` extends a run whose outer step size is constant.
    progress
        show a progress bar; by default on a terminal and in a notebook.
    log_every
        meta-steps per row of the metrics.
    checkpoint_seconds
        seconds between checkpoints.
    until
        stop at this meta-step, with a checkpoint.

    Raises
    ------
    CheckpointError
        if the folder holds a run and ``resume`` is False, or holds a run with
        other settings or a damaged file.
    DivergenceError
        if the loss or a parameter stops being finite.
    DataError, DeviceError, SettingsError, ShapeError
        if the experiment makes no sense, or its data are missing.
    """
    planned = experiment(what, **changes)
    begun = RunFolder(Path(folder)).config_path.exists()
    state = train_in_folder(
        planned,
        folder,
        resume=resume and begun,
        saving=Saving(log_every, checkpoint_seconds),
        progress=progress,
        until=until,
        # A preset's own number of iterations does not ask for an extension.
        extend="iterations" in changes or not isinstance(what, (str, Preset)),
    )
    return planned.learner(state)


def load(path: str | os.PathLike, *, device: str | None = None) -> Learner:
    """The learner in a run folder, or in a file of ``Learner.save``.

    No data set is needed.

    Raises
    ------
    CheckpointError
        if ``path`` holds no learner, or a damaged one.
    SettingsError
        if the run uses a class of your own that is not registered here.
    DeviceError
        if the device cannot be used.
    """
    xp = device_module(device)
    if not isinstance(path, (str, os.PathLike)):
        raise SettingsError(f"load needs the path of a run folder or a file, got {path!r}")
    if not Path(path).exists():
        raise CheckpointError(f"there is no run folder and no learner's file {path}")
    if not Path(path).is_dir():
        return Learner.read(path, xp)
    planned, state = open_run(path, xp=xp)
    return planned.learner(state)


def evaluate(
    what: Learner | str | os.PathLike,
    tasks: EpisodeDistribution | None = None,
    *,
    count: int = 1000,
    seed: int = 0,
    data: str | os.PathLike | None = None,
    device: str | None = None,
    workers: int | None = None,
    progress: bool = False,
    **scoring: Any,
) -> Accuracy | Evaluation:
    """Score a learner, or the run in a folder, on unseen tasks.

    The learner adapts to ``shots`` examples of each class and is scored on
    ``queries`` others. Two learners that are scored with one seed see the same
    tasks, so that ``first - second`` is a paired comparison.

    Parameters
    ----------
    what
        a learner, or the folder of a run.
    tasks
        a distribution of unseen tasks. By default a folder's run has its own.
    count
        the number of tasks.
    seed
        the seed of the tasks.
    data, device, workers
        as in ``experiment``; ``data`` and ``device`` are for a folder.
    progress
        show a progress bar.
    scoring
        ``shots``, ``steps``, ``size``, ``order`` and ``queries``, in place of
        the learner's.

    Returns
    -------
    Accuracy
        for classification: ``transductive`` and ``inductive``, each with
        ``values`` (one per task), ``mean`` and ``interval`` (95%).
    Evaluation
        for regression: ``values``, ``mean`` and ``interval`` of the loss after
        0, 1, .. inner steps.

    Raises
    ------
    SettingsError
        if a setting is unknown, or there are no tasks.
    DivergenceError
        if adaptation diverges on a task.
    CheckpointError, DataError, DeviceError
    """
    if isinstance(what, Learner):
        learner = what
        if tasks is None:
            raise SettingsError("a learner is scored on tasks: give evaluate(learner, tasks)")
    else:
        folder = os.fspath(data) if data is not None else None
        planned, state = open_run(what, folder, device_module(device))
        learner = planned.learner(state)
        tasks = planned.test_tasks if tasks is None else tasks
    _check_distribution(tasks, EpisodeDistribution, _EPISODE)
    flags = flags_of(learner.scoring) | scoring
    refuse_unread(Scoring, list(scoring), flags_of(learner.scoring))
    return score(
        learner,
        tasks,
        made_from(Scoring, flags, {}),
        count=count,
        seed=seed,
        workers=workers,
        progress=_bar if progress else iter,
    )


def _settings(what: Any) -> Settings:
    """The settings of a preset or of settings."""
    if isinstance(what, Preset):
        return what.settings
    if isinstance(what, Settings):
        return what
    if not isinstance(what, str):
        raise SettingsError(
            f"an experiment begins with the name of a preset, such as 'sine-maml', or with "
            f"settings, got {what!r}"
        )
    if what not in PRESETS:
        near = get_close_matches(what, PRESETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(PRESETS)}"
        raise SettingsError(f"unknown preset {what!r}: {hint}")
    return PRESETS[what].settings


def _refuse_settings_of_tasks(before: Settings, settings: dict[str, Any]) -> None:
    """Raise a SettingsError for settings that tasks of one's own replace."""
    task = before.task
    names = [flag for flag in settings if flag in flags_of(task)]
    if names:
        instead = "network=" if names[0] in task.model_settings else "tasks="
        raise SettingsError(
            f"{names[0]} is a setting of the preset's own tasks, which tasks= replaces: leave "
            f"{names[0]} out, and give {instead} what it should be"
        )


def _own_settings(before: Settings, tasks: Any, network: Any, loss: Any) -> dict[str, Any]:
    """The settings that tasks, a network and a loss of one's own change."""
    if tasks is None and network is None and loss is None:
        return {}
    for name, given, kind in (("network", network, Network), ("loss", loss, Loss)):
        if given is not None and not isinstance(given, kind):
            raise SettingsError(f"{name} must be a {kind.__name__}, got {given!r}")
    base = before.objective()
    model = described(Objective(network or base.network, loss or base.loss))
    if tasks is None:
        return {"model": model}
    _check_distribution(tasks, TaskDistribution, "sample(rng, tasks, schedule, dtype, xp)")
    low, high = getattr(tasks, "inputs", (-np.inf, np.inf))
    name = type(tasks).__name__
    return {
        "task": "own",
        "distribution": name,
        "inputs": (float(low), float(high)),
        "model": model,
    }


def _check_distribution(tasks: Any, protocol: type, method: str) -> None:
    """Raise a SettingsError if ``tasks`` are not what ``protocol`` says."""
    if isinstance(tasks, type):
        raise SettingsError(f"tasks must be an object: give {tasks.__name__}(), not the class")
    if isinstance(tasks, ImageClasses):
        raise SettingsError(
            "tasks must draw tasks: make them of images by FewShotImages(classes.images, ...)"
        )
    if not isinstance(tasks, protocol):
        base = "; a class with examples(rng, tasks, count) derives it from ExampleTasks"
        raise SettingsError(
            f"tasks must have a method {method}, which {type(tasks).__name__} lacks"
            + (base if hasattr(tasks, "examples") else "")
        )


def _task_data(before: Experiment, tasks: Any, test_tasks: Any) -> TaskData:
    """Tasks to train and to test on, of which at least one is one's own."""
    train_tasks = before.train_tasks if tasks is None else tasks
    test = train_tasks if test_tasks is None else test_tasks
    if test_tasks is not None:
        _check_distribution(test_tasks, EpisodeDistribution, _EPISODE)
    images = [each.images for each in (train_tasks, test) if isinstance(each, FewShotImages)]
    identity = fingerprint(*images) if len(images) == 2 else None
    return TaskData(train_tasks, test, identity)


def _bar(chunks: Iterable) -> Iterable:
    """The chunks of an evaluation behind a progress bar."""
    from tqdm.auto import tqdm

    return tqdm(list(chunks), desc="evaluating", unit=" chunks", leave=False)
