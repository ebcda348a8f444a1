"""Threads that share the tasks of a meta-batch.

Tasks are independent and the steps of one task are not, so each thread takes
some tasks through the whole inner loop. Where the threads do not divide the
tasks (5 tasks on 2 threads: 3 and 2), whole tasks would leave cores idle at the
end. McNaughton's wrap-around rule (1959) does not. Lay the T k inner steps of
all tasks in one row, task after task, and cut the row into equal lengths, one
per thread. A task that is cut begins first of all, in the time of the thread
behind the cut. It pauses there, and continues last of all, in the time of the
thread before the cut. No two threads compute one task at the same time. All
threads end together where every step costs the same; a pullback at the end of a
task stays with the thread that finishes the task.

An algorithm sees nothing of this: its objective pauses. The numbers of a task
depend neither on the thread nor on the tasks beside it, so results are the same
bits for any number of threads. ``Algorithm.couple`` comes after, once, on all
tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from itertools import count, pairwise
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

import numpy as np

from ..algorithms import Algorithm, Outcome
from ..arrays.backend import Array, array_module
from ..arrays.threads import even_chunks, tasks_together
from ..errors import SettingsError
from ..objectives import Batch, Derived, Differentiable, Point, cost_of
from ..tasks import Minibatches


def fitting_together(objective: Differentiable, size: int, dtype: Any) -> int:
    """How many tasks to take through a layer at once, for mini-batches of
    ``size`` examples.

    An objective that does not know how many numbers it computes takes all tasks
    at once.
    """
    return tasks_together(cost_of(objective).activations * size * np.dtype(dtype).itemsize)


class Share(NamedTuple):
    """The work of one thread, in its order.

    It begins the task ``first``, up to a pause. It computes the tasks
    ``whole = (start, stop)``. It finishes the task ``last``, which another
    thread began. ``first`` is a pair (task, steps). ``first`` and ``last`` are
    None where there is no such task.
    """

    first: tuple[int, int] | None
    whole: tuple[int, int]
    last: int | None


def wrap_around(tasks: int, steps: int, threads: int) -> list[Share]:
    """McNaughton's plan for ``tasks`` of ``steps`` inner steps each.

    A task has at most one thread.
    """
    threads = min(threads, tasks)
    edges = [tasks * steps * i // threads for i in range(threads + 1)]
    shares = []
    for begin, end in pairwise(edges):
        (task, before), (stop, after) = divmod(begin, steps), divmod(end, steps)
        # The neighbour takes the last ``before`` steps of the first task.
        first = (task, steps - before) if before else None
        shares.append(Share(first, (task + (before > 0), stop), stop if after else None))
    return shares


@dataclass(frozen=True, repr=False)
class Pausing(Derived):
    """``objective``, which calls ``pause`` once, before point ``points``."""

    points: int
    pause: Callable[[], None]
    calls: Iterator[int] = field(default_factory=count)

    def at(self, phi: Array, batch: Batch) -> Point:
        """The objective's point."""
        if next(self.calls) == self.points:
            self.pause()
        return self.objective.at(phi, batch)

    def __repr__(self) -> str:
        return repr(self.objective)


class Abandoned(RuntimeError):
    """Nobody waits for the result of a cut task any more."""


class CutTask:
    """A computation in a thread of its own that others begin and finish.

    ``begin`` waits until ``compute`` calls the function that it is given, or
    ends. ``finish`` lets ``compute`` continue, and waits for its result or its
    error. While ``compute`` runs, one of the two waits for it. ``abandon`` ends
    a computation that nobody finishes.
    """

    def __init__(self, compute: Callable[[Callable[[], None]], Any]) -> None:
        self._compute, self._outcome = compute, Future()
        self._paused, self._resumed = Event(), Event()
        self._lock, self._begun, self._abandoned = Lock(), False, False

    def begin(self) -> None:
        """Compute up to the pause.

        Raises
        ------
        RuntimeError
            if the system starts no more threads; ``finish`` raises it too.
        """
        with self._lock:
            if self._abandoned:
                return
            self._begun = True
        try:
            # The context holds the caller's handling of floating-point errors.
            Thread(target=copy_context().run, args=(self._run,), daemon=True).start()
        except BaseException as error:
            self._outcome.set_exception(error)
            raise
        self._paused.wait()

    def finish(self) -> Any:
        """Compute from the pause to the result."""
        self._resumed.set()
        return self._outcome.result()

    def abandon(self) -> None:
        """Compute no further; a finished computation stays as it is."""
        with self._lock:
            self._abandoned = True
            if not self._begun and not self._outcome.done():
                self._outcome.set_exception(Abandoned())
        self._resumed.set()

    def _pause(self) -> None:
        self._paused.set()
        self._resumed.wait()
        if self._abandoned:
            raise Abandoned

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._compute(self._pause))
        except BaseException as error:  # told to the thread that waits for the result
            self._outcome.set_exception(error)
        finally:
            self._paused.set()


