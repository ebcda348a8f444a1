"""The progress of a sweep: its work, and a bar that reads it from folders."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files import (
    opened,
    parsed_json,
    read_bytes,
    write_atomically,
)
from ..training.evaluation import CHUNK
from .bars import hidden

if TYPE_CHECKING:
    from .jobs import Job

SCORED = ".scored"  # in a job's folder: the number of tasks that the evaluation has scored


class Work(NamedTuple):
    """The work of scoring, which the progress bar adds to that of training.

    ``measure`` scores ``at_look`` tasks at a look and ``at_end`` tasks at the
    end. For each of them ``examples`` pass through the network. A gradient
    counts as three passes.
    """

    at_look: int = 0
    at_end: int = 0
    examples: float = 0.0


def counted(file: Path, batches: Iterable[Sequence]) -> Iterator[Sequence]:
    """The batches of an evaluation; ``file`` holds the number of tasks done."""
    scored, told = _number_in(file), 0.0
    for batch in batches:
        yield batch
        scored += CHUNK * len(batch)
        if time.monotonic() - told > 0.5:
            _tell(file, scored)
            told = time.monotonic()
    _tell(file, scored)


def _tell(file: Path, scored: int) -> None:
    write_atomically(file, lambda opened: opened.write(str(scored).encode()))


def _number_in(file: Path) -> int:
    """The number in a file; 0 without one."""
    try:
        return int(read_bytes(file, 20))
    except (OSError, ValueError):
        return 0


@contextmanager
def watched(jobs: Sequence[Job], root: Path, progress: bool | None) -> Iterator[None]:
    """A progress bar over the work of all jobs, read from their folders.

    The work is counted in examples that pass through the network, in training
    and in scoring, so that the remaining time is right where scoring takes most
    of it.
    """
    from tqdm.auto import tqdm

    over, done = Event(), {job.name: 0.0 for job in jobs}
    total = {job.name: _all_work(job) for job in jobs}

    def look() -> float:
        for job in jobs:
            if done[job.name] < total[job.name]:  # and never less than before
                done[job.name] = max(done[job.name], _work_done(job, root / job.name))
        return sum(done.values())

    def show(bar: Any) -> None:
        measured = sum((root / job.name / "result.json").exists() for job in jobs)
        bar.set_postfix_str(f"{measured} of {len(jobs)} runs measured", refresh=False)
        bar.update(look() - bar.n)
        bar.refresh()

    def watch(bar: Any) -> None:
        while not over.wait(1.0):
            show(bar)

    with tqdm(
        total=sum(total.values()),
        initial=look(),
        unit=" examples",
        unit_scale=True,
        smoothing=0,  # training and scoring alternate: their average speed tells the end
        disable=hidden(progress),
    ) as bar:
        watcher = Thread(target=watch, args=(bar,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            show(bar)


def _of_training(job: Job) -> int:
    """The work of one meta-step: k gradients for each task."""
    schedule = job.settings.schedule
    return 3 * job.settings.training.meta_batch * schedule.k * schedule.size


def _all_work(job: Job) -> float:
    scored = len(job.looks) * job.work.at_look + job.work.at_end
    return job.settings.training.iterations * _of_training(job) + scored * job.work.examples


def _work_done(job: Job, path: Path) -> float:
    """The part of ``_all_work`` that is done."""
    if (path / "result.json").exists():
        return _all_work(job)
    looks = sum((path / f"look-{look}.json").exists() for look in job.looks)
    steps = _steps_done(path / "metrics.jsonl")
    ended = steps >= job.settings.training.iterations and looks == len(job.looks)
    most = job.work.at_end if ended else job.work.at_look
    scored = looks * job.work.at_look + min(_number_in(path / SCORED), most)
    return steps * _of_training(job) + scored * job.work.examples


def _steps_done(metrics: Path) -> int:
    """The iteration in the last whole line of the file; 0 without a line."""
    try:
        with opened(metrics, "read") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().rpartition(b"\n")[0].splitlines()
        return int(parsed_json(lines[-1])["iteration"])
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return 0  # the run has not started, or a line is being written: try again later
