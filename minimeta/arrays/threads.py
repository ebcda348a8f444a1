"""The threads of the host.

Tasks are independent, so a thread takes some tasks through the whole inner
loop. BLAS uses one thread inside. This is faster than threads inside each
operation. A task's numbers depend neither on its thread nor on the other tasks,
so results are bit-identical for any number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from itertools import pairwise
from threading import Lock
from types import ModuleType
from typing import TypeVar

import numpy as np

from ..errors import SettingsError
from .memory import keep_freed_memory

Result = TypeVar("Result")

# Multiply-adds of a forward pass from which threads save more than they cost:
# about a millisecond.
_WORTH_SHARING = 3e7
# Bytes of activations that fit about into a core's caches from one layer to the
# next.
TOGETHER_BYTES = 6 << 20


def default_workers(work: float, tasks: int) -> int:
    """The number of threads for a meta-batch of ``tasks``.

    ``work`` is about the number of multiply-adds of the meta-batch. The result
    is 1 where a meta-step is so short that sharing it among threads costs more
    than it saves.
    """
    return max(1, min(tasks, available_cores())) if work >= _WORTH_SHARING else 1


def check_workers(workers: int | None, xp: ModuleType) -> None:
    """Check that ``workers`` suits the array module ``xp``.

    Raises
    ------
    SettingsError
        for more than one thread on a device: all of them start kernels on the
        same device, so they only start more and smaller ones.
    """
    if xp is not np and (workers or 1) > 1:
        raise SettingsError(
            f"workers is {workers}, but threads do not share the work of a GPU: set workers to 1, "
            "or leave it out (--workers)"
        )


def tasks_together(bytes_per_task: int) -> int:
    """The number of tasks to take through a layer at once.

    Each task fills ``bytes_per_task`` in a step. More tasks at once mean fewer
    calls, for which the threads wait in turn. But arrays that outgrow the
    caches are slower than two halves that fit.
    """
    return max(1, TOGETHER_BYTES // max(1, bytes_per_task))


def available_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _BlasAtOneThread:
    """Holds BLAS to one thread while any thread of this process is inside.

    The limit applies to the whole process. The first thread to leave must not
    lift it while other threads compute.
    """

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

                def starmap(f: Callable[..., Result], arguments: Sequence[tuple]) -> list[Result]:
                    # A context holds the caller's handling of float errors.
                    contexts = [copy_context() for _ in arguments]
                    calls = list(zip(contexts, arguments, strict=True))
                    here = len(calls) - 1 if 0 < len(calls) <= count else len(calls)
                    others = [pool.submit(each.run, f, *given) for each, given in calls[:here]]
                    # This thread is one of them: it need not wake another.
                    own = [each.run(f, *given) for each, given in calls[here:]]
                    return [each.result() for each in others] + own

                yield starmap


def even_chunks(total: int, parts: int) -> list[tuple[int, int]]:
    """``range(total)`` in at most ``parts`` runs (start, stop).

    The lengths of the runs differ by at most one.
    """
    parts = min(parts, total)
    edges = [total * i // max(parts, 1) for i in range(parts + 1)]
    return list(pairwise(edges))
