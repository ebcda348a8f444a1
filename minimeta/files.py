"""Files: opened without surprises, written atomically, and locked.

Every file of a run, a sweep or a folder of vectors is opened by ``opened``. So
no symbolic link leads out of such a folder, a pipe or a device in a file's
place is an error at once, and nothing is truncated. Readers judge the size of a
file, and of what its archive unpacks to, before they read it.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from .errors import one_line, reason_of

MEBIBYTE = 1 << 20

_FLAGS = {
    "read": os.O_RDONLY,
    "append": os.O_WRONLY | os.O_APPEND | os.O_CREAT,
    "lock": os.O_RDWR | os.O_CREAT,
    "new": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
}
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_SAFELY = 0  # flags that some systems lack
for _name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
    _SAFELY |= getattr(os, _name, 0)

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def opened(
    path: Path, mode: Literal["read", "append", "lock", "new"], links: bool = False
) -> BinaryIO:
    """The file ``path``, which is never truncated, and not waited for.

    "append" and "lock" create a missing file. "new" refuses a file that exists.
    With ``links``, a symbolic link to a plain file is followed.

    Raises
    ------
    FileExistsError, FileNotFoundError
    OSError
        if ``path`` is not a plain file.
    """
    writing = {"read": "rb", "append": "ab", "lock": "r+b", "new": "wb"}[mode]
    if not links and not hasattr(os, "O_NOFOLLOW"):
        _check_plain(path, _status_of_entry(path))
    flags = _FLAGS[mode] | (_SAFELY & ~_NOFOLLOW if links else _SAFELY)
    try:
        number = os.open(path, flags, 0o666)
    except (FileExistsError, FileNotFoundError):
        raise
    except OSError:  # a link, or a pipe that nobody reads: say so
        _check_plain(path, _status_of_entry(path))
        raise
    try:
        _check_plain(path, os.fstat(number))
        return os.fdopen(number, writing)
    except BaseException:
        os.close(number)
        raise


def _status_of_entry(path: Path) -> os.stat_result | None:
    with suppress(OSError):
        return os.lstat(path)
    return None


def _check_plain(path: Path, status: os.stat_result | None) -> None:
    """Raise an OSError if there is something other than a plain file."""
    if status is not None and not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        # ENXIO: the system refuses; no bytes are damaged.
        raise OSError(errno.ENXIO, f"it is {kind}, where a file is expected", str(path))


def read_bytes(path: Path, limit: int, links: bool = False) -> bytes:
    """The content of the file ``path``, opened by ``opened``.

    Raises
    ------
    ValueError
        if it has more than ``limit`` bytes.
    OSError
        if it cannot be read, or is not a plain file.
    """
    with opened(path, "read") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(size + 1) if size <= limit else b""  # it may grow meanwhile
    if max(size, len(content)) > limit:
        raise ValueError(f"it has {size} bytes, and {limit} or less are expected")
    return content


# JSON.


def read_json(path: Path, limit: int = MEBIBYTE) -> Any:
    """The JSON value in the file ``path``.

    Raises
    ------
    ValueError
        if the file is not JSON in UTF-8 as ``parsed_json`` takes it, or has
        more than ``limit`` bytes.
    OSError
        if it cannot be read, or is not a plain file.
    """
    return parsed_json(read_bytes(path, limit))


_DEEPEST = 100
_DEEP = "its values are nested too deeply"


def parsed_json(text: bytes) -> Any:
    """The JSON value of ``text`` in UTF-8.

    Raises
    ------
    ValueError
        with a text of one line, if ``text`` is anything else. NaN and
        Infinity, numbers beyond float64, and an object with a name twice are
        refused, although Python's own reader takes them.
    """
    try:
        value = json.loads(
            text.decode(),
            object_pairs_hook=_object,
            parse_constant=_refused_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except RecursionError:
        raise ValueError(_DEEP) from None
    except ValueError as error:
        raise ValueError(one_line(error)) from error
    # Fewer brackets than this cannot be nested more deeply.
    if text.count(b"{") + text.count(b"[") > _DEEPEST and _depth(value) > _DEEPEST:
        raise ValueError(_DEEP)
    return value


def _depth(value: Any) -> int:
    """How deeply lists and objects are nested in a JSON value."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"{name!r} occurs twice in one object")
        made[name] = value
    return made


def _refused_constant(word: str) -> Any:
    raise ValueError(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"the number {digits} is too large")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 309:  # more than any float64 has
        raise ValueError(f"a number of {len(digits)} digits is too large")
    return int(digits)


# Arrays.

