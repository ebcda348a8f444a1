"""Threads that share the tasks of a meta-batch.

Tasks are independent, but the steps of one task are not. So a thread takes a
part of the tasks through the whole inner loop. Where the number of parts is not
a multiple of the number of threads (3 parts on 2 threads), whole parts would
leave cores idle at the end. McNaughton's wrap-around rule (1959) avoids this.
It lays the parts in one row, and cuts the row into equal lengths, one per
thread. A part with a cut starts at once, and runs for the length that lies
behind the cut. It then passes its turn to a waiting part, and continues when a
turn is free. All threads end together, and no part pauses more than once.

The algorithm does not know of this. It is given its objective, or an objective
that pauses. The numbers of a task depend neither on the thread nor on the other
tasks of its part, so results are bit-identical for any number of threads.
``Algorithm.couple`` runs afterwards, once, on all tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from threading import Event, Lock
from typing import Any, NamedTuple

import numpy as np

from ..algorithms import Algorithm, Outcome
from ..arrays.backend import Array, array_module
from ..arrays.threads import even_chunks, tasks_together
from ..errors import SettingsError
from ..objectives import Batch, Derived, Differentiable, Point, cost_of
from ..tasks import Minibatches


def fitting_together(objective: Differentiable, size: int, dtype: Any) -> int:
    """The number of tasks to take through a layer at once.

    ``size`` is the number of examples in a mini-batch. The result is unlimited
    in practice where the objective does not know its number of activations.
    """
    return tasks_together(cost_of(objective).activations * size * np.dtype(dtype).itemsize)


def parts_of(tasks: int, threads: int, together: int) -> list[tuple[int, int]]:
    """``range(tasks)`` in parts (start, stop) of at most ``together`` tasks.

    Lengths differ by at most one. If the number of tasks is a multiple of
    ``threads``, so is the number of parts. Otherwise it is not, so that some
    parts pause.
    """
    if tasks % threads == 0:
        each = tasks // threads
        return even_chunks(tasks, threads * -(-each // together))
    parts = max(threads, -(-tasks // together))
    return even_chunks(tasks, parts + (parts % threads == 0))


class Turns:
    """A queue that lets at most ``count`` threads run, first come, first
    served."""

    def __init__(self, count: int) -> None:
        self._lock, self._free, self._waiting = Lock(), count, deque[Event]()

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a turn inside the block."""
        with self._lock:
            turn = None if self._free > 0 else self._queued()
            self._free -= turn is None
        if turn is not None:
            turn.wait()
        try:
            yield
        finally:
            with self._lock:
                self._hand_on()

    def pass_on(self) -> None:
        """Gives this thread's turn to a waiting thread, and waits for a new
        turn.

        It does nothing if no thread is waiting.
        """
        with self._lock:
            if not self._waiting:
                return
            turn = self._queued()
            self._hand_on()
        turn.wait()

    def _queued(self) -> Event:
        """A place at the end of the queue."""
        turn = Event()
        self._waiting.append(turn)
        return turn

    def _hand_on(self) -> None:
        """Gives a turn to the thread that has waited longest, or frees the
        turn."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1


@dataclass(frozen=True, repr=False)
class Pausing(Derived):
    """``objective``, which passes its thread's turn on once, after ``points``
    points."""

    turns: Turns
    points: int
    calls: Iterator[int] = field(default_factory=count)

    def at(self, phi: Array, batch: Batch) -> Point:
        """The objective's point."""
        if next(self.calls) == self.points:
            self.turns.pass_on()
        return self.objective.at(phi, batch)

    def __repr__(self) -> str:
        return repr(self.objective)


class Start(NamedTuple):
    """The start of a part.

    The part pauses once, after ``pause`` points, or never if ``pause`` is None.
    """

    part: int
    pause: int | None


def wrap_around(parts: int, threads: int, points: int) -> list[Start]:
    """The order in which ``parts`` start, and the points after which they
    pause.

    Every part has ``points`` points. Rounds of ``threads`` whole parts come
    first. McNaughton's rule applies to the remaining parts, which are fewer
    than twice ``threads``.
    """
    rest = parts % threads and min(parts, threads + parts % threads)
    rounds = parts - rest
    cut = {}
    for thread in range(1, threads if rest else 0):
        behind = -(thread * rest) % threads  # of the part that the cut meets, in 1 / threads
        if behind:
            cut[rounds + thread * rest // threads] = -(-points * behind // threads)
    others = [part for part in range(rounds, parts) if part not in cut]
    order = [*range(rounds), *others[:1], *cut, *others[1:]]
    return [
        Start(part, pause if (pause := cut.get(part, points)) < points else None) for part in order
    ]


@dataclass(frozen=True)
class TaskParallel:
    """Runs ``algorithm`` on a meta-batch in parallel.

    ``starmap`` (``threads.workers``) runs the calls in parallel, ``threads`` at
    once. A call takes at most ``together`` tasks.
    """

    starmap: Callable
    threads: int
    together: int
    algorithm: Algorithm
    objective: Differentiable

    def run(self, meta: Array, minibatches: Minibatches, state: Any) -> Outcome:
        """The coupled outcome of all tasks."""
        threads = min(self.threads, minibatches.tasks)
        parts = parts_of(minibatches.tasks, threads, self.together)
        turns, starts = Turns(threads), wrap_around(len(parts), threads, len(minibatches))

        def of_part(part: int, pause: int | None) -> tuple[int, Outcome]:
            objective = self.objective
            if pause is not None:
                objective = Pausing(objective, turns, pause)
            with turns.one():
                batches = minibatches.of_tasks(*parts[part])
                return part, self.algorithm.direction(objective, meta, batches, state)

        outcomes = dict(self.starmap(of_part, starts))
        return self.algorithm.couple(joined([outcomes[part] for part in range(len(parts))]))


def joined(parts: Sequence[Any]) -> Any:
    """The results of several parts, joined.

    Arrays are concatenated along the task axis. (Named) tuples are joined field
    by field. Numbers must be equal in all parts.

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
