"""The array-module switch, and the only file that imports CuPy.

All other functions work on the arrays that they are given. ``xp =
array_module(x)`` is NumPy or CuPy, and ``xp.exp(x)`` runs on the device of
``x``. No function converts silently between devices.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import DeviceError

Array = Any  # numpy.ndarray or cupy.ndarray: the code never asks which

DEVICES = ("cpu", "gpu")


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

    Raises
    ------
    DeviceError
        for an unknown name, for ``"gpu"`` without CuPy, and for ``"gpu"``
        without a CUDA device.
    """
    name = device or os.environ.get("MINIMETA_DEVICE") or "cpu"
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}: choose one of {', '.join(DEVICES)}")
    if name == "cpu":
        return np
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            f"device 'gpu' needs CuPy, which cannot be imported ({error}): "
            "pip install 'minimeta[gpu]'"
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"device 'gpu': CuPy is installed, but there is no CUDA device ({error})"
        ) from error
    if count == 0:
        raise DeviceError("device 'gpu': CuPy is installed, but there is no CUDA device")
    return cupy


def to_host(array: Array) -> np.ndarray:
    """``array`` as a NumPy array, copied from its device if necessary."""
    return array if isinstance(array, (np.ndarray, np.generic)) else array.get()
