"""Functions that Numba compiles for the processor of this machine.

Numba is the extra ``fast``. A function is compiled for a dtype when it is first
called with it, and kept in a folder of this user, so that the next start reads
it from there. A compiled function holds no interpreter lock, so threads run
side by side. ``MINIMETA_FAST=0`` leaves Numba out.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SettingsError, one_line
from ..files import cache_folder

# The names of a dtype in Numba, and of its real numbers.
_TYPES = {
    np.dtype(np.float32): ("float32", "float32"),
    np.dtype(np.float64): ("float64", "float64"),
    np.dtype(np.complex128): ("complex128", "float64"),
}
DTYPES = frozenset(_TYPES)  # of the arrays that compiled functions take
# A product and a sum may become one operation with one rounding. No other order
# of operations changes.
OPTIONS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
_SLOW = 0.2  # seconds of compiling that are worth a message
_lock = threading.Lock()
_chosen: bool | None = None  # by ``twins``; None: by the environment
_told = False


def fast() -> bool:
    """Whether compiled functions are used: where Numba can be imported, and
    ``MINIMETA_FAST`` is not 0.

    Raises
    ------
    SettingsError
        if ``MINIMETA_FAST`` is neither 0 nor 1, or is 1 and Numba is missing.
    """
    return _by_environment() if _chosen is None else _chosen


@cache
def _by_environment() -> bool:
    asked = os.environ.get("MINIMETA_FAST", "")
    if asked not in ("", "0", "1"):
        raise SettingsError(f"MINIMETA_FAST must be 0 or 1, got {asked!r}: leave it out for 1")
    found = asked != "0" and find_spec("numba") is not None
    if asked == "1" and not found:
        raise SettingsError(
            "MINIMETA_FAST is 1, but Numba is not installed: pip install 'minimeta[fast]'"
        )
    return found and _numba() is not None


@cache
def _numba() -> Any:
    """Numba; None, with a warning, where it cannot be imported."""
    try:
        import numba
    except Exception as error:  # a version of NumPy that it does not know, a broken LLVM
        warnings.warn(
            f"minimeta computes without Numba, which cannot be imported: {one_line(error)}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return numba


def compiled_by() -> str | None:
    """Numba's version, where compiled functions are used."""
    return str(_numba().__version__) if fast() else None


@contextmanager
def twins(on: bool) -> Iterator[None]:
    """Use compiled functions inside the block, or do without them, in all
    threads of the process."""
    global _chosen
    if on and _numba() is None:
        raise SettingsError("compiled functions need Numba: pip install 'minimeta[fast]'")
    before, _chosen = _chosen, on
    try:
        yield
    finally:
        _chosen = before


class Compiled:
    """``function``, compiled for each dtype at its first call.

    ``kinds`` names the types of the arguments: "intp", "f8" and "b1" as in
    Numba, t for the dtype of the arrays and r for its real numbers.
    "t[:, ::1]" is a contiguous array of two axes, and "t[:, :]" one with any
    strides. "in t[:, :]" is only read, and may be read-only.
    """

    def __init__(self, function: Callable[..., None], kinds: tuple[str, ...]) -> None:
        self.function, self.kinds = function, kinds
        self._made: dict[np.dtype, Callable[..., None]] = {}

    def __call__(self, dtype: np.dtype, *arguments: Any) -> None:
        """Call the function compiled for ``dtype``."""
        made = self._made.get(dtype)
        if made is None:
            made = self._compile(dtype)
        made(*arguments)

    def _compile(self, dtype: np.dtype) -> Callable[..., None]:
        with _lock:
            if _numba().config.DISABLE_JIT:  # interpreted, for debuggers and mutants
                self._made[dtype] = self.function
            elif dtype not in self._made:
                types = [_type_of(kind, dtype) for kind in self.kinds]
                self._made[dtype] = _compiled(self.function, tuple(types))
        return self._made[dtype]


def compiles(*kinds: str) -> Callable[[Callable[..., None]], Compiled]:
    """A decorator that makes a function ``Compiled``."""
    return lambda function: Compiled(function, kinds)


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, compiled into those that call it."""
    return _numba().njit(**OPTIONS)(function)


def _type_of(kind: str, dtype: np.dtype) -> Any:
    """The type in Numba that a name of ``Compiled`` stands for."""
    types = _numba().types
    name, _, axes = kind.removeprefix("in ").partition("[")
    number = getattr(types, dict(zip("tr", _TYPES[dtype], strict=True)).get(name, name))
    if not axes:
        return number
    read = kind.startswith("in ")
    layout = "C" if "::1" in axes else "A"
    return types.Array(number, axes.count(",") + 1, layout, readonly=read, aligned=not read)


def _compiled(function: Callable[..., None], types: tuple) -> Callable[..., None]:
    """``function`` compiled for these types of its arguments, or read from the
    folder."""
    import time

    numba = _numba()
    folder, started = kernel_folder(), time.perf_counter()
    made = None if folder is None else _through_cache(folder, function, types)
    if made is None and folder is not None:  # a damaged file is made anew
        shutil.rmtree(folder, ignore_errors=True)
        made = _through_cache(folder, function, types)
    if made is None:
        folder, made = None, numba.njit([types], **OPTIONS)(function)
    if not made.stats.cache_hits and time.perf_counter() - started > _SLOW:
        _tell(folder)
    return made


def _through_cache(
    folder: Path, function: Callable[..., None], types: tuple
) -> Callable[..., None] | None:
    """``function``, compiled or read from ``folder``; None where that fails.

    A cache may fail in any way: damaged files, a full disk.
    """
    numba = _numba()
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(folder)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        return numba.njit([types], cache=True, **OPTIONS)(function)
    except Exception:
        return None
    finally:
        numba.config.CACHE_DIR = before


def _tell(folder: Path | None) -> None:
    """Say once that kernels are being compiled."""
    global _told
    if not _told:
        _told = True
        kept = "at every start, because no folder can keep them" if folder is None else "once"
        print(f"minimeta compiles its kernels for this processor, {kept}", file=sys.stderr)


@cache
def kernel_folder() -> Path | None:
    """The folder of compiled functions: a folder of this user, that no other
    may write.

    It lies in ``NUMBA_CACHE_DIR``, or in ``kernels`` in the folder for caches.
    Its name is a digest of all code that is compiled, since Numba would look at
    the file of a function alone, and not at those that it calls. None where
    there is no such folder. Numba unpickles the files in it, so a folder that
    others may write is not used.
    """
    named, caches = os.environ.get("NUMBA_CACHE_DIR"), cache_folder()
    if not named and caches is None:
        return None
    digest = sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    try:
        parent = Path(named) if named else caches / "kernels"
        folder = parent / f"minimeta-{digest.hexdigest()[:16]}"
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_mine(parent):
            return None
        folder.mkdir(mode=0o700, exist_ok=True)
        usable = _is_mine(folder) and os.access(folder, os.W_OK | os.X_OK)
        return folder if usable else None
    except (OSError, ValueError):
        return None


def _is_mine(folder: Path) -> bool:
    """Whether the folder is this user's, and no other may write it."""
    found = folder.stat()
    others = bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not others)
