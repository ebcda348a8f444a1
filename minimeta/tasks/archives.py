"""The shared parts of the dataset loaders.

They find the folder of the data, read archives without unpacking them, and turn
damage into one-line errors. Sizes are judged before anything is read.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError, reason_of, shown
from ..files import cache_folder, opened
from .images import UnreadableImage, is_hidden

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
_DIRECTORY_LIMIT = 2**24  # bytes of an archive's list of members


class Source(NamedTuple):
    """A file or folder of a dataset, and a remark on its contents."""

    path: Path
    remark: str


class Limits(NamedTuple):
    """The most bytes that a file of a dataset, and all its files, can need."""

    file: int
    total: int


def data_folder(data: str | os.PathLike | None) -> Path:
    """``data``, else ``MINIMETA_DATA``, else ``data`` in the user's cache
    folder.

    Raises
    ------
    DataError
        if all of these are missing.
    """
    chosen = data or os.environ.get("MINIMETA_DATA")
    if chosen:
        return Path(chosen)
    folder = cache_folder(None)
    if folder is None:
        raise DataError(
            "this user has no home folder, so there is no default folder for datasets: name one "
            "with --data or MINIMETA_DATA"
        )
    return folder / "data"


def first_of(places: Iterable[Path]) -> Path | None:
    """The first of ``places`` that exists."""
    for place in places:
        with damage_told(place):
            if place.exists():
                return place
    return None


def files_below(folder: Path, depth: int, prefix: str = "") -> Iterator[str]:
    """The paths of what lies ``depth`` folders below ``folder``, sorted.

    Links to folders are followed. Hidden names are passed over.

    Raises
    ------
    DataError
        if a folder cannot be read.
    """
    with damage_told(folder):
        names = sorted(os.listdir(folder))
    for name in names:
        if is_hidden(name):
            continue
        if depth == 0:
            yield prefix + name
        elif os.path.isdir(folder / name):
            yield from files_below(folder / name, depth - 1, f"{prefix}{name}/")


def fingerprint(preparation: str, states: Iterable[bytes]) -> str:
    """The name of a cache: a hash of the preparation and of its sources'
    states."""
    digest = hashlib.sha256(preparation.encode())
    for state in states:
        digest.update(state)
    return digest.hexdigest()[:16]


def state_of_file(path: Path, limit: int) -> bytes:
    """The SHA-256 digest of the file ``path``, of at most ``limit`` bytes."""
    digest, size = hashlib.sha256(), 0
    with damage_told(path), opened(path, "read", links=True) as file:
        while chunk := file.read(2**20):
            size += len(chunk)
            if size > limit:
                raise DataError(f"{path} has more than {limit} bytes: get the file again")
            digest.update(chunk)
    return digest.digest()


def state_of_folder(folder: Path, names: Iterable[str]) -> bytes:
    """Names, sizes and modification times of the files ``names`` in
    ``folder``."""
    lines = []
    for name in names:
        with damage_told(folder / name):
            status = os.stat(folder / name)
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}\n")
    return os.fsencode("".join(lines))


class _Reader(io.BufferedReader):
    """A file whose list of members cannot fill the memory.

    ``ZipFile`` reads an archive's whole list at once.
    """

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _DIRECTORY_LIMIT:
            raise zipfile.BadZipFile(f"its list of members has more than {_DIRECTORY_LIMIT} bytes")
        return super().read(size)


@contextmanager
def opened_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive ``path``, to read in memory. It is never unpacked."""
    plain = opened(path, "read", links=True).detach()
    with _Reader(plain) as file, zipfile.ZipFile(file) as archive:
        archive.filename = str(path)  # a file opened by its number has no name
        yield archive


def members_in(
    archive: zipfile.ZipFile, wanted: Callable[[str], bool], limits: Limits
) -> dict[str, zipfile.ZipInfo]:
    """The ``wanted`` members of an archive, by name and sorted.

    Every member is judged before any is read. Hidden members are passed over.
    A link in an archive is never followed.

    Raises
    ------
    DataError
        if a path leaves the archive's folder, or if a wanted member is stored
        twice, encrypted, a link, or larger than the dataset can need.
    """
    members: dict[str, zipfile.ZipInfo] = {}
    for member in sorted(archive.infolist(), key=lambda each: each.filename):
        name = member.filename
        parts = name.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or parts[0].endswith(":"):
            raise DataError(
                f"{archive.filename} holds a path that leaves its folder, {name!r}: "
                "get the archive again, from another source"
            )
        if member.is_dir() or is_hidden(name) or not wanted(name):
            continue
        fault = "is stored more than once" if name in members else _fault(member, limits.file)
        if fault:
            raise DataError(f"{archive.filename}: {name} {fault}: get the archive again")
        members[name] = member
    total = sum(member.file_size for member in members.values())
    if total > limits.total:
        raise DataError(
            f"{archive.filename} unpacks to {total} bytes, but the dataset needs at most "
            f"{limits.total}: get the archive again"
        )
    return members


def _fault(member: zipfile.ZipInfo, limit: int) -> str | None:
    if member.flag_bits & 1:
        return "is encrypted"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # the other methods unpack without a bound
        return f"is compressed by method {member.compress_type}, but only deflate is read"
    if member.file_size > limit:
        return f"unpacks to {member.file_size} bytes, more than the {limit} that an image can need"
    return None


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """The bytes of a member. No more is unpacked than its stated size."""
    with archive.open(member) as file:
        return b"".join(iter(lambda: file.read(2**20), b""))


def is_refusal(error: BaseException) -> bool:
    """Whether the system refused to read, so that the bytes are not to blame.

    EINVAL is no refusal: ``zipfile`` seeks to invalid places in damaged
    archives.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


@contextmanager
def damage_told(what: object) -> Iterator[None]:
    """Turns errors of reading archives and images into one-line DataErrors.

    Damaged bytes give "WHAT is damaged". A file that the system does not let us
    read, or an image that is not read, gives "WHAT cannot be read".
    """
    try:
        yield
    except DataError:
        raise
    except _DAMAGE as error:
        reason = shown(reason_of(error), str, 200)
        sound = is_refusal(error) or isinstance(error, UnreadableImage)
        raise DataError(
            f"{what} {'cannot be read' if sound else 'is damaged'}: {reason}"
        ) from error
