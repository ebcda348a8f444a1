"""Threads that share the tasks of a meta-batch.

Tasks are independent and the steps of one task are not, so each thread takes
some tasks through the whole inner loop. Where the threads do not divide the
tasks (5 tasks on 2 threads: 3 and 2), whole tasks would leave cores idle at the
end. McNaughton's wrap-around rule (1959) does not. Lay the T k inner steps of
all tasks in one row, task after task, and cut the row into equal lengths, one
per thread. A task that is cut begins first of all, in the time of the thread
behind the cut. It pauses there, and continues last of all, in the time of the
thread before the cut. All threads end together where every step costs the same;
a pullback at the end of a task stays with the thread that finishes the task.

An algorithm sees nothing of this. The thread that begins a cut task runs the
algorithm on an objective that records its points, and stops the algorithm at
the cut. The thread that finishes the task runs the algorithm anew on an
objective that gives the recorded points first. Only the rule's updates are
computed twice. The numbers of a task depend neither on the thread nor on the
tasks beside it, so results are the same bits for any number of threads.
``Algorithm.couple`` comes after, once, on all tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..algorithms import Algorithm, Outcome
from ..arrays.backend import Array, array_module
from ..arrays.threads import even_chunks, tasks_together
from ..errors import SettingsError
from ..inner import with_parts
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

    A task has at most one thread. Tasks stay whole where that leaves the
    threads idle for less than a tenth of their time, since a cut has a cost.
    """
    threads = min(threads, tasks)
    idle = -(-tasks // threads) * threads / tasks - 1
    length = steps if idle < 0.1 else 1
    edges = [length * (tasks * steps // length * i // threads) for i in range(threads + 1)]
    shares = []
    for begin, end in pairwise(edges):
        (task, before), (stop, after) = divmod(begin, steps), divmod(end, steps)
        # The neighbour takes the last ``before`` steps of the first task.
        first = (task, steps - before) if before else None
        shares.append(Share(first, (task + (before > 0), stop), stop if after else None))
    return shares


class Cut(Exception):
    """The cut in a task, which stops the algorithm that begins the task."""


@dataclass(frozen=True, repr=False)
class Recording(Derived):
    """``objective``, which records its points, and raises ``Cut`` in place of
    point number ``stop``, from 0."""

    stop: int
    points: list[Point] = field(default_factory=list)

    def at(self, phi: Array, batch: Batch) -> Point:
        """The objective's point."""
        if len(self.points) == self.stop:
            raise Cut
        self.points.append(self.objective.at(phi, batch))
        return self.points[-1]

    def __repr__(self) -> str:
        return repr(self.objective)


@dataclass(frozen=True, repr=False)
class Replaying(Derived):
    """``objective``, which gives the recorded ``points`` first, and forgets
    them."""

    points: list[Point]

    def at(self, phi: Array, batch: Batch) -> Point:
        """The next recorded point; after all of them, the objective's."""
        return self.points.pop(0) if self.points else self.objective.at(phi, batch)

    def __repr__(self) -> str:
        return repr(self.objective)


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
        if self.threads == 1 and minibatches.tasks <= self.together:
            outcome = self.algorithm.direction(self.objective, meta, minibatches, state)
            check_task_axis(outcome.state, state, minibatches.tasks)
            return self.algorithm.couple(outcome)
        shares = wrap_around(minibatches.tasks, len(minibatches), self.threads)

        def direction(start: int, stop: int, objective: Differentiable = self.objective) -> Outcome:
            batches = minibatches.of_tasks(start, stop)
            outcome = self.algorithm.direction(objective, meta, batches, state)
            check_task_axis(outcome.state, state, stop - start)
            return outcome

        begun: dict[int, Future] = {share.first[0]: Future() for share in shares if share.first}

        def begin(task: int, steps: int) -> None:
            recording = Recording(self.objective, steps)
            try:
                with suppress(Cut):
                    direction(task, task + 1, recording)
            except BaseException as error:  # or the thread that finishes the task waits for ever
                begun[task].set_exception(error)
                raise
            begun[task].set_result(recording.points)

        def finish(task: int) -> Outcome:
            return direction(task, task + 1, Replaying(self.objective, begun[task].result()))

        def of_share(share: Share) -> list[Outcome]:
            if share.first:
                begin(*share.first)
            start, stop = share.whole
            parts = even_chunks(stop - start, -(-(stop - start) // self.together))
            outcomes = [direction(start + i, start + j) for i, j in parts]
            return outcomes if share.last is None else [*outcomes, finish(share.last)]

        # The last share first: a share waits only for the one after it, so no
        # share ever waits for one that has not started.
        try:
            made = self.starmap(of_share, [(share,) for share in reversed(shares)])
        finally:
            for each in begun.values():  # of a share that was never started
                each.cancel()
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
        return with_parts(first, [joined(field) for field in zip(*parts, strict=True)])
    if getattr(first, "ndim", 0):
        return array_module(first).concatenate(parts)
    if isinstance(first, (int, float)) and all(part == first for part in parts):
        return first
    raise SettingsError(
        "an inner rule's state must be made of arrays with a task axis, numbers equal in all "
        f"tasks, None, and tuples of these, got {first!r}"
    )
