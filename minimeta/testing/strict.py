"""An array module on the CPU that is as strict as CuPy.

Code that runs on this module does not mix devices. Its arrays hold a NumPy
array. Like CuPy's arrays, they refuse every NumPy function and every operation
with a NumPy array. Only ``asarray`` and ``array`` take host data in, and only
``get`` and Python's ``bool``, ``int``, ``float`` and ``complex`` give data out.
The module offers the CuPy functions that the library may use, and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

_TAKE_HOST_DATA = ("asarray", "array")
_CREATE = ("arange", "empty", "eye", "full", "linspace", "ones", "zeros")
_COMPUTE = (
    "abs",
    "add",
    "all",
    "any",
    "argmax",
    "broadcast_to",
    "concatenate",
    "cos",
    "dot",
    "einsum",
    "empty_like",
    "exp",
    "expand_dims",
    "expm1",
    "isfinite",
    "log",
    "log1p",
    "matmul",
    "maximum",
    "mean",
    "minimum",
    "moveaxis",
    "multiply",
    "negative",
    "ones_like",
    "ravel",
    "repeat",
    "rot90",
    "sign",
    "sin",
    "sqrt",
    "stack",
    "subtract",
    "sum",
    "take_along_axis",
    "tanh",
    "tensordot",
    "tile",
    "transpose",
    "where",
    "zeros_like",
)
_NAMES = (
    "bool_",
    "complex128",
    "float32",
    "float64",
    "int32",
    "int64",
    "nan",
    "newaxis",
    "pi",
    "uint8",
)
_METHODS = (
    "all",
    "any",
    "argmax",
    "argsort",
    "astype",
    "copy",
    "cumsum",
    "dot",
    "max",
    "mean",
    "min",
    "ravel",
    "repeat",
    "reshape",
    "squeeze",
    "sum",
    "swapaxes",
    "transpose",
    "__add__",
    "__sub__",
    "__mul__",
    "__truediv__",
    "__floordiv__",
    "__mod__",
    "__pow__",
    "__matmul__",
    "__radd__",
    "__rsub__",
    "__rmul__",
    "__rtruediv__",
    "__rpow__",
    "__rmatmul__",
    "__neg__",
    "__invert__",
    "__abs__",
    "__and__",
    "__or__",
    "__xor__",
    "__eq__",
    "__ne__",
    "__lt__",
    "__le__",
    "__gt__",
    "__ge__",
)
_IN_PLACE = ("__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__")


class StrictArray:
    """An array that NumPy cannot touch."""

    __array_ufunc__ = None
    __hash__ = None

    def __init__(self, values: np.ndarray) -> None:
        self._values = np.asarray(values)

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("implicit conversion of a device array to a NumPy array: use get()")

    def __array_function__(self, function: Callable, *_: Any) -> Any:
        raise TypeError(
            f"numpy.{function.__name__} was called on a device array: "
            f"use array_module(x).{function.__name__}"
        )

    def __array_namespace__(self) -> ModuleType:
        return module

    def get(self) -> np.ndarray:
        """A copy on the host."""
        return self._awaited().copy()

    def _awaited(self) -> np.ndarray:
        if _no_waiting:
            raise TypeError("the host would wait for the device here: leave the number there")
        return self._values

    def __setitem__(self, key: Any, value: Any) -> None:
        self._values[_inside(key)] = _inside(value)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self):
        return (StrictArray(row) for row in self._values)

    def __float__(self) -> float:
        return float(self._awaited())

    def __complex__(self) -> complex:
        return complex(self._awaited())

    def __int__(self) -> int:
        return int(self._awaited())

    def __bool__(self) -> bool:
        return bool(self._awaited())

    def __repr__(self) -> str:
        return f"StrictArray({self._values!r})"

    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    shape = property(lambda self: self._values.shape)
    size = property(lambda self: self._values.size)
    strides = property(lambda self: self._values.strides)
    real = property(lambda self: StrictArray(self._values.real))
    imag = property(lambda self: StrictArray(self._values.imag))


_no_waiting: list[None] = []  # one entry per open no_waiting context


@contextmanager
def no_waiting() -> Iterator[None]:
    """Inside, every operation that makes the host wait for the device raises.

    These operations are ``get``, and the use of an array as a bool or a number.
    """
    _no_waiting.append(None)
    try:
        yield
    finally:
        _no_waiting.pop()


def _item(self: StrictArray, key: Any) -> Any:
    """``self[key]``. Only the device knows how many items a mask selects."""
    keys = key if isinstance(key, tuple) else (key,)
    if _no_waiting and any(
        isinstance(each, StrictArray) and each.dtype.kind == "b" for each in keys
    ):
        raise TypeError(
            "the host would wait for the device here: an array's shape would depend on a mask"
        )
    return _outside(self._values[_inside(key)])


def _inside(value: Any) -> Any:
    """The NumPy array in a StrictArray, also inside tuples and lists.

    A bare NumPy array raises a TypeError.
    """
    if isinstance(value, StrictArray):
        return value._values
    if isinstance(value, np.ndarray):
        raise TypeError("a NumPy array was mixed with a device array: xp.asarray() moves it there")
    if isinstance(value, (tuple, list)):
        return type(value)(_inside(each) for each in value)
    return value


def _outside(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_outside(each) for each in value)
    return StrictArray(value) if isinstance(value, (np.ndarray, np.generic)) else value


def _wrapped(function: Callable) -> Callable:
    def call(*arguments: Any, **options: Any) -> Any:
        options = {name: _inside(value) for name, value in options.items()}
        return _outside(function(*(_inside(each) for each in arguments), **options))

    return call


def _in_place(method: str) -> Callable:
    def call(self: StrictArray, other: Any) -> StrictArray:
        self._values = getattr(self._values, method)(_inside(other))
        return self

    return call


def _taking_host_data(function: Callable) -> Callable:
    def call(values: Any, *arguments: Any, **options: Any) -> StrictArray:
        plain = values._values if isinstance(values, StrictArray) else values
        return StrictArray(function(plain, *arguments, **options))

    return call


for _name in _METHODS:
    setattr(StrictArray, _name, _wrapped(getattr(np.ndarray, _name)))
StrictArray.__getitem__ = _item
for _name in _IN_PLACE:
    setattr(StrictArray, _name, _in_place(_name))

module = ModuleType("strict", __doc__)
for _name in _TAKE_HOST_DATA:
    setattr(module, _name, _taking_host_data(getattr(np, _name)))
for _name in (*_CREATE, *_COMPUTE):
    setattr(module, _name, _wrapped(getattr(np, _name)))
for _name in _NAMES:
    setattr(module, _name, getattr(np, _name))
module.ndarray = StrictArray
module.lib = SimpleNamespace(
    stride_tricks=SimpleNamespace(as_strided=_wrapped(np.lib.stride_tricks.as_strided))
)
module.linalg = SimpleNamespace(
    lstsq=_wrapped(np.linalg.lstsq),
    matrix_power=_wrapped(np.linalg.matrix_power),
    norm=_wrapped(np.linalg.norm),
    solve=_wrapped(np.linalg.solve),
)
