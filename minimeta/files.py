"""Atomic writes, reads that never wait, and file locks."""

from __future__ import annotations

import errno
import os
import stat
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


def open_regular(path: Path) -> BinaryIO:
    """Opens the regular file ``path`` to read bytes. A link is followed.

    Nothing waits: a pipe in the place of a file is refused at once.

    Raises
    ------
    OSError
        if ``path`` cannot be opened, or is a folder, a pipe, a socket or a
        device.
    """

    def opened(name: str, flags: int) -> int:
        # Windows has no such flag
        descriptor = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ENXIO, "not a regular file", str(path))
        return descriptor

    return open(path, "rb", opener=opened)


def read_regular(path: Path, limit: int) -> bytes:
    """The bytes of the regular file ``path``, at most ``limit``.

    Raises
    ------
    OSError
        as for ``open_regular``, or if the file is larger than ``limit``.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
    return content


def write_new(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Creates the file ``path`` by what ``write`` writes, and replaces no file.

    A kill at any moment leaves no file ``path`` or the whole file.

    Raises
    ------
    FileExistsError
        if ``path`` exists.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
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
