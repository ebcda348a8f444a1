"""Floor 6: how threads share the tasks of a meta-batch.

Tasks are independent and the steps of one task are not, so each thread takes some tasks through the whole inner loop. Where
the threads do not divide the tasks (5 on 2 cores: 3 and 2), that leaves cores idle. McNaughton's wrap-around rule (1959)
does not: lay all T k inner steps in one row, task after task, and cut it into equal parts, one a thread. A task that is cut
is begun by the thread of the later part, first of all, and finished by the thread of the earlier part, last of all; so its
two halves do not overlap where all steps take the same time, and where they do not, the later half waits for the earlier.
What passes between the threads is one phi and one state of the inner rule.

A task's numbers depend neither on the thread nor on the tasks beside it: results are the same bits for any plan. What
couples the tasks (``Algorithm.couple``) comes after, once, on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..algorithms import Algorithm, Outcome
from ..arrays.backend import Array, array_module
from ..arrays.threads import even_chunks, tasks_together
from ..errors import SettingsError
from ..inner import descend
from ..objectives import Differentiable
from ..tasks import Minibatches


def fitting_together(objective: Any, size: int, dtype: Any) -> int:
    """How many tasks to take through a layer at once, in mini-batches of ``size``; all where the objective, one of the
    user's own, does not say how many numbers it computes on its way."""
    return tasks_together(getattr(objective, "activations", 0) * size * np.dtype(dtype).itemsize)


class Share(NamedTuple):
    """What one thread does: the ``first`` steps of a task that another finishes, the tasks ``whole = (start, stop)``, and
    the rest of a task after the ``last`` steps, which another made. Tasks and numbers of steps; None where there is none."""

    first: tuple[int, int] | None
    whole: tuple[int, int]
    last: tuple[int, int] | None


def wrap_around(tasks: int, steps: int, threads: int) -> list[Share]:
    """McNaughton's plan for ``tasks`` of ``steps`` inner steps; at most one thread a task."""
    threads = min(threads, tasks)
    edges = [tasks * steps * i // threads for i in range(threads + 1)]
    shares = []
    for begin, end in pairwise(edges):
        (task, before), (stop, after) = divmod(begin, steps), divmod(end, steps)
        # ``before`` steps of the task at the left edge are its last ones, and the neighbour's.
        first = (task, steps - before) if before else None
        last = (stop, steps - after) if after else None
        shares.append(Share(first, (task + (before > 0), stop), last))
    return shares


def by_tasks(tasks: int, threads: int) -> list[Share]:
    """Whole tasks only, as evenly as they go."""
    return [Share(None, part, None) for part in even_chunks(tasks, threads)]


@dataclass(frozen=True)
class TaskParallel:
    """``algorithm.run`` on a meta-batch by ``starmap`` on ``threads`` threads (threads.workers), in runs of at most
    ``together`` tasks at once."""

    starmap: Callable
    threads: int
    together: int
    algorithm: Algorithm
    objective: Differentiable

    def run(self, meta: Array, minibatches: Minibatches, state: Any) -> Outcome:
        """The outcome of all tasks."""
        tasks, steps = minibatches.tasks, len(minibatches)
        can_pause = self.algorithm.can_pause and self.threads > 1
        shares = (
            wrap_around(tasks, steps, self.threads) if can_pause else by_tasks(tasks, self.threads)
        )
        work = _Work(self, meta, minibatches, state)
        # The last share first: a share waits only for the one after it, so nothing ever waits for what has not started.
        parts = self.starmap(work.of, [(share,) for share in reversed(shares)])
        return self.algorithm.couple(
            _joined([outcome for part in reversed(parts) for outcome in part])
        )


@dataclass(frozen=True)
class _Work:
    """One meta-batch, and the tasks that are handed from thread to thread."""

    how: TaskParallel
    meta: Array
    minibatches: Minibatches
    state: Any
    begun: dict[int, Future] = field(default_factory=dict)

    def of(self, share: Share) -> list[Outcome]:
        """The outcomes of the tasks that ``share`` finishes, in their order."""
        if share.first:
            self._begin(*share.first)
        algorithm, objective = self.how.algorithm, self.how.objective
        start, stop = share.whole
        runs = (
            even_chunks(stop - start, -(-(stop - start) // self.how.together))
            if stop > start
            else []
        )
        batches = [self.minibatches.of_tasks(start + i, start + j) for i, j in runs]
        outcomes = [algorithm.run(objective, self.meta, each, self.state) for each in batches]
        return [*outcomes, self._finish(*share.last)] if share.last else outcomes

    def _begin(self, task: int, steps: int) -> None:
        handed = self._handed(task)
        try:
            batches = self.minibatches.of_tasks(task, task + 1)[:steps]
            phi, rule = self.how.algorithm.inner(self.how.objective, self.meta)
            phi, state, _ = descend(self.how.objective, phi, batches, rule, self.state)
        except BaseException as error:
            handed.set_exception(error)  # or the thread that waits for it would wait for ever
            raise
        handed.set_result((phi, state))

    def _finish(self, task: int, done: int) -> Outcome:
        phi, state = self._handed(task).result()
        batches = self.minibatches.of_tasks(task, task + 1)[done:]
        return self.how.algorithm.run(self.how.objective, self.meta, batches, state, start=phi)

    def _handed(self, task: int) -> Future:
        return self.begun.setdefault(task, Future())


def _joined(parts: Sequence[Any]) -> Any:
    """Results of several runs of tasks as one: arrays end to end, (named) tuples field by field, numbers equal in all."""
    first = parts[0]
    if all(
        part is first for part in parts
    ):  # the shared state, where no inner step was made; or the only part
        return first
    if isinstance(first, tuple):
        fields = [_joined(field) for field in zip(*parts, strict=True)]
        return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)
    if getattr(first, "ndim", 0):
        return array_module(first).concatenate(parts)
    if isinstance(first, (int, float)) and all(part == first for part in parts):
        return first
    raise SettingsError(
        f"an inner rule's state must be made of arrays with a task axis, numbers, None, and tuples of these: got {first!r}"
    )
