"""One job of a sweep: a run in its folder, with the measurements of it.

A job's folder has more files than a run's (folder.py). result.json and
look-N.json, N the meta-step of a look, hold an object: ``settings`` and ``by``
of the job, ``result``, the object that ``measure`` returned, and
``measured_by``, the provenance of that. result.json also has ``looks``, the
results of the looks by their meta-step, and ``training``, the facts of the run
(``RunFolder.facts``). .job is the job's lock, and empty. .scored, while the run
is measured, holds the number of tasks that have been scored.
"""

from __future__ import annotations

import json
import os
import pickle
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, MinimetaError, SettingsError, reason_of
from ..files import (
    MEBIBYTE,
    locked,
    make_folder,
    remove_parts_of,
    write_new,
)
from .experiment import Experiment
from .folder import RunFolder, object_in
from .provenance import provenance
from .settings import Settings
from .sweep_progress import SCORED, Work, counted
from .task_settings import TaskData
from .train import Saving, settings_in, train

# measure(experiment, state, **by) -> a JSON object
Measure = Callable[..., dict[str, Any]]
# submit(arguments): calls ``attempt`` with each; yields indices with outcomes
Submit = Callable[[list[tuple]], Iterator[tuple[int, Any]]]

SAY_SO_AFTER = 5.0  # seconds of waiting for another process
_LARGEST = 1024 * MEBIBYTE  # bytes of a file of results
SAVING = Saving(10, 20)


@dataclass(frozen=True)
class Job:
    """One run of a sweep.

    ``name`` is the name of its folder. ``settings`` may be an experiment, whose
    own tasks are then ``own``. ``looks`` are meta-steps after which the
    run is measured too. The end is always measured, and is not a look. ``by``
    holds keyword arguments of ``measure``, such as a number of test tasks; they
    must fit into JSON. A result that was measured with other arguments is
    refused. ``work`` is for the progress bar.

    Raises
    ------
    SettingsError
        if a look is not one of the run's meta-steps.
    """

    name: str
    settings: Settings | Experiment
    looks: tuple[int, ...] = ()
    by: Mapping[str, Any] = field(default_factory=dict, hash=False)
    work: Work = Work()
    own: TaskData | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        if isinstance(self.settings, Experiment):
            planned = self.settings
            if planned.data is not None or planned.xp is not np or planned.workers is not None:
                raise SettingsError(
                    "a job runs on one thread of the CPU: give data to sweep, and neither data, "
                    "device nor workers to the experiment of a job"
                )
            object.__setattr__(self, "own", self.settings.own)
            object.__setattr__(self, "settings", self.settings.settings)
        end = self.settings.training.iterations
        if beyond := [look for look in self.looks if not 0 < look <= end]:
            raise SettingsError(
                f"a look of {self.name} must be between 1 and its {end} meta-steps, got {beyond[0]}"
            )
        object.__setattr__(self, "looks", tuple(sorted(set(self.looks) - {end})))


class Finished(NamedTuple):
    """The outcome of ``measure`` at the end of a run, and at each look.

    ``looks`` is keyed by the meta-step. ``training`` holds the facts in the
    run's metrics: seconds, peak memory, provenance and images. The peak memory
    of a Dask worker covers all its jobs so far. ``measured_by`` is the
    provenance of ``result``; None in older result files.
    """

    result: dict[str, Any]
    looks: dict[int, dict[str, Any]]
    training: dict[str, Any]
    measured_by: dict[str, Any] | None = None


class Failure(NamedTuple):
    """Why a job has no result.

    ``error`` is set if it is not one of minimeta's own errors; its notes hold
    the traceback.
    """

    told: str
    error: BaseException | None = None


def run_job(
    job: Job, path: Path, measure: Measure, data: str | None, saving: Saving = SAVING
) -> dict[str, Any]:
    """Complete a job and return the contents of its result file."""
    try:
        make_folder(path)
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be used as a run folder: {reason_of(error)}"
        ) from error
    with _alone(path / ".job"):
        for name in ("result.json", *(f"look-{look}.json" for look in job.looks)):
            remove_parts_of(path / name)
        done = result_of(job, path)
        if done is not None:  # by another sweep, or a process that was believed dead
            return done

        experiment = Experiment(job.settings, data, workers=1, own=job.own)

        def measured(iteration: int) -> dict[str, Any]:
            return _measured(job, path, measure, experiment, saving, iteration)

        looks = {str(look): _look(job, path, measured, look) for look in job.looks}
        result = measured(job.settings.training.iterations)
        contents = {"result": result, "looks": looks, "training": RunFolder(path).facts()}
        return _write(path / "result.json", job, contents)


def attempt(job: Job, path: Path, *how: Any) -> dict[str, Any] | Failure:
    """``run_job`` in another process, which returns errors as results."""
    from tqdm import tqdm

    # tqdm's own lock is a semaphore, which a killed process would leave behind.
    tqdm.set_lock(RLock())
    return attempt_here(job, path, *how)


def attempt_here(job: Job, path: Path, *how: Any) -> dict[str, Any] | Failure:
    """``run_job``, which returns errors as results."""
    try:
        return run_job(job, path, *how)
    except MinimetaError as error:
        return Failure(str(error) or type(error).__name__)
    except Exception as error:  # an error of a measure fails only its job; the sweep raises it last
        told = f"{type(error).__name__}: {error}"
        return Failure(told, portable(error, told))


