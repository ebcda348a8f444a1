"""Arrays that users give, as arrays of tasks.

Users give one task, ``x (N, *input)``, or many with a leading task axis, ``x
(T, N, *input)``. For one task the last axis may be left out where it has length
1: ``x (N,)`` for one feature, and ``x (N, height, width)`` for one channel.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from ..arrays.backend import Array, to_host
from ..errors import SettingsError, ShapeError, one_line


class Inputs(NamedTuple):
    """Inputs ``x (T, N, *input)``, and whether the user gave ``one`` task."""

    x: np.ndarray
    one: bool


class Targets(NamedTuple):
    """Targets ``y (T, N, *target)`` as the loss takes them.

    ``classes``, ``(T, c)``, holds the user's labels of the classes, sorted, or
    is None in regression. ``flat`` says that the user left out the last axis.
    """

    y: np.ndarray
    classes: np.ndarray | None
    flat: bool


def given_inputs(x: Any, shape: tuple[int, ...]) -> Inputs:
    """The inputs of one task or of many, on the host.

    Raises
    ------
    ShapeError
        if x has another shape, or no examples.
    SettingsError
        if x does not hold finite real numbers.
    """
    x = _numbers("x", x)
    without = shape[:-1] if shape[-1:] == (1,) else None
    if x.shape[1:] == shape:
        x, one = x[None], True
    elif without is not None and x.ndim > 0 and x.shape[1:] == without:
        x, one = x[None, ..., None], True
    elif x.ndim == len(shape) + 2 and x.shape[2:] == shape:
        one = False
    else:
        raise ShapeError(
            f"x must have shape {_told('N', shape)} for one task or {_told('T, N', shape)} for T "
            f"tasks of N examples, got {x.shape}"
        )
    if 0 in x.shape[:2]:
        raise ShapeError(f"x holds no examples: it has shape {x.shape[one:]}")
    return Inputs(x, one)


def given_values(y: Any, inputs: Inputs, shape: tuple[int, ...]) -> Targets:
    """The targets of a regression.

    Raises
    ------
    ShapeError
        if y has another shape.
    SettingsError
        if y does not hold finite real numbers.
    """
    y, lead = _numbers("y", y), inputs.x.shape[inputs.one : 2]
    flat = shape == (1,) and y.shape == lead
    if not flat and y.shape != (*lead, *shape):
        flat_too = f"{lead} or " if shape == (1,) else ""
        raise ShapeError(
            f"y must have shape {flat_too}{(*lead, *shape)}, a target for each example of x, "
            f"got {y.shape}"
        )
    return Targets(y.reshape(*inputs.x.shape[:2], *shape), None, flat)


def given_labels(y: Any, inputs: Inputs, most: int) -> Targets:
    """The targets of a classification: in each task, its labels become 0, 1, ..

    Raises
    ------
    ShapeError
        if y has another shape.
    SettingsError
        if a task has more than ``most`` classes, or tasks have different
        numbers of classes, or labels are not whole numbers or words.
    """
    y, lead = _labels(y), inputs.x.shape[inputs.one : 2]
    if y.shape != lead:
        raise ShapeError(f"y must have shape {lead}, one label for each example, got {y.shape}")
    pairs = [np.unique(row, return_inverse=True) for row in y.reshape(inputs.x.shape[:2])]
    counts = {len(classes) for classes, _ in pairs}
    if max(counts) > most:
        raise SettingsError(
            f"this learner tells {most} classes apart, but y holds {max(counts)}: "
            f"give it tasks of at most {most} classes"
        )
    if len(counts) > 1:
        raise SettingsError(
            f"all tasks must have equally many classes, but y has from {min(counts)} to "
            f"{max(counts)}: fit the tasks one by one"
        )
    classes = np.stack([classes for classes, _ in pairs])
    return Targets(np.stack([places for _, places in pairs]).astype(np.int64), classes, False)


def _on_host(name: str, array: Any) -> np.ndarray:
    """An array, a list or a table as a NumPy array.

    Raises
    ------
    SettingsError
        if rows have different lengths, or numbers are masked.
    """
    # Tables and dictionaries have a method get too.
    if hasattr(array, "get") and hasattr(array, "__cuda_array_interface__"):
        array = to_host(array)
    if np.ma.is_masked(array):
        raise SettingsError(f"{name} has masked numbers: fill them, or leave their examples out")
    try:
        return np.asarray(array)
    except ValueError as error:
        raise SettingsError(f"{name} cannot be made an array: {one_line(error)}") from error


def _labels(y: Any) -> np.ndarray:
    """Labels of one kind, as an array of whole numbers or words.

    Raises
    ------
    SettingsError
        if the labels are of another kind, or of two kinds.
    """
    array = _on_host("y", y)
    if array.dtype.kind in "OUS":  # NumPy would make words of the numbers among words
        listed = np.asarray(y, dtype=object)
        if listed.shape == array.shape and listed.size:
            kinds = {str if isinstance(each, str) else type(each) for each in listed.flat}
            if kinds == {str}:
                return listed.astype(str)
            if all(issubclass(kind, (int, np.integer)) for kind in kinds):
                with suppress(OverflowError):
                    return listed.astype(np.int64)
            array = listed
    if array.dtype.kind in "biuS":
        return array
    kinds = {type(each).__name__ for each in array.flat} if array.dtype.kind == "O" else set()
    told = " and ".join(sorted(kinds)) or str(array.dtype)
    raise SettingsError(f"labels of classes must be whole numbers, or all be words, got {told}")


def _numbers(name: str, array: Any) -> np.ndarray:
    """The array on the host, after a check that it holds finite numbers."""
    array = _on_host(name, array)
    if array.dtype.kind == "O":
        with suppress(TypeError, ValueError, OverflowError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "biuf":
        raise SettingsError(f"{name} must hold real numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise SettingsError(f"{name} must be finite, but some of its numbers are infinite or NaN")
    return array


def _told(first: str, shape: tuple[int, ...]) -> str:
    return "(" + ", ".join([first, *map(str, shape)]) + ("" if shape else ",") + ")"


def as_given(array: Array, one: bool) -> np.ndarray:
    """A result ``(T, ...)`` on the host, without task axis for one task."""
    array = to_host(array)
    return array[0] if one else array
