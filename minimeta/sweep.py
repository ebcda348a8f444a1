"""Floor 7: many meta-training runs as one: each in its folder, none computed twice, gone on with after any kill.

A job is a name and settings. ``sweep`` trains each in ``folder/name``, a run folder like any other, hands that to
``measure`` at the end (and on the way, where the job asks for looks), and writes what comes back to
``folder/name/result.json``. That file ends the job: called again, a sweep reads it and computes only what is missing, a
begun run from its last checkpoint. A run's numbers depend neither on the number of processes nor on how often it stopped.

Jobs go to processes of this machine, one thread each; or, with ``scheduler``, to the workers of a Dask cluster, which must
see the same folder (and the same data). A worker that dies loses its place, not its work: the next one to take the job goes
on from the checkpoint, and waits until no other process holds the job's lock.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

from .checkpoint import RunFolder
from .errors import CheckpointError, MinimetaError, SettingsError, SweepError
from .experiment import Settings
from .files import locked, write_atomically
from .host import available_cores
from .run import Saving, train

Measure = Callable[[Path, str | None], dict[str, Any]]  # run folder, data folder -> a JSON object


@dataclass(frozen=True)
class Job:
    """One run of a sweep. ``name`` is its folder's; ``looks``: after these meta-steps it is measured as well."""

    name: str
    settings: Settings
    looks: tuple[int, ...] = ()


class Finished(NamedTuple):
    """What ``measure`` gave at the end of a run, and at each look, by the number of meta-steps; ``training``: what its last
    metrics tell (seconds, peak memory, what produced it)."""

    result: dict[str, Any]
    looks: dict[int, dict[str, Any]]
    training: dict[str, Any]


