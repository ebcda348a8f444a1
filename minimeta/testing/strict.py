"""An array module on the CPU that is as strict as CuPy.

Code that runs on this module does not mix devices. Its arrays hold a NumPy
array. Like CuPy's arrays, they refuse every NumPy function and every operation
with a NumPy array. Only ``asarray`` takes host data in, and only
``get`` and Python's ``bool``, ``int``, ``float`` and ``complex`` give data out.
The module offers the functions and methods of the lists ``FUNCTIONS`` and
``METHODS``, with the keywords there, and no others: CuPy has all of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

# What the library asks of an array module. An entry names a function, and the
# keywords that it is given. CuPy's reference must have a new entry: NumPy has
# functions, and its functions have keywords, that CuPy lacks.
FUNCTIONS: dict[str, tuple[str, ...]] = {
    "abs": (),
    "arange": (),
    "asarray": ("dtype",),
    "broadcast_to": (),
    "concatenate": ("axis",),
    "einsum": (),
    "empty": ("dtype",),
    "exp": (),
    "expm1": (),
    "eye": ("dtype",),
    "isfinite": (),
    "lib.stride_tricks.as_strided": (),
    "linalg.lstsq": ("rcond",),
    "linalg.matrix_power": (),
    "linalg.solve": (),
    "log": (),
    "log1p": (),
    "maximum": (),
    "multiply": ("out",),
    "ones": ("dtype",),
    "ones_like": (),
    "sign": (),
    "sqrt": (),
    "stack": ("axis",),
    "subtract": ("out",),
    "take_along_axis": ("axis",),
    "tanh": (),
    "where": (),
    "zeros": ("dtype",),
    "zeros_like": (),
}
METHODS: dict[str, tuple[str, ...]] = {
    "all": ("axis",),
    "argmax": ("axis",),
    "astype": ("copy",),
    "copy": (),
    "max": (),
    "mean": ("axis",),
    "min": (),
    "ravel": (),
    "reshape": (),
    "sum": ("axis", "keepdims"),
    "swapaxes": (),
}
# Where a module compiles kernels, as CuPy does, the library asks for these too.
CUPY_ONLY = (
    "ElementwiseKernel",
    "ReductionKernel",
    "cuda.Device",
    "cuda.runtime.driverGetVersion",
    "cuda.runtime.getDeviceProperties",
    "cuda.runtime.runtimeGetVersion",
    "get_default_memory_pool",
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
_OPERATORS = (
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

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(_unlisted(f"method {name}()", "METHODS"))

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


def _unlisted(what: str, where: str) -> str:
    return (
        f"the array {what} is not in the list {where} of minimeta/testing/strict.py: check that "
        "CuPy's reference has it, then add it to the list"
    )


def _checked(name: str, where: str, listed: tuple[str, ...], options: dict[str, Any]) -> None:
    for option in options:
        if option not in listed:
            raise TypeError(_unlisted(f"keyword {name}({option}=...)", where))


def _wrapped(function: Callable, name: str, where: str, listed: tuple[str, ...]) -> Callable:
    def call(*arguments: Any, **options: Any) -> Any:
        _checked(name, where, listed, options)
        options = {name: _inside(value) for name, value in options.items()}
        return _outside(function(*(_inside(each) for each in arguments), **options))

    return call


def _in_place(method: str) -> Callable:
    def call(self: StrictArray, other: Any) -> StrictArray:
        self._values = getattr(self._values, method)(_inside(other))
        return self

    return call


def _taking_host_data(function: Callable, name: str, listed: tuple[str, ...]) -> Callable:
    def call(values: Any, *arguments: Any, **options: Any) -> StrictArray:
        _checked(name, "FUNCTIONS", listed, options)
        plain = values._values if isinstance(values, StrictArray) else values
        return StrictArray(function(plain, *arguments, **options))

    return call


def _module() -> ModuleType:
    """The module, with NumPy's function behind every name of ``FUNCTIONS``."""
    made = ModuleType("strict", __doc__)
    for path, listed in FUNCTIONS.items():
        *folders, name = path.split(".")
        place, source = made, np
        for folder in folders:
            if folder not in vars(place):
                setattr(place, folder, SimpleNamespace())
            place, source = getattr(place, folder), getattr(source, folder)
        function = getattr(source, name)
        setattr(place, name, _wrapped(function, path, "FUNCTIONS", listed))
    made.asarray = _taking_host_data(np.asarray, "asarray", FUNCTIONS["asarray"])
    for name in _NAMES:
        setattr(made, name, getattr(np, name))

    def missing(name: str) -> Any:
        raise AttributeError(_unlisted(f"function {name}()", "FUNCTIONS"))

    made.__getattr__ = missing
    made.ndarray = StrictArray
    return made


for _name, _listed in (METHODS | dict.fromkeys(_OPERATORS, ())).items():
    setattr(StrictArray, _name, _wrapped(getattr(np.ndarray, _name), _name, "METHODS", _listed))
StrictArray.__getitem__ = _item
for _name in _IN_PLACE:
    setattr(StrictArray, _name, _in_place(_name))
module = _module()
