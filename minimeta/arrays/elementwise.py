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
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from .backend import Array, array_module

Function = TypeVar("Function", bound=Callable[..., Any])

_ARRAY, _NUMBER = "T", "float64"  # types in the text of a kernel


def compiles_kernels(array: Array) -> bool:
    """Whether the array module of ``array`` compiles kernels, as CuPy does."""
    if type(array) is np.ndarray:  # first, since a small array takes as long as a call
        return False
    return hasattr(array_module(array), "ElementwiseKernel")


def elementwise(
    function: Function | None = None, *, twin: Callable[..., Callable | None] | None = None
) -> Any:
    """``function``, computed by one kernel where CuPy holds its arguments.

    ``twin`` gives, for the arguments of a call on the host, the compiled
    function that computes the same, or None.

    The function takes at least one array. Its other arguments are arrays that
    broadcast against it, Python numbers, and None. It may use +, -, * and /,
    and ``array_module(x).sqrt``. It returns one result or a tuple of them, each
    one of the arguments, or new and of the broadcast shape of all arrays. At
    least one is new. The function may ask
    whether an argument is None, and whether a number is 0 or 1: each answer has
    a kernel of its own. Arrays of different dtypes are computed as the function
    is written.
    """
    if function is None:
        return lambda function: elementwise(function, twin=twin)
    kernels: dict[tuple, _Kernel] = {}

    @wraps(function)
    def call(*arguments: Any) -> Any:
        if type(arguments[0]) is np.ndarray:
            compiled = None if twin is None else twin(*arguments)
            return (compiled or function)(*arguments)
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
        terms = {i: _Term(f"x{i}", kinds[i]) for i in self._places}
        made = function(*(terms.get(i, kind) for i, kind in enumerate(kinds)))
        self._one = not isinstance(made, tuple)
        results = (made,) if self._one else made
        # The place of the argument that a result is, or None for a new array.
        self._sources = [next((i for i in terms if terms[i] is each), None) for each in results]
        new = [each for each, i in zip(results, self._sources, strict=True) if i is None]
        self._text = (
            ", ".join(f"{kinds[i]} x{i}" for i in self._places),
            ", ".join(f"{_ARRAY} y{i}" for i in range(len(new))),
            "; ".join(f"y{i} = {each.in_kind(_ARRAY)}" for i, each in enumerate(new)),
            f"minimeta_{function.__name__.strip('_')}",
        )
        self._compiled: Any = None

    def __call__(self, xp: ModuleType, arguments: tuple) -> Any:
        if self._compiled is None:
            self._compiled = xp.ElementwiseKernel(*self._text)
        made = self._compiled(*(arguments[i] for i in self._places))
        new = iter(made if isinstance(made, tuple) else (made,))
        results = tuple(next(new) if i is None else arguments[i] for i in self._sources)
        return results[0] if self._one else results


def _kind(argument: Any) -> Any:
    """What the text of a kernel depends on: None, 0 and 1 stand in the text,
    and other numbers and arrays are named in it."""
    if argument is None:
        return None
    if hasattr(argument, "dtype"):
        return _ARRAY
    return int(argument) if argument in (0, 1) else _NUMBER


class _Term:
    """An expression in C++, in the place of an array or of a number.

    As in Python, numbers are computed with each other in float64, whatever the
    dtype of the arrays: 1 - 0.999 has three digits less in float32.
    """

    def __init__(self, text: str, kind: str) -> None:
        self.text, self.kind = text, kind

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(sqrt=lambda term: _Term(f"sqrt({term.text})", term.kind))

    def __neg__(self) -> _Term:
        return _Term(f"(-{self.text})", self.kind)

    def in_kind(self, kind: str) -> str:
        """The text, converted where ``kind`` is another."""
        return self.text if self.kind == kind else f"{kind}({self.text})"


def _operation(sign: str, reflected: bool) -> Callable[[_Term, Any], _Term]:
    def operation(self: _Term, other: Any) -> _Term:
        other = other if isinstance(other, _Term) else _Term(repr(float(other)), _NUMBER)
        kind = _NUMBER if self.kind == other.kind == _NUMBER else _ARRAY
        pair = (other, self) if reflected else (self, other)
        return _Term(f"({f' {sign} '.join(each.in_kind(kind) for each in pair)})", kind)

    return operation


for _name, _sign in (("add", "+"), ("sub", "-"), ("mul", "*"), ("truediv", "/")):
    setattr(_Term, f"__{_name}__", _operation(_sign, False))
    setattr(_Term, f"__r{_name}__", _operation(_sign, True))