_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(
    path: Path, limit: int, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of the npz file ``path``, by name. Nothing is unpickled.

    With ``names``, only the arrays of these names are unpacked. The sizes that
    the archive tells are judged before anything is unpacked.

    Raises
    ------
    ValueError
        if the file is not a whole npz, holds objects, or holds more than
        ``limit`` bytes of arrays.
    OSError
        if it cannot be read, or is not a plain file.
    """
    with opened(path, "read") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit + MEBIBYTE:  # some room for names and headers
            raise ValueError(f"it has {size} bytes, and about {limit} or less are expected")
        try:
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_members(members, limit)
                named = {each.filename.removesuffix(".npy"): each for each in members}
                return {
                    name: _array(archive.read(member))
                    for name, member in named.items()
                    if names is None or name in names
                }
        except (MemoryError, OSError):
            raise
        except Exception as error:  # a reader of archives may raise anything on damaged bytes
            raise ValueError(reason_of(error)) from error


def _check_members(members: list[zipfile.ZipInfo], limit: int) -> None:
    """Raise a ValueError if members would unpack to more than ``limit``."""
    names = {each.filename for each in members}
    if len(names) < len(members) or not all(name.endswith(".npy") for name in names):
        raise ValueError("it is not an archive of arrays (npz) with different names")
    if any(each.compress_type not in _COMPRESSIONS for each in members):
        raise ValueError("it is compressed in a way that NumPy does not write")
    unpacked = sum(each.file_size for each in members)
    if unpacked > limit + MEBIBYTE:
        raise ValueError(f"it unpacks to {unpacked} bytes, and about {limit} are expected")


def _array(content: bytes) -> np.ndarray:
    """The array in the bytes of an npy file.

    Raises
    ------
    ValueError
        if the header tells of another size than there is, or of objects.
    """
    file = io.BytesIO(content)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f"arrays of the npy version {version} are not read")
    try:
        shape, _, dtype = readers[version](file)
    except (MemoryError, RecursionError) as error:  # of the parser, on nested brackets
        raise ValueError("the header of an array is damaged") from error
    told = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or told != len(content) - file.tell():
        raise ValueError(
            f"an array of shape {shape} and {dtype} cannot be in {len(content) - file.tell()} bytes"
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


# Writing.


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Replaces the file ``path`` atomically by what ``write`` writes.

    A new file is written beside ``path``, flushed to disk, and renamed to
    ``path`` in one step. A kill at any moment leaves the old file or the new
    file, and at worst a partial file beside it (``parts_of``).
    """
    with _part(path, write) as part:
        os.replace(part, path)


def write_new(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Creates the file ``path`` with what ``write`` writes.

    A kill at any moment leaves the whole file or no file, and at worst a
    partial file beside it (``parts_of``). Of several processes that create
    ``path``, one succeeds.

    Raises
    ------
    FileExistsError
        if ``path`` exists, even as a link to nothing; it stays as it is.
    """
    with _part(path, write) as part:
        try:
            os.link(part, path)
        except FileExistsError:
            raise
        except OSError:  # some file systems have no hard links
            _rename_to_new(part, path)


@contextmanager
def _part(path: Path, write: Callable[[BinaryIO], Any]) -> Iterator[Path]:
    """A new file beside ``path``, flushed to disk; removed after the block."""
    unique = int.from_bytes(os.urandom(4), "little")  # threads share the process number
    part = path.with_name(f".{path.name}.{os.getpid()}.{unique}.part")
    file = opened(part, "new")
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        yield part
    finally:
        part.unlink(missing_ok=True)


def _rename_to_new(part: Path, path: Path) -> None:
    """Renames ``part`` to ``path``, which must not exist."""
    if os.name == "nt":
        os.rename(part, path)  # refuses a file that exists
        return
    import fcntl

    folder = os.open(path.parent, os.O_RDONLY)
    try:  # a lock on the folder, which ends with this process and leaves nothing behind
        fcntl.flock(folder, fcntl.LOCK_EX)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        os.rename(part, path)
    finally:
        os.close(folder)


def flush_file(path: Path) -> None:
    """Flush the file ``path`` to the disk, where a loss of power leaves it."""
    with opened(path, "append" if os.name == "nt" else "read") as file:
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Flush the names in the folder ``path`` to the disk: of new files, and of
    replaced ones."""
    if os.name == "nt":  # Windows opens no folders
        return
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def make_folder(path: Path) -> None:
    """Create the folder ``path`` and its parents, if needed.

    Raises
    ------
    OSError
        if it cannot be created, for any reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (ValueError, RecursionError) as error:  # a null character; thousands of parents
        told = f"it cannot be the name of a folder ({error})"
        raise OSError(errno.EINVAL, told, str(path)) from error


def parts_of(path: Path) -> list[Path]:
    """The partial files beside ``path`` that killed writers have left."""
    start, end = f".{path.name}.", ".part"
    return sorted(
        each
        for each in path.parent.iterdir()
        if (each.is_symlink() or not each.is_dir())
        and each.name.startswith(start)
        and each.name.endswith(end)
        and each.name[len(start) : -len(end)].replace(".", "").isdigit()
    )


def remove_parts_of(path: Path) -> None:
    """Remove the partial files beside ``path``.

    Call this only while no other process can be writing ``path``.
    """
    for part in parts_of(path):
        part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Whether this process holds the lock ``path`` during the block.

    The system frees the lock when the process ends, in any way. On systems
    without such locks (Windows) the result is always True.

    Raises
    ------
    OSError
        if ``path`` cannot be created, or is not a plain file.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    with opened(path, "lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def cache_folder(chosen: str | os.PathLike | None = None) -> Path | None:
    """The folder for caches: ``chosen``, else ``MINIMETA_CACHE``, else the one
    in the user's home.

    None for a user without a home.
    """
    from platformdirs import user_cache_dir

    named = chosen or os.environ.get("MINIMETA_CACHE")
    if named:
        return Path(named)
    try:
        folder = Path(user_cache_dir("minimeta"))
    except (RuntimeError, KeyError):  # no HOME, and no such user in the system
        return None
    return None if folder.parts[:1] == ("~",) else folder
