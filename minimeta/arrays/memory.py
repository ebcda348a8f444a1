"""The memory of the host, how much is in use, and what cannot fit into it.

A meta-step allocates and frees the same few large arrays again and again. By
default glibc returns such memory to the system at once, so every new array
costs page faults. The page faults take half the time of an Omniglot meta-step,
and two thirds of a sine meta-step. ``keep_freed_memory`` tells malloc to keep
freed memory.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np

from ..errors import SettingsError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP_BYTES = 1 << 30
_LARGEST_HEAP_BLOCK = 1 << 25  # the largest value that every glibc accepts


@cache
def keep_freed_memory() -> bool:
    """Let glibc's malloc keep freed memory for the next array, in the whole
    process.

    Meta-training and evaluation call it when they begin; importing the package
    does not. Call it before a loop of your own: an Omniglot meta-step then
    takes half the time. ``MINIMETA_MALLOC=default`` leaves malloc as it is.
    With any other C library nothing happens. Returns whether malloc accepted
    the setting.
    """
    if os.environ.get("MINIMETA_MALLOC") == "default" or not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return False
    return bool(
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)
        and libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
    )


def physical_memory() -> int | None:
    """The memory of this machine in bytes; None where it is not known."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None


def refuse_beyond_memory(numbers: int, itemsize: int = 4) -> None:
    """Raise a SettingsError if the machine cannot hold that many numbers.

    A number takes ``itemsize`` bytes. Linux would grant the memory, and kill
    the process once it uses it.
    """
    memory, needed = physical_memory(), itemsize * numbers
    if memory is not None and needed > memory:
        raise SettingsError(
            f"these settings need at least {needed / 2**30:.3g} GiB of memory, but this machine "
            f"has {memory / 2**30:.3g} GiB: make sizes, shots or meta_batch smaller"
        )


def peak_memory(xp: ModuleType = np) -> int | None:
    """The most memory so far, in bytes, where the arrays of ``xp`` are.

    On the host it is the largest resident size of this process, or None where
    the system does not report it. On CuPy it is the size of CuPy's pool of
    device memory, which keeps what it once took.
    """
    if hasattr(xp, "get_default_memory_pool"):
        return int(xp.get_default_memory_pool().total_bytes())
    try:
        import resource
    except ImportError:
        return None
    # On Linux ru_maxrss starts at the value of the parent process, so VmHWM is
    # preferred.
    status = Path("/proc/self/status")
    if status.exists() and (
        told := re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    ):
        return 1024 * int(told[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
