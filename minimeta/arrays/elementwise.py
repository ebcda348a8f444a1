"""Functions of arrays, element by element, that a device computes in one
kernel.

An array module computes an expression operation by operation. On a device each
operation is a kernel of its own, and starting a kernel takes longer than the
arithmetic on a small array. A function under ``elementwise`` is written once,
in plain array expressions. On the host it runs as it is written. On CuPy it
runs once on names in the place of arrays, which writes its expression in C++,
and CuPy compiles one kernel from that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from .backend import Array, array_module

Function = TypeVar("Function", bound=Callable[..., Any])


def compiles_kernels(array: Array) -> bool:
    """Whether the array module of ``array`` compiles kernels, as CuPy does."""
    return not isinstance(array, np.ndarray) and hasattr(array_module(array), "ElementwiseKernel")


def elementwise(function: Function) -> Function:
    """``function``, computed by one kernel where CuPy holds its arguments.

    The function takes at least one array. Its other arguments are arrays that
    broadcast against it, Python numbers, and None. It may use +, -, * and /,
    and ``array_module(x).sqrt``. It returns one result or a tuple of them, each
    of the broadcast shape of all arrays, or one of the arguments. It may ask
    whether an argument is None, and whether a number is 0 or 1: each answer has
    a kernel of its own. Arrays of different dtypes are computed as the function
    is written.
    """
    kernels: dict[tuple, _Kernel] = {}

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if isinstance(arguments[0], np.ndarray):  # most often; costs a small array least
            return function(*arguments)
        arrays = [each for each in arguments if hasattr(each, "dtype")]
        one_dtype = len({each.dtype for each in arrays}) == 1  # no array: names, of a kernel
        if not one_dtype or not compiles_kernels(arrays[0]):
            return function(*arguments)
        kinds = tuple(map(_kind, arguments))
        if kinds not in kernels:
            kernels[kinds] = _Kernel(function, kinds)
        return kernels[kinds](array_module(arrays[0]), arguments)

    return call


class _Kernel:
    """The kernel of ``function`` for arguments of such ``kinds``."""

    def __init__(self, function: Callable, kinds: tuple) -> None:
        self._places = [i for i, kind in enumerate(kinds) if isinstance(kind, str)]
        terms = {i: _Term(f"x{i}") for i in self._places}
        made = function(*(terms.get(i, kind) for i, kind in enumerate(kinds)))
        self._one = not isinstance(made, tuple)
        self._results = (made,) if self._one else made
        self._given = {id(term): i for i, term in terms.items()}
        new = [each for each in self._results if id(each) not in self._given]
        self._inputs = ", ".join(f"T x{i}" for i in self._places)
        self._outputs = ", ".join(f"T y{i}" for i in range(len(new)))
        self._text = "; ".join(f"y{i} = {each.text}" for i, each in enumerate(new))
        self._name, self._compiled = function.__name__.strip("_"), None

    def __call__(self, xp: Any, arguments: tuple) -> Any:
        if self._compiled is None:
            self._compiled = xp.ElementwiseKernel(
                self._inputs, self._outputs, self._text, f"minimeta_{self._name}"
            )
        made = self._compiled(*(arguments[i] for i in self._places))
        new = iter(made if isinstance(made, tuple) else (made,))
        results = tuple(
            arguments[self._given[id(each)]] if id(each) in self._given else next(new)
            for each in self._results
        )
        return results[0] if self._one else results


def _kind(argument: Any) -> Any:
    """What the text of a kernel depends on: None, 0 and 1 stand in the text,
    and other numbers and arrays are named in it."""
    if argument is None:
        return None
    if hasattr(argument, "dtype"):
        return "array"
    return int(argument) if argument in (0, 1) else "number"


class _Term:
    """An expression in C++ of type T, in the place of an array."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(sqrt=lambda term: _Term(f"sqrt({term.text})"))

    def __neg__(self) -> _Term:
        return _Term(f"(-{self.text})")


def _operation(sign: str, reflected: bool) -> Callable[[_Term, Any], _Term]:
    def operation(self: _Term, other: Any) -> _Term:
        text = other.text if isinstance(other, _Term) else f"T({other!r})"
        pair = (text, self.text) if reflected else (self.text, text)
        return _Term(f"({f' {sign} '.join(pair)})")

    return operation


for _name, _sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/")):
    setattr(_Term, f"__{_name}__", _operation(_sign, False))
    setattr(_Term, f"__r{_name}__", _operation(_sign, True))
