"""The way in from Python: experiments, training, loading and evaluation.

These functions stand at the root of the package, as ``minimeta.train`` and so
on. They put together what the other files of this folder do.
"""

from __future__ import annotations

import os
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.backend import device_module
from ..errors import CheckpointError, SettingsError
from ..fields import flags_of, made_from, refuse_unread
from ..losses import Loss
from ..objectives import Network, Objective, described
from ..tasks import EpisodeDistribution, FewShotImages, ImageClasses, TaskDistribution
from ..tasks.minibatches import check_counts, check_seed
from ..training.evaluation import Accuracy, Evaluation, score
from ..training.learner import Learner
from ..training.scoring import Scoring
from .bars import of_evaluation
from .experiment import Experiment
from .folder import RunFolder
from .presets import PRESETS, Preset
from .settings import Settings
from .task_settings import OwnTasks, TaskData, fingerprint
from .train import Saving, open_run
from .train import train as train_in_folder

_EPISODE = "episode(rng, tasks, shots, queries, dtype, xp)"
Described = str | Preset | Settings | Experiment


def presets() -> dict[str, Preset]:
    """The papers' settings by name: each a text and ``settings``."""
    return dict(PRESETS)


def experiment(
    base: Described,
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
    base
        the name of a preset (``presets()`` lists them), settings, or an
        experiment to change.
    tasks, test_tasks
        tasks of your own in place of the preset's. ``tasks`` draws meta-batches
        (``TaskDistribution``). ``test_tasks``, if given, draws the unseen tasks
        (``EpisodeDistribution``) in place of ``tasks``. An attribute ``inputs``
        of ``tasks``, (lowest, highest), gives the range of x.
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
    before = base if isinstance(base, Experiment) else Experiment(_settings(base))
    _refuse_replaced(before.settings, settings, tasks is not None, network is not None)
    if workers is not None:
        check_counts(workers=workers)
    own = before.own
    if tasks is not None:
        own = _task_data(tasks, test_tasks)
    elif test_tasks is not None:
        raise SettingsError(
            "test_tasks belong to tasks of your own: score a run on other tasks by "
            "evaluate(folder, tasks)"
        )
    settings |= _own_settings(before.settings, tasks, network, loss)
    changed = before.settings.changed(**settings) if settings else before.settings
    return Experiment(
        changed,
        before.data if data is None else _path("data", data),
        before.xp if device is None and isinstance(base, Experiment) else device_module(device),
        before.workers if workers is None else workers,
        own if isinstance(changed.task, OwnTasks) else None,
    )


def train(
    base: Described,
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
    base, changes
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
    planned = experiment(base, **changes)
    if not isinstance(resume, bool):
        raise SettingsError(f"resume must be True or False, got {resume!r}")
    check_counts(log_every=log_every)
    if not isinstance(checkpoint_seconds, Real) or not 0 <= checkpoint_seconds < np.inf:
        raise SettingsError(f"checkpoint_seconds must be 0 or more, got {checkpoint_seconds!r}")
    if until is not None and until != 0:
        check_counts(until=until)
    folder = _path("folder", folder)
    begun = os.path.lexists(RunFolder(Path(folder)).config_path)
    state = train_in_folder(
        planned,
        folder,
        resume=resume and begun,
        saving=Saving(log_every, checkpoint_seconds),
        progress=progress,
        until=until,
        # Iterations that nobody named do not ask for an extension.
        extend="iterations" in changes,
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
    path = _path("the place of a learner", path)
    if not os.path.lexists(path):
        raise CheckpointError(f"there is no run folder and no learner's file {path}")
    if not Path(path).is_dir():
        return Learner.read(path, xp)
    planned, state = open_run(path, xp=xp)
    return planned.learner(state)


def evaluate(
    learner: Learner | str | os.PathLike,
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
    learner
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
    check_counts(count=count)
    check_seed(seed)
    if workers is not None:
        check_counts(workers=workers)
    if isinstance(learner, Learner):
        if data is not None or device is not None:
            raise SettingsError("data and device are for the folder of a run, not for a learner")
        if tasks is None:
            raise SettingsError("a learner is scored on tasks: give evaluate(learner, tasks)")
    else:
        learner, tasks = _opened(learner, tasks, data, device)
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
        progress=of_evaluation(progress),
    )


def _settings(base: Any) -> Settings:
    """The settings of a preset or of settings."""
    if isinstance(base, Preset):
        return base.settings
    if isinstance(base, Settings):
        return base
    if not isinstance(base, str):
        raise SettingsError(
            f"an experiment begins with the name of a preset, such as 'sine-maml', or with "
            f"settings, got {base!r}"
        )
    if base not in PRESETS:
        near = get_close_matches(base, PRESETS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(PRESETS)}"
        raise SettingsError(f"unknown preset {base!r}: {hint}")
    return PRESETS[base].settings


def _refuse_replaced(
    before: Settings, settings: dict[str, Any], tasks: bool, network: bool
) -> None:
    """Raise a SettingsError for settings that arguments of ``experiment``
    replace."""
    replaced = ["model"]
    if tasks:
        replaced += ["task", "distribution", "inputs", *flags_of(before.task)]
    for name in [flag for flag in replaced if flag in settings and (tasks or network)]:
        of_model = name == "model" or name in before.task.model_settings
        raise SettingsError(
            f"{name} describes tasks or a network that your own replace: leave {name} out, and "
            f"give {'network=' if of_model else 'tasks='} what it should say"
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
    return {
        "task": "own",
        "distribution": type(tasks).__name__,
        "inputs": getattr(tasks, "inputs", (-np.inf, np.inf)),
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


def _task_data(tasks: Any, test_tasks: Any) -> TaskData:
    """Tasks of one's own to train and to test on."""
    _check_distribution(tasks, TaskDistribution, "sample(rng, tasks, schedule, dtype, xp)")
    test = tasks if test_tasks is None else test_tasks
    if test_tasks is not None:
        _check_distribution(test_tasks, EpisodeDistribution, _EPISODE)
    images = [each.images for each in (tasks, test) if isinstance(each, FewShotImages)]
    return TaskData(tasks, test, fingerprint(*images) if len(images) == 2 else None)


def _opened(
    path: Any, tasks: Any, data: Any, device: str | None
) -> tuple[Learner, EpisodeDistribution]:
    """The learner of the run in a folder, and the tasks to score it on."""
    path = _path("a learner or the folder of a run", path)
    if os.path.isfile(path):
        raise SettingsError(
            f"{path} is a file, and holds no tasks: give evaluate(minimeta.load(file), tasks)"
        )
    folder = None if data is None else _path("data", data)
    planned, state = open_run(path, folder, device_module(device))
    return planned.learner(state), planned.test_tasks if tasks is None else tasks


def _path(name: str, path: Any) -> str:
    """A path as text, which a file system can hold.

    Raises
    ------
    SettingsError
        if it is none.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(os.fspath(path)):
        raise SettingsError(f"{name} must be a path, got {path!r}")
    return str(os.fspath(path))
