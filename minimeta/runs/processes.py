"""Calls in fresh processes of this machine, which never outlive this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, NamedTuple


class Died(NamedTuple):
    """The result of a call whose process ended before the call returned."""

    how: str


@contextmanager
def fresh_processes(
    count: int,
) -> Iterator[Callable[[Callable[..., Any], Sequence[tuple]], Iterator[tuple[int, Any]]]]:
    """A function ``calls(f, arguments)`` of up to ``count`` processes.

    It calls ``f`` with each of ``arguments``, and yields the index of each call
    with the result of ``f``, or with a Died, as calls end. A call starts only
    when a process is free. The end of the block kills the processes that still
    run.
    """
    # Spawned, not forked: a fork copies locks that threads here may hold.
    context = multiprocessing.get_context("spawn")
    running: dict[Connection, tuple[int, BaseProcess]] = {}

    def begin(index: int, function: Callable[..., Any], arguments: tuple) -> None:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_answer, args=(theirs, function, arguments))
        with theirs, _interrupt_held():
            process.start()
            running[ours] = index, process

    def calls(
        function: Callable[..., Any], arguments: Sequence[tuple]
    ) -> Iterator[tuple[int, Any]]:
        waiting = iter(enumerate(arguments))
        while True:
            while len(running) < count and (following := next(waiting, None)) is not None:
                begin(following[0], function, following[1])
            if not running:
                return
            for pipe in wait(list(running)):
                index, process = running[pipe]
                outcome = _received(pipe, process)
                del running[pipe]
                yield index, outcome

    try:
        yield calls
    finally:
        for _, process in running.values():
            process.kill()
        for _, process in running.values():
            process.join()


def _received(pipe: Connection, process: BaseProcess) -> Any:
    """The result that the process sent, or a Died."""
    with pipe:
        try:
            outcome = pipe.recv()
        except (EOFError, OSError):  # the process ended, perhaps within a message
            process.join()
            return Died(_how_it_ended(process.exitcode))
    process.join(10.0)
    if process.is_alive():  # threads that the call started may keep it alive
        process.kill()
        process.join()
    return outcome


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"its process ended with status {status}: see its output"
    name = signal.Signals(-status).name
    memory = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{memory}"


@contextmanager
def _interrupt_held() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block.

    Processes that start in the block ignore Ctrl-C: this process ends them.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it later, in the block, would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _answer(pipe: Connection, function: Callable[..., Any], arguments: tuple) -> None:
    """The main function of a process: call, and send the result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()
    with pipe:
        pipe.send(function(*arguments))


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
