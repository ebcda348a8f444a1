"""The shared parts of the dataset loaders.

They find the folders of data and caches, name a cache by its sources, and turn
damage into one-line errors.
"""

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

_DAMAGE = (  # raised by readers of archives and images on damaged bytes
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
    """``data``, else ``MINIMETA_DATA``, else ``data`` in the user's cache
    folder."""
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
    """The name of a cache: a hash of the preparation and of its sources'
    states."""
    digest = hashlib.sha256(preparation.encode())
    for state in states:
        digest.update(state)
    return digest.hexdigest()[:16]


def state_of_file(path: Path) -> bytes:
    """The SHA-256 digest of the file at ``path``."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def state_of_folder(folder: Path, names: Iterable[str]) -> bytes:
    """Names, sizes and modification times of the files ``names`` in
    ``folder``."""
    lines = []
    for name in names:
        with damage_told(folder / name):
            status = os.stat(folder / name)
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
    return "".join(lines).encode()


def names_in(archive: zipfile.ZipFile) -> list[str]:
    """The sorted names of an archive's members.

    Nothing is ever unpacked. Paths that leave the archive's folder are refused
    all the same.

    Raises
    ------
    DataError
        if a path leaves the archive's folder.
    """
    names = sorted(archive.namelist())
    for name in names:
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            raise DataError(
                f"{archive.filename} holds a path that leaves its folder, {name!r}: "
                "get the archive again, from another source"
            )
    return names


@contextmanager
def damage_told(what: object) -> Iterator[None]:
    """Turns errors of reading archives and images into one-line DataErrors.

    Damaged bytes give "WHAT is damaged". A file that the system does not let us
    read gives "WHAT cannot be read".
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
    """The dataset from the cache ``path``, or from ``read`` if there is no
    cache.

    The result of ``read`` is cached for the next call. A cache is one file of
    arrays. It is written atomically and never unpickled, and its checksums are
    verified.

    Raises
    ------
    DataError
        if the cache is damaged.
    """
    if path.exists():
        return _read_cache(path, unpack)
    dataset = read()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: np.savez(file, **pack(dataset)))
    except OSError as error:
        warnings.warn(
            f"the cache {path} could not be written ({error}): the data will be read again "
            "each time",
            stacklevel=3,
        )
    return dataset


def _read_cache(path: Path, unpack: Callable[[Mapping[str, np.ndarray]], Dataset]) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return unpack(stored)
    except MemoryError:
        raise
    except Exception as error:  # a reader of archives may raise anything on damaged bytes
        raise DataError(
            f"the cache {path} is damaged ({error}): delete the file, and the next run writes it "
            "again"
        ) from error
