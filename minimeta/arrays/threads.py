"""The threads of the host.

Tasks are independent, so a thread takes some tasks through the whole inner loop, with BLAS at one thread inside;
this beats threads inside each operation. A task's numbers do not depend on which thread computes it, nor on the tasks
beside it, so results are bit-identical for any number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from threading import Lock
from typing import TypeVar

from .memory import keep_freed_memory

Result = TypeVar("Result")

_WORTH_SHARING = 3e7  # multiply-adds: about a millisecond
_TOGETHER_BYTES = (
    6 << 20
)  # of activations: about what a core can keep in its caches from one layer to the next


def default_workers(work: float, tasks: int) -> int:
    """Threads for a meta-batch of ``tasks`` in which about ``work`` multiply-adds are to be done.

    One where a meta-step is too short to be worth sharing: handing it over would cost more than it saves.
    """
    return max(1, min(tasks, available_cores())) if work >= _WORTH_SHARING else 1


def tasks_together(bytes_per_task: int) -> int:
    """How many tasks to take through a layer at once, where each fills ``bytes_per_task`` in a step.

    More mean fewer calls, for which the threads would wait in turn; but what outgrows the caches is slower than two halves
    that do not.
    """
    return max(1, _TOGETHER_BYTES // max(1, bytes_per_task))


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _BlasAtOneThread:
    """Holds BLAS to one thread while any thread of this process is inside: the limit is the process's, and the first to
    leave must not lift it for those who still compute."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limit = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if not self._inside:
                self._limit.enter_context(threadpool_limits(1, user_api="blas"))
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._limit.close()


_blas_at_one_thread = _BlasAtOneThread()


@contextmanager
def workers(
    count: int,
) -> Iterator[Callable[[Callable[..., Result], Sequence[tuple]], list[Result]]]:
    """A function ``starmap(f, arguments)`` that runs on ``count`` threads, with
    BLAS held to one thread.

    BLAS is held to one thread for ``count = 1`` too, so that the numbers do not
    depend on ``count``.
    """
    keep_freed_memory()
    with _blas_at_one_thread:
        if count == 1:
            yield lambda f, arguments: [f(*each) for each in arguments]
        else:
            with ThreadPoolExecutor(count) as pool:
                yield lambda f, arguments: list(pool.map(lambda each: f(*each), arguments))


def even_chunks(total: int, parts: int) -> list[tuple[int, int]]:
    """``range(total)`` in at most ``parts`` runs (start, stop) whose lengths differ by at most one."""
    parts = min(parts, total)
    edges = [total * i // max(parts, 1) for i in range(parts + 1)]
    return list(pairwise(edges))