@dataclass(frozen=True)
class TaskParallel:
    """``algorithm`` on a meta-batch, by ``threads`` calls side by side.

    ``starmap`` runs the calls (``threads.workers``). Each takes at most
    ``together`` tasks through a layer at once.
    """

    starmap: Callable
    threads: int
    together: int
    algorithm: Algorithm
    objective: Differentiable

    def run(self, meta: Array, minibatches: Minibatches, state: Any) -> Outcome:
        """The coupled outcome of all tasks."""
        shares = wrap_around(minibatches.tasks, len(minibatches), self.threads)

        def direction(start: int, stop: int, objective: Differentiable = self.objective) -> Outcome:
            batches = minibatches.of_tasks(start, stop)
            outcome = self.algorithm.direction(objective, meta, batches, state)
            check_task_axis(outcome.state, state, stop - start)
            return outcome

        def cut(task: int, steps: int) -> CutTask:
            return CutTask(
                lambda pause: direction(task, task + 1, Pausing(self.objective, steps, pause))
            )

        cuts = {share.first[0]: cut(*share.first) for share in shares if share.first}

        def of_share(share: Share) -> list[Outcome]:
            if share.first:
                cuts[share.first[0]].begin()
            start, stop = share.whole
            parts = even_chunks(stop - start, -(-(stop - start) // self.together))
            outcomes = [direction(start + i, start + j) for i, j in parts]
            return outcomes if share.last is None else [*outcomes, cuts[share.last].finish()]

        # The last share first: a share waits only for the one after it, so no
        # share ever waits for one that has not started.
        try:
            made = self.starmap(of_share, [(share,) for share in reversed(shares)])
        finally:
            for each in cuts.values():
                each.abandon()
        outcomes = [outcome for part in reversed(made) for outcome in part]
        return self.algorithm.couple(joined(outcomes))


def check_task_axis(state: Any, shared: Any, tasks: int) -> None:
    """Check that every array of a rule's ``state`` has one row per task.

    A state that is the ``shared`` one still has no task axis: no step was made.

    Raises
    ------
    SettingsError
        if an array has another length: its rows could not be told by task.
    """
    if state is shared or state is None:
        return
    if isinstance(state, tuple):
        for part in state:
            check_task_axis(part, None, tasks)
    elif getattr(state, "ndim", 0) and len(state) != tasks:
        raise SettingsError(
            f"an inner rule's state must hold one row per task: got an array of shape "
            f"{state.shape} for {tasks} tasks"
        )


def joined(parts: Sequence[Any]) -> Any:
    """The results of several parts as one.

    Arrays are concatenated, (named) tuples joined field by field, and numbers
    must be equal in all parts.

    Raises
    ------
    SettingsError
        if an inner rule's state holds anything else.
    """
    first = parts[0]
    if all(part is first for part in parts):  # one part; or a shared state, after no inner step
        return first
    if isinstance(first, tuple):
        fields = [joined(field) for field in zip(*parts, strict=True)]
        return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)
    if getattr(first, "ndim", 0):
        return array_module(first).concatenate(parts)
    if isinstance(first, (int, float)) and all(part == first for part in parts):
        return first
    raise SettingsError(
        "an inner rule's state must be made of arrays with a task axis, numbers equal in all "
        f"tasks, None, and tuples of these, got {first!r}"
    )
