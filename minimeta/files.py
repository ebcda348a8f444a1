"""Atomic writes and file locks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Replaces the file ``path`` atomically by what ``write`` writes.

    A new file is written beside ``path``, flushed to disk, and renamed to
    ``path`` in one step. A kill at any moment leaves the old file or the new
    file, and at worst a ``.NAME.PID.part`` beside it.
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


def write_new(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Creates the file ``path`` atomically, with what ``write`` writes.

    Of several processes that create ``path`` at once, one succeeds. A kill at
    any moment leaves the whole file or no file, and at worst a
    ``.NAME.PID.part`` beside it.

    Raises
    ------
    FileExistsError
        if ``path`` exists, as a file or as a link to a missing file.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: here a kill may cut the file
            with open(path, "xb") as file:
                file.write(part.read_bytes())
                file.flush()
                os.fsync(file.fileno())
    finally:
        part.unlink(missing_ok=True)


def parts_of(path: Path) -> list[Path]:
    """The partial files beside ``path`` that killed writers have left."""
    return [
        part
        for part in path.parent.glob(f".{path.name}.*.part")
        if part.name.split(".")[-2].isdigit()
    ]


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether this process holds the lock ``path`` during the block.

    The system frees the lock when the process ends, in any way. On systems
    without such locks (Windows) the result is always True.
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
