"""Caches of prepared datasets: one file of arrays for each source.

A cache is written atomically and never unpickled. Its arrays' types and shapes
are judged before they are read, its values after.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import DataError, reason_of, shown
from ..files import parts_of, write_atomically
from .archives import is_refusal, opened_archive

Dataset = TypeVar("Dataset")
_NAME_LIMIT = 4 * 4096  # bytes of a name; NumPy takes 4 for a letter
_WRITING = threading.Lock()  # the threads of a process share one partial file
_ABANDONED = 3600.0  # seconds; a living writer writes all the time


class Stored(NamedTuple):
    """The dtype kind (``"U"`` or ``"u"``, of one byte) and the shape of a
    cached array. A range is the lengths that an axis may have."""

    kind: str
    shape: tuple[int | range, ...]

    def fits(self, shape: tuple[int, ...], dtype: np.dtype) -> bool:
        """Whether an array of ``shape`` and ``dtype`` is such an array."""
        size_fits = dtype.itemsize == 1 if self.kind == "u" else dtype.itemsize <= _NAME_LIMIT
        return (
            dtype.kind == self.kind
            and size_fits
            and len(shape) == len(self.shape)
            and all(
                length in (want if isinstance(want, range) else (want,))
                for length, want in zip(shape, self.shape, strict=True)
            )
        )


def through_cache(
    folder: Path | None,
    name: str,
    layout: Mapping[str, Stored],
    read: Callable[[], Dataset],
    pack: Callable[[Dataset], Mapping[str, np.ndarray]],
    unpack: Callable[[Mapping[str, np.ndarray]], Dataset],
) -> Dataset:
    """The dataset from the cache ``folder``/``name``, or from ``read`` if there
    is no cache.

    The result of ``read`` is cached for the next call, with the arrays of
    ``layout``. Where there is no folder for caches, or none that can be used, a
    warning says so.

    Raises
    ------
    DataError
        if the cache is damaged, or its arrays are not those of ``layout``.
    """
    path = Path(name) if folder is None else folder / name
    if folder is not None and os.path.exists(path):
        return _read_cache(path, layout, unpack)
    dataset = read()
    try:
        if folder is None:
            raise OSError("this user has no home folder; name a folder with MINIMETA_CACHE")
        with _WRITING:
            if not os.path.exists(path):
                _write_cache(path, pack(dataset))
    except OSError as error:
        warnings.warn(
            f"the cache {path} could not be written ({error}): the data will be read again "
            "each time",
            stacklevel=3,
        )
    return dataset


def _write_cache(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in parts_of(path):
        with suppress(FileNotFoundError):  # its writer has just renamed it
            if time.time() - part.stat().st_mtime > _ABANDONED:
                part.unlink()
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _read_cache(
    path: Path,
    layout: Mapping[str, Stored],
    unpack: Callable[[Mapping[str, np.ndarray]], Dataset],
) -> Dataset:
    try:
        with opened_archive(path) as archive:
            _check_layout(archive, layout)
            archive.fp.seek(0)
            with np.load(archive.fp, allow_pickle=False) as stored:
                return unpack(stored)
    except MemoryError:
        raise
    except Exception as error:  # a reader of archives may raise anything on damaged bytes
        fault = "cannot be read" if is_refusal(error) else "is damaged"
        reason = shown(reason_of(error), str, 200)
        raise DataError(
            f"the cache {path} {fault} ({reason}): delete the file, and the next run writes it "
            "again"
        ) from error


def _check_layout(archive: zipfile.ZipFile, layout: Mapping[str, Stored]) -> None:
    """Refuses other arrays than those of ``layout``, by their headers alone."""
    names = sorted(archive.namelist())
    if names != sorted(f"{name}.npy" for name in layout):
        raise ValueError(f"it holds {len(names)} arrays, not {' and '.join(layout)}")
    for name, wanted in layout.items():
        member = archive.getinfo(f"{name}.npy")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        with archive.open(member) as stored:
            if np.lib.format.read_magic(stored) != (1, 0):
                raise ValueError(f"{name} has a header of another version")
            try:
                shape, _, dtype = np.lib.format.read_array_header_1_0(stored)
            except MemoryError as error:  # the parser's answer to deep nesting
                raise ValueError(f"{name} has a header that is no header") from error
            if not wanted.fits(shape, dtype):
                raise ValueError(f"it holds {name} of dtype {dtype} and shape {shape}")
            if stored.tell() + prod(shape) * dtype.itemsize != member.file_size:
                raise ValueError(f"{name} is cut off")


def check_names(names: list[str]) -> None:
    """Refuses cached names that no loader writes.

    Raises
    ------
    ValueError
        if ``names`` are not sorted, or a name stands twice.
    """
    if names != sorted(set(names)):
        raise ValueError("its names are not sorted, or a name stands twice")
