"""Threads that share the tasks of a meta-batch.

Tasks are independent and the steps of one task are not, so a thread takes a part
of the tasks through the whole inner loop. Where the threads do not divide the
parts (3 parts on 2 threads), whole parts would leave cores idle at the end.
McNaughton's wrap-around rule (1959) does not: lay the parts in one row, and cut
the row into equal lengths, one a thread. A part that is cut begins at once, for as
much of it as lies behind the cut. Then it passes its turn to a waiting part, and
goes on when a turn is free. All threads end together, and no part pauses more
than once.

An algorithm sees nothing of this: it is given its objective, or one that
pauses. The numbers of a task depend neither on the thread nor on the tasks beside
it, so results are the same bits for any number of threads. ``Algorithm.couple``
comes after, once, on all tasks.
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
    """How many tasks to take through a layer at once, in mini-batches of ``size`` examples; all,
    where the objective does not know how many numbers it computes."""
    return tasks_together(cost_of(objective).activations * size * np.dtype(dtype).itemsize)


def parts_of(tasks: int, threads: int, together: int) -> list[tuple[int, int]]:
    """``range(tasks)`` in parts (start, stop) of at most ``together`` tasks, alike in length.

    Where ``threads`` divide the tasks, they divide the parts. Elsewhere they do not,
    so that some parts pause.
    """
    if tasks % threads == 0:
        each = tasks // threads
        return even_chunks(tasks, threads * -(-each // together))
    parts = max(threads, -(-tasks // together))
    return even_chunks(tasks, parts + (parts % threads == 0))


class Turns:
    """At most ``count`` threads at once, in the order in which they ask."""

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
        """Give the turn that this thread holds to a thread that waits, and wait for another."""
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
        """A turn for the thread that has waited longest, or for the next to come."""
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1


@dataclass(frozen=True, repr=False)
class Pausing(Derived):
    """``objective``, which passes the turn on once, after ``points`` of its points."""

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
    """When its turn comes, a part begins; after ``pause`` points it waits once. None: never."""

    part: int
    pause: int | None


def wrap_around(parts: int, threads: int, points: int) -> list[Start]:
    """In which order ``parts`` of ``points`` points each begin, and where they pause.

    Rounds of ``threads`` whole parts come first. The rule is for the rest, fewer than
    twice as many parts as threads.
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
    """``algorithm`` on a meta-batch by ``starmap``, which runs calls side by side
    (``threads.workers``): ``threads`` at once, of at most ``together`` tasks each."""

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
    """Results of several parts as one: arrays end to end, (named) tuples field by field, numbers
    equal in all.

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
        "an inner rule's state must be made of arrays with a task axis, numbers, None, and tuples "
        f"of these: got {first!r}"
    )
