"""States of meta-training as named arrays, which files can hold.

A name consists of field names and of places in tuples: ``outer.m``,
``inner.0.v``. The classes of the states are not stored: a rule defines the
structure of its state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..arrays.backend import to_host
from ..errors import CheckpointError, SettingsError
from ..inner import InnerRule, with_parts
from .meta_training import MetaState

_NONE = "None"  # the word that stands for None in a file


class Rules(NamedTuple):
    """The rules whose states a run carries; they define the structure."""

    outer: InnerRule
    inner: InnerRule


def packed_state(state: MetaState) -> dict[str, np.ndarray]:
    """A state as named arrays on the host."""
    arrays = {"iteration": np.array(state.iteration), "meta": to_host(state.meta)}
    return arrays | packed("outer", state.outer) | packed("inner", state.inner)


def read_state(
    arrays: Mapping[str, np.ndarray],
    rules: Rules,
    xp: ModuleType = np,
    first_format: bool = False,
) -> MetaState:
    """The state in ``arrays``.

    A rule's state has the structure of its state after a step on zeros. In the
    first format a state that is None has no array, and further arrays are
    ignored.

    Raises
    ------
    CheckpointError
        if arrays are missing, have the wrong type, or belong to no rule.
    """
    left = dict(arrays)
    iteration = _item(taken(left, "iteration"), int, "iteration")
    meta = taken(left, "meta")
    if iteration < 0 or meta.ndim != 1 or meta.dtype.kind != "f":
        raise CheckpointError("iteration must be 0 or more, and meta a real vector")
    states = {}
    for name, rule in rules._asdict().items():
        absent = not any(each == name or each.startswith(f"{name}.") for each in left)
        structure = None if first_format and absent else structure_of(rule)
        if first_format and structure is None:
            left[name] = np.array(_NONE)
        states[name] = unpacked(left, name, structure, xp)
    if left and not first_format:
        raise CheckpointError(f"no state of the run's rules has {', '.join(sorted(left))}")
    return MetaState(iteration, xp.asarray(meta), states["outer"], states["inner"])


def structure_of(rule: InnerRule) -> Any:
    """The structure of a rule's state: its state after one step on zeros."""
    zeros = np.zeros((1, 1))
    with np.errstate(all="ignore"):
        return rule.step(zeros, zeros, None, 0)[1]


def packed(name: str, state: Any) -> dict[str, np.ndarray]:
    """A part of a state as arrays.

    Raises
    ------
    SettingsError
        if the state holds anything except arrays, numbers, None, and (named)
        tuples of these.
    """
    if isinstance(state, tuple):
        arrays: dict[str, np.ndarray] = {}
        for key, part in _parts(state):
            arrays |= packed(f"{name}.{key}", part)
        return arrays
    if state is None:
        return {name: np.array(_NONE)}
    number = isinstance(state, (bool, int, float, complex))
    array = np.array(state) if number else to_host(state) if hasattr(state, "shape") else None
    if array is None or array.dtype.kind not in "biufc":
        raise SettingsError(
            "a rule's state must consist of arrays, numbers, None, and tuples of these, "
            f"got {state!r} in {name}"
        )
    return {name: array}


def _parts(state: tuple) -> Iterable[tuple[str, Any]]:
    """The parts of a tuple, each with its field name or its place."""
    names = getattr(state, "_fields", None) or [str(place) for place in range(len(state))]
    return zip(names, state, strict=True)


def unpacked(left: dict[str, np.ndarray], name: str, structure: Any, xp: ModuleType) -> Any:
    """The part of a state called ``name``, taken out of ``left``."""
    if name in left and left[name].dtype.kind == "U" and left[name].tolist() == _NONE:
        del left[name]
        return None
    if isinstance(structure, tuple):
        parts = [unpacked(left, f"{name}.{key}", part, xp) for key, part in _parts(structure)]
        return with_parts(structure, parts)
    array = taken(left, name)
    for kind in (bool, int, float, complex):  # bool first, since a bool is an int
        if isinstance(structure, kind):
            return _item(array, kind, name)
    return xp.asarray(array)


def taken(left: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The array of this name, taken out of ``left``."""
    if name not in left:
        raise CheckpointError(f"it lacks {name}")
    array = left.pop(name)
    if array.dtype.kind not in "biufc":
        raise CheckpointError(f"{name} must hold numbers, got {array.dtype}")
    return array


def _item(array: np.ndarray, kind: type, name: str) -> Any:
    """The number of this kind in an array."""
    value = array.item() if array.ndim == 0 else None
    if type(value) is not kind:
        raise CheckpointError(f"{name} must be one number of type {kind.__name__}")
    return value


def read_meta(left: dict[str, np.ndarray], algorithm: Any, objective: Any) -> np.ndarray:
    """The meta-parameters, taken out of ``left``.

    Raises
    ------
    CheckpointError
        if they are missing, not finite, or do not fit the algorithm and the
        objective.
    """
    meta = taken(left, "meta")
    wanted = algorithm.init(objective, np.random.default_rng(0), meta.dtype).shape
    if meta.dtype.kind != "f" or meta.shape != wanted:
        raise CheckpointError(
            f"meta must hold real numbers of shape {wanted}, got {meta.dtype} of shape {meta.shape}"
        )
    if not np.isfinite(meta).all():
        raise CheckpointError("meta is not finite")
    return meta


def state_of(
    left: dict[str, np.ndarray], name: str, rule: InnerRule, meta: np.ndarray, xp: ModuleType
) -> Any:
    """The state of ``rule`` called ``name``, taken out of ``left``."""
    return unpacked(left, name, structure_of(rule), xp)
