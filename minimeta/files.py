"""Floor 0: a file is replaced whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Write a new file beside ``path``, flush it to disk, and put it in the place of ``path`` in one step.

    A kill at any moment leaves the old file or the new one, and at worst a ``.NAME.PID.part`` beside it.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def parts_of(path: Path) -> list[Path]:
    """What writers of ``path`` that were killed have left beside it."""
    return [
        part
        for part in path.parent.glob(f".{path.name}.*.part")
        if part.name.split(".")[-2].isdigit()
    ]


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether this process is the only one that holds the lock ``path``, for the time of the block.

    The system frees the lock when its process ends, however it ends. Where there are no such locks (Windows), always True.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
