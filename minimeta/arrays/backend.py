"""The array-module switch, and the only file that imports CuPy.

All other functions work on the arrays that they are given. ``xp =
array_module(x)`` is NumPy or CuPy, and ``xp.exp(x)`` runs on the device of
``x``. No function converts silently between devices.
"""

from __future__ import annotations

import os
import re
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import DeviceError

Array = Any  # numpy.ndarray or cupy.ndarray: the code never asks which

DEVICES = ("cpu", "gpu")
# The distributions of CuPy that an extra of setup.cfg names.
_EXTRAS = {"cupy-cuda12x": "gpu", "cupy-cuda13x": "gpu13"}


def array_module(array: Array) -> ModuleType:
    """The module whose functions accept ``array``.

    It is numpy, cupy, or the result of ``array.__array_namespace__()``.

    Raises
    ------
    TypeError
        if ``array`` is not an array of any module (a list, a scalar).
    """
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    if type(array).__module__.partition(".")[0] == "cupy":
        import cupy

        return cupy
    namespace = getattr(array, "__array_namespace__", None)
    if namespace is None:
        raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")
    return namespace()


def device_module(device: str | None = None) -> ModuleType:
    """The array module of ``device``, numpy for ``"cpu"`` and cupy for
    ``"gpu"``.

    ``None`` reads the environment variable ``MINIMETA_DEVICE``, and falls back
    to ``"cpu"``.

    The first call for ``"gpu"`` lets the device compute a few numbers.

    Raises
    ------
    DeviceError
        for an unknown name, and for ``"gpu"`` where CuPy is missing or cannot
        compute: without a CUDA device, with a driver that is too old, without
        the CUDA toolkit. The message is one line, and says what to install.
    """
    if device is not None and not isinstance(device, str):
        raise DeviceError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    name = device or os.environ.get("MINIMETA_DEVICE") or "cpu"
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}: choose one of {', '.join(DEVICES)}")
    if name == "cpu":
        return np
    module, failure = _probed()
    if module is None:
        raise DeviceError(failure)
    return module


@cache
def _probed() -> tuple[ModuleType | None, str]:
    """CuPy, if it computes; or None, and what failed and what to do."""
    try:
        import cupy

        # Needs a device, its driver, the compiler of kernels, and cuBLAS.
        made = ((cupy.ones((2, 2)) + 1) @ cupy.ones((2, 2))).get()
    except Exception as error:  # CuPy and CUDA raise some twenty kinds of them
        wrong = " ".join(f"{type(error).__name__}: {error}".split())
    else:
        if np.array_equal(made, np.full((2, 2), 4.0)):
            return cupy, ""
        wrong = f"CuPy computes {made.tolist()} where every number is 4"
    return None, f"device 'gpu' does not work ({wrong}): {_remedy()}"


def _remedy() -> str:
    """What to install so that CuPy works, given what is installed."""
    from importlib import metadata

    either = "pip install 'minimeta[gpu]' for CUDA 12, or 'minimeta[gpu13]' for CUDA 13"
    found = {
        each.name.lower(): f"{each.name} {each.version}"
        for each in metadata.distributions()
        if each.name and re.fullmatch(r"cupy(-cuda\w+|-rocm[\w-]+)?", each.name.lower())
    }
    if not found:
        return f"no package of CuPy is installed: {either}"
    if len(found) > 1:
        return (
            f"{' and '.join(sorted(found.values()))} overwrite each other: "
            f"pip uninstall {' '.join(sorted(found))}, then {either}"
        )
    (name, told), *_ = found.items()
    extra = _EXTRAS.get(name)
    toolkit = f"pip install 'minimeta[{extra}]' adds the toolkit" if extra else "it needs no extra"
    return (
        f"{told} is installed, and needs an NVIDIA card, a driver (nvidia-smi lists both) and the "
        f"CUDA toolkit of its version: {toolkit}"
    )


def device_facts() -> dict[str, Any]:
    """The versions of CuPy and of CUDA, and the card, of the device "gpu".

    Raises
    ------
    DeviceError
        as ``device_module("gpu")`` does.
    """
    cupy = device_module("gpu")
    card = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
    return {
        "cupy": cupy.__version__,
        "cuda_runtime": _cuda_version(cupy.cuda.runtime.runtimeGetVersion()),
        "cuda_driver": _cuda_version(cupy.cuda.runtime.driverGetVersion()),
        "card": card["name"].decode(),
        "card_memory": int(card["totalGlobalMem"]),
    }


def _cuda_version(number: int) -> str:
    """12090 as "12.9"."""
    return f"{number // 1000}.{number % 1000 // 10}"


def to_host(array: Array) -> np.ndarray:
    """``array`` as a NumPy array, copied from its device if necessary."""
    return array if isinstance(array, (np.ndarray, np.generic)) else array.get()