def sweep(
    jobs: Sequence[Job],
    folder: str | os.PathLike,
    measure: Measure,
    *,
    data: str | None = None,
    processes: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> dict[str, Finished]:
    """Train and measure every job; what ``measure`` gave, by name, in the order of ``jobs``.

    ``measure`` is a function that another process can import. ``data`` is where images are; ``processes`` defaults to the
    number of cores; ``scheduler`` is a Dask scheduler's address, ``tcp://HOST:PORT``, instead of local processes.

    Raises
    ------
    SweepError
        at the end, when all jobs that can finish have, if some failed: names each and says why.
    SettingsError
        if two jobs share a name, a name is no folder's, or a folder holds a run of other settings.
    """
    root = Path(folder).absolute()  # a worker may have another working directory
    _check(jobs, root)
    results = {job.name: _result(root / job.name) for job in jobs}
    missing = [job for job in jobs if results[job.name] is None]
    failures: dict[str, BaseException] = {}
    with _watched(jobs, root, progress), _submitter(scheduler, processes or available_cores()) as submit:
        for job, outcome in submit([(job, root / job.name, measure, data) for job in missing]):
            if isinstance(outcome, BaseException):
                failures[job.name] = outcome
            else:
                results[job.name] = outcome
    if failures:
        told = "\n".join(f"  {name}: {error or type(error).__name__}" for name, error in failures.items())
        raise SweepError(f"{len(failures)} of {len(jobs)} runs failed; the others are done and kept:\n{told}")
    return {job.name: _finished(results[job.name]) for job in jobs}


def run_job(job: Job, path: Path, measure: Measure, data: str | None) -> dict[str, Any]:
    """One job from wherever it stands to its end; the contents of its result file."""
    path.mkdir(parents=True, exist_ok=True)
    with _alone(path / ".job"):
        done = _result(path)
        if done is not None:  # by a process that was taken for dead
            return done
        looks = {str(look): _look(job, path, measure, data, look) for look in sorted(job.looks)}
        result = _look(job, path, measure, data, job.settings.iterations)
        contents = {
            "settings": job.settings.to_dict(),
            "result": result,
            "looks": looks,
            "training": RunFolder(path).facts(),
        }
        return _write(path / "result.json", contents)


def _look(job: Job, path: Path, measure: Measure, data: str | None, iteration: int) -> dict[str, Any]:
    """Train until ``iteration`` and measure; or read what was measured there."""
    file = path / f"look-{iteration}.json"
    if file.exists():
        return json.loads(file.read_text())
    begun = RunFolder(path).config_path.exists()
    state = train(job.settings, path, resume=begun, data=data, workers=1, saving=Saving(100, 20), until=iteration)
    if state.iteration != iteration:
        raise SettingsError(
            f"{path} is at meta-step {state.iteration} already and cannot be measured at {iteration}: looks cannot be added"
        )
    return _write(file, measure(path, data))


def _write(path: Path, contents: dict[str, Any]) -> dict[str, Any]:
    """To a file; the same as a reader of it will see them, no more precise."""
    text = json.dumps(contents, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    return json.loads(text)


def _finished(contents: dict[str, Any]) -> Finished:
    looks = {int(look): result for look, result in contents["looks"].items()}
    return Finished(contents["result"], looks, contents["training"])


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Wait until this process alone holds ``lock``."""
    while True:
        with locked(lock) as alone:
            if alone:
                yield
                return
        time.sleep(0.2)


def _check(jobs: Sequence[Job], root: Path) -> None:
    names = [job.name for job in jobs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"jobs of a sweep need names of their own: {', '.join(twice)} stands more than once")
    for job in jobs:
        if Path(job.name).name != job.name or not job.name.strip("."):
            raise SettingsError(f"a job's name is its folder's: {job.name!r} cannot be one")
        run = RunFolder(root / job.name)
        if run.config_path.exists() and Settings.from_dict(run.config()) != job.settings:
            raise SettingsError(f"{run.path} holds a run of other settings: name another folder for this sweep")


def _result(path: Path) -> dict[str, Any] | None:
    """The contents of a finished job's result file."""
    file = path / "result.json"
    if not file.exists():
        return None
    try:
        contents = json.loads(file.read_text())
        _finished(contents)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: {error}; delete it, and the job is finished again") from error
    return contents


Submit = Callable[[list[tuple]], Iterator[tuple[Job, Any]]]


@contextmanager
def _submitter(scheduler: str | None, processes: int) -> Iterator[Submit]:
    """A function that runs argument lists of ``run_job`` and gives jobs with their outcomes as they come."""
    with _on_cluster(scheduler) if scheduler else _on_this_machine(processes) as submit:
        yield submit


@contextmanager
def _on_this_machine(processes: int) -> Iterator[Submit]:
    # Spawned, not forked: a fork copies locks that threads of this process may hold.
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))

    def submit(arguments: list[tuple]) -> Iterator[tuple[Job, Any]]:
        futures = {pool.submit(run_job, *each): each[0] for each in arguments}
        for future in as_completed(futures):
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                raise SweepError("a process of the sweep died; called again, the sweep goes on from its checkpoints")
            if error is not None and not isinstance(error, (MinimetaError, OSError)):
                raise error  # a mistake in the program is no failed run
            yield futures[future], error or future.result()

    try:
        yield submit
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _on_cluster(scheduler: str) -> Iterator[Submit]:
    try:
        import distributed
    except ImportError:
        raise SettingsError("a scheduler needs Dask: pip install 'minimeta[dask]'") from None
    try:
        client = distributed.Client(scheduler, timeout=10)
    except OSError as error:
        raise SettingsError(f"no Dask scheduler answers at {scheduler}: {error}") from error

    def submit(arguments: list[tuple]) -> Iterator[tuple[Job, Any]]:
        # pure=False: a job is not its arguments alone but also what its folder holds.
        futures = {client.submit(run_job, *each, pure=False): each[0] for each in arguments}
        for future in distributed.as_completed(list(futures)):
            error = future.exception()
            if error is not None and not isinstance(error, (MinimetaError, OSError, distributed.KilledWorker)):
                raise error
            yield futures[future], error or future.result()

    try:
        yield submit
    finally:
        client.close()


@contextmanager
def _watched(jobs: Sequence[Job], root: Path, progress: bool) -> Iterator[None]:
    """A bar over the meta-steps of all jobs, read from their folders, wherever they run."""
    from tqdm import tqdm

    total = sum(job.settings.iterations for job in jobs)
    over, counts = Event(), {job.name: 0 for job in jobs}

    def look() -> int:
        for job in jobs:
            if counts[job.name] < job.settings.iterations:
                counts[job.name] = _steps_done(root / job.name / "metrics.jsonl")
        return sum(counts.values())

    def watch(bar: Any) -> None:
        while not over.wait(1.0):
            bar.update(look() - bar.n)

    with tqdm(total=total, initial=look(), unit="step", unit_scale=True, disable=None if progress else True) as bar:
        watcher = Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            bar.update(look() - bar.n)


def _steps_done(metrics: Path) -> int:
    """The iteration of the last whole line, from the end of the file; 0 where there is none."""
    try:
        with open(metrics, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return int(json.loads(lines[-1])["iteration"])
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return 0  # not begun, or a line is being written: the next look tells
