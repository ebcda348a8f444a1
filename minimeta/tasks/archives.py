"""What the loaders of datasets share: where data and caches lie, what a cache was made from, and damage told in one line."""

from __future__ import annotations

import csv
import hashlib
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import DataError
from ..files import write_atomically

Dataset = TypeVar("Dataset")

_DAMAGE = (  # what readers of archives and of images raise over bytes that are not what they should be
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    SyntaxError,
    RuntimeError,
    ValueError,
    LookupError,
    struct.error,
    csv.Error,
)


def data_folder(data: str | os.PathLike | None) -> Path:
    """``data``, else ``MINIMETA_DATA``, else ``data`` in the user's cache folder."""
    chosen = data or os.environ.get("MINIMETA_DATA")
    return Path(chosen) if chosen else cache_folder(None) / "data"


def cache_folder(cache: str | os.PathLike | None) -> Path:
    """``cache``, else ``MINIMETA_CACHE``, else the user's cache folder."""
    chosen = cache or os.environ.get("MINIMETA_CACHE")
    if chosen:
        return Path(chosen)
    import pooch

    return Path(pooch.os_cache("minimeta"))


def fingerprint(preparation: str, states: Iterable[bytes]) -> str:
    """Names a cache by what was done to the data and by the state of each of its sources."""
    digest = hashlib.sha256(preparation.encode())
    for state in states:
        digest.update(state)
    return digest.hexdigest()[:16]


def state_of_file(path: Path) -> bytes:
    """Its bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def state_of_folder(folder: Path, names: Iterable[str]) -> bytes:
    """Names, sizes and times of the files ``names`` in it."""
    lines = []
    for name in names:
        with damage_told(folder / name):
            status = os.stat(folder / name)
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
    return "".join(lines).encode()


def names_in(archive: zipfile.ZipFile) -> list[str]:
    """Sorted names of what an archive holds; refuses paths that leave its folder, though nothing is ever unpacked."""
    names = sorted(archive.namelist())
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            raise DataError(
                f"{archive.filename} holds a path that leaves its folder, {name!r}: get it anew, from elsewhere"
            )
    return names


@contextmanager
def damage_told(what: object) -> Iterator[None]:
    """Inside, what goes wrong in reading archives and images is one DataError, "WHAT is damaged".

    What the system does not let us read is told as that.
    """
    from PIL import Image

    try:
        yield
    except DataError:
        raise
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{what} cannot be read: {error.strerror or error}") from error
    except (*_DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{what} is damaged: {error}") from error


def through_cache(
    path: Path,
    read: Callable[[], Dataset],
    pack: Callable[[Dataset], Mapping[str, np.ndarray]],
    unpack: Callable[[Mapping[str, np.ndarray]], Dataset],
) -> Dataset:
    """What the cache ``path`` holds; where there is none, what ``read`` gives, cached for the next time.

    One file of arrays, put in place whole, never unpickled; its checksums are verified.
    """
    if path.exists():
        return _read_cache(path, unpack)
    dataset = read()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: np.savez(file, **pack(dataset)))
    except OSError as error:
        warnings.warn(
            f"{path} could not be cached ({error}): it will be read anew each time", stacklevel=3
        )
    return dataset


def _read_cache(path: Path, unpack: Callable[[Mapping[str, np.ndarray]], Dataset]) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return unpack(stored)
    except MemoryError:
        raise
    except (
        Exception
    ) as error:  # whatever a reader of archives may meet in bytes that are not what it wrote
        raise DataError(
            f"the cache {path} is damaged ({error}): delete it, and it will be made anew"
        ) from error