def portable(error: Exception, told: str) -> Exception:
    """The error with its traceback as a note.

    An error that cannot be pickled becomes a RuntimeError with the same
    message.
    """
    note = f"in the run's own process:\n{traceback.format_exc()}"
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # the author of an exception decides how it is pickled
        error = RuntimeError(told)
    error.add_note(note)
    return error


def _look(
    job: Job, path: Path, measured: Callable[[int], dict[str, Any]], iteration: int
) -> dict[str, Any]:
    """The result of a look: stored when the run was there, or measured now."""
    file, remedy = path / f"look-{iteration}.json", f"delete {path} to compute this job again"
    contents = object_in(file, _LARGEST, remedy)
    if contents is None:
        contents = _write(file, job, {"result": measured(iteration)})
    with _whole(file, remedy):
        _check_of(job, file, contents)
        return _object(contents["result"])


def _measured(
    job: Job, path: Path, measure: Measure, experiment: Experiment, saving: Saving, iteration: int
) -> dict[str, Any]:
    """Train until ``iteration`` and measure."""
    begun = os.path.lexists(RunFolder(path).config_path)
    state = train(experiment, path, resume=begun, saving=saving, until=iteration)
    if state.iteration != iteration:
        raise SettingsError(
            f"{path} is already at meta-step {state.iteration} and cannot be measured at "
            f"{iteration}: looks cannot be added to a run"
        )
    file, how = path / SCORED, {}
    if "progress" in signature(measure).parameters:
        how["progress"] = partial(counted, file)
    try:
        measured = measure(experiment, state, **job.by, **how)
    finally:
        file.unlink(missing_ok=True)
    if not isinstance(measured, dict):
        raise TypeError(f"measure must return a JSON object, got {type(measured).__name__}")
    return measured


def _write(path: Path, job: Job, contents: dict[str, Any]) -> dict[str, Any]:
    """Write ``contents`` with their settings and provenance to a file.

    Return the contents as a reader of the file will see them.
    """
    contents = {
        "settings": job.settings.to_dict(),
        "by": dict(job.by),
        "measured_by": provenance(),
    } | contents
    try:
        text = json.dumps(contents, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise type(error)(f"measure must return values that JSON can hold: {error}") from error
    try:
        write_new(path, lambda file: file.write(text.encode()))
    except FileExistsError as error:  # where a system has no locks
        raise CheckpointError(
            f"{path} was written by another process: the same call takes its result"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {reason_of(error)}") from error
    return json.loads(text)


@contextmanager
def _whole(file: Path, remedy: str) -> Iterator[None]:
    """Raise a CheckpointError if contents of ``file`` are missing or wrong.

    The error names the file and the ``remedy``.
    """
    try:
        yield
    except SettingsError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{file} is damaged: {type(error).__name__}: {error}; {remedy}"
        ) from error


def _check_of(job: Job, file: Path, contents: dict[str, Any]) -> None:
    """Raise a SettingsError if a file has other settings or measurements."""
    if settings_in(file, contents["settings"]).flags() != job.settings.flags():
        raise SettingsError(
            f"{file} belongs to a run with other settings: name another folder for this sweep"
        )
    if contents["by"] != json.loads(json.dumps(dict(job.by))):
        raise SettingsError(
            f"{file} was measured by {json.dumps(contents['by'])}, not "
            f"{json.dumps(dict(job.by))}: name another folder for this sweep, or delete "
            "result.json to measure the end of the run again"
        )


def result_of(job: Job, path: Path) -> dict[str, Any] | None:
    """The contents of a finished job's result file, with the job's looks."""
    file, remedy = path / "result.json", "delete it to finish the job again"
    contents = object_in(file, _LARGEST, remedy)
    if contents is None:
        return None
    with _whole(file, remedy):
        finished_of(contents)
        _check_of(job, file, contents)
    lacking = [look for look in job.looks if str(look) not in contents["looks"]]
    if lacking:
        raise SettingsError(
            f"{file} lacks the look after {lacking[0]} meta-steps: "
            "name another folder for this sweep"
        )
    return contents | {"looks": {str(look): contents["looks"][str(look)] for look in job.looks}}


def finished_of(contents: dict[str, Any]) -> Finished:
    looks = {int(look): _object(result) for look, result in contents["looks"].items()}
    result, training = _object(contents["result"]), _object(contents["training"])
    return Finished(result, looks, training, contents.get("measured_by"))


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"an object is expected, got {value!r}")
    return value


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until this process holds ``lock``; warn if that takes long."""
    since, said = time.monotonic(), False
    while True:
        with ExitStack() as stack:
            try:
                alone = stack.enter_context(locked(lock))
            except OSError as error:
                raise CheckpointError(f"{lock} cannot be a lock: {reason_of(error)}") from error
            if alone:
                yield
                return
        if not said and time.monotonic() - since > SAY_SO_AFTER:
            said = True
            warnings.warn(
                f"another process is computing {lock.parent}: waiting for its result", stacklevel=1
            )
        time.sleep(0.2)
