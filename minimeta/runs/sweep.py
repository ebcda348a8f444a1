"""Many meta-training runs as one: each in its folder, resumed after any kill.

A job is a name and settings. ``sweep`` trains each job in ``folder/name``,
which is an ordinary run folder. At the end, and at the looks that the job asks
for, it passes the experiment and its state to ``measure``. It writes the
outcome to ``folder/name/result.json``, and this file completes the job. A
repeated call reads this file, and computes only the missing results; an
interrupted run continues from its last checkpoint. A run's numbers depend
neither on the number of processes nor on interruptions.

jobs.py tells the files of a job.

Each job runs in a fresh process of this machine, with one thread. With
``scheduler``, jobs run on the workers of a Dask cluster instead, which must see
the same folder (and the same data). If a worker dies, the next worker that
takes its job resumes it from the checkpoint.

Several sweeps may share a folder and its jobs. A process that finds a job
locked waits for the lock, then takes the result of the other process. So no job
is computed twice where all processes see each other's locks (flock): on one
machine, and on machines whose file system passes locks on. Windows has no such
locks: use one sweep at a time per folder there.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ..arrays.threads import available_cores
from ..errors import CheckpointError, SettingsError, SweepError, one_line
from ..files import (
    make_folder,
)
from .cluster import on_cluster
from .folder import RunFolder
from .jobs import (
    SAVING,
    Failure,
    Finished,
    Job,
    Measure,
    Submit,
    attempt,
    attempt_here,
    finished_of,
    result_of,
    run_job,
)
from .processes import Died, fresh_processes
from .settings import Settings
from .sweep_progress import Work, watched
from .train import Saving, load, settings_in

__all__ = ["Finished", "Job", "Measure", "Work", "run_job", "sweep"]


def sweep(
    jobs: Sequence[Job],
    folder: str | os.PathLike,
    measure: Measure,
    *,
    data: str | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
    progress: bool | None = False,
    saving: Saving = SAVING,
) -> dict[str, Finished]:
    """Train and measure every job; return the outcomes by name.

    The outcomes are in the order of ``jobs``. ``measure(experiment, state,
    **by)`` gets the job's experiment, whose data are loaded once, the state
    that training has reached, and the job's ``by``. If ``measure`` has a
    parameter ``progress``, it also gets a function to pass on to ``evaluate``,
    by which the progress bar counts the scored tasks. Another process must be
    able to import ``measure``. The workers of a cluster also get the modules in
    its folder. ``data`` is the folder of the images. ``processes`` defaults to
    the number of cores. With 0 the jobs run in this process, one after another;
    then ``measure`` may be any function, such as one of a notebook.
    ``scheduler`` is the address of a Dask scheduler, ``tcp://HOST:PORT``, which
    replaces local processes. ``saving`` sets how often runs write metrics and
    checkpoints. ``progress`` shows a bar; None shows it on a terminal and in a
    notebook.

    Raises
    ------
    SweepError
        if jobs failed, once all other jobs are done; names each job and the
        reason.
    SettingsError
        if two jobs share a name, or a name cannot be a folder's; if other
        processes cannot import ``measure``; if a folder holds a run with other
        settings, other arguments of ``measure`` or without these looks; or if
        runs of one task used different images.
    CheckpointError
        if a file of a job is damaged.
    KeyboardInterrupt
        on Ctrl-C, at once; jobs that run on this machine are stopped.
    """
    root = Path(folder).absolute()  # a worker may have another working directory
    data = None if data is None else str(Path(data).absolute())
    if not scheduler and processes != 0:
        _check_importable(measure, jobs)
    try:
        make_folder(root)
    except OSError as error:
        raise SettingsError(f"{root} cannot be used as a folder of runs: {error}") from error
    _check(jobs, root)
    results = {job.name: result_of(job, root / job.name) for job in jobs}
    _check_images(jobs, results)
    missing = [job for job in jobs if results[job.name] is None]
    failures: dict[str, Failure] = {}
    try:
        with watched(jobs, root, progress), _submitter(scheduler, processes) as submit:
            for index, outcome in submit(
                [(job, root / job.name, measure, data, saving) for job in missing]
            ):
                kept = failures if isinstance(outcome, Failure) else results
                kept[missing[index].name] = outcome
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"stopped: the same call continues the sweep from the checkpoints in {root}"
        ) from None
    if failures:
        _raise(failures, len(jobs))
    _check_images(jobs, results)
    return {job.name: finished_of(results[job.name]) for job in jobs}


def _raise(failures: dict[str, Failure], count: int) -> None:
    """Raise one SweepError; its cause holds the unexpected errors."""
    told = "\n".join(
        f"  {one_line(f'{name}: {failure.told}')}" for name, failure in failures.items()
    )
    errors = [failure.error for failure in failures.values() if failure.error is not None]
    cause = (
        errors[0]
        if len(errors) == 1
        else BaseExceptionGroup("in these runs", errors)
        if errors
        else None
    )
    raise SweepError(
        f"{len(failures)} of {count} runs failed; the results of the others are kept:\n{told}"
    ) from cause


def _check_images(jobs: Sequence[Job], results: Mapping[str, dict[str, Any] | None]) -> None:
    """Raise a SettingsError if runs of one task used different images."""
    of_task: dict[str, dict[str, str]] = {}
    for job in jobs:
        contents = results[job.name]
        own = job.own is not None  # each with images of its own
        if contents is not None and not own and (images := contents["training"].get("images")):
            task = job.settings.to_dict()["task"]["type"]
            of_task.setdefault(task, {})[json.dumps(images)] = job.name
    for seen in of_task.values():
        if len(seen) > 1:
            told = "; ".join(f"{name}: {images}" for images, name in seen.items())
            raise SettingsError(
                f"runs used different images: name another folder for this sweep ({told})"
            )


def _check(jobs: Sequence[Job], root: Path) -> None:
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(
            f"jobs of a sweep need different names: {', '.join(twice)} occurs more than once"
        )
    for job in jobs:
        if Path(job.name).name != job.name or not job.name.strip("."):
            raise SettingsError(f"a job's name must be the name of a folder, got {job.name!r}")
        run = RunFolder(root / job.name)
        begun = os.path.lexists(run.config_path)
        if begun and settings_in(run.config_path, run.config()).flags() != job.settings.flags():
            raise SettingsError(
                f"{run.path} holds a run with other settings: name another folder for this sweep"
            )
        if run.begun and not os.path.lexists(run.path / "result.json"):
            _check_checkpoint(run, job.settings)


def _check_checkpoint(run: RunFolder, settings: Settings) -> None:
    """Raise a CheckpointError if the run cannot continue."""
    try:
        load(run, settings, run.config())
    except CheckpointError as error:
        raise CheckpointError(f"{error}; delete {run.path} to compute this job again") from error


@contextmanager
def _submitter(scheduler: str | None, processes: int | None) -> Iterator[Submit]:
    """A function that calls ``attempt`` with each of the given arguments.

    It yields the index of each call with its outcome, as calls end.
    """
    if processes is not None and processes < 0:
        raise SettingsError(f"processes must be 1 or more, or 0 for this process, got {processes}")
    if scheduler:
        chosen = on_cluster(scheduler)
    elif processes == 0:
        chosen = nullcontext(_one_after_another)
    else:
        chosen = _on_this_machine(processes or available_cores())
    with chosen as submit:
        yield submit


def _one_after_another(arguments: list[tuple]) -> Iterator[tuple[int, Any]]:
    for index, each in enumerate(arguments):
        yield index, attempt_here(*each)


def _check_importable(measure: Measure, jobs: Sequence[Job]) -> None:
    """Raise a SettingsError if fresh processes cannot import ``measure``, or a
    class in the settings of ``jobs``."""
    try:
        packed = pickle.dumps((measure, *jobs))
    except Exception as error:  # an object decides how it is pickled
        why = f"{type(error).__name__}: {error}"
    else:
        program = getattr(sys.modules["__main__"], "__file__", "")  # of stdin: no file
        if os.path.isfile(program) or b"__main__" not in packed:
            return
        why = "measure or a class of the jobs is defined in a notebook or an interactive session"
    raise SettingsError(
        f"other processes cannot import this sweep ({why}): put measure and the classes at the top "
        "level of a module file, or call sweep with processes=0, which runs the jobs in this "
        "process"
    )


@contextmanager
def _on_this_machine(processes: int) -> Iterator[Submit]:
    with fresh_processes(processes) as calls:

        def submit(arguments: list[tuple]) -> Iterator[tuple[int, Any]]:
            for index, outcome in calls(attempt, arguments):
                yield index, Failure(outcome.how) if isinstance(outcome, Died) else outcome

        yield submit
