"""States of meta-training as named arrays, which files can hold.

A name consists of field names and of places in tuples: ``outer.m``,
``inner.0.v``. The classes of the states are not stored: a rule defines the
structure of its state.
"""

from __future__ import annotations

import cmath
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..algorithms import Algorithm
from ..arrays.backend import array_module, to_host
from ..errors import CheckpointError, DivergenceError, SettingsError
from ..inner import InnerRule, named_parts, with_parts
from ..objectives import Differentiable
from .meta_training import MetaState

_NONE = "None"  # the word that stands for None in a file


class Rules(NamedTuple):
    """The rules whose states a run carries; they define the structure.

    ``like``, if given, has the shapes and dtypes of the run's state after a
    meta-step. An inner state that is None there may have any.
    """

    outer: InnerRule
    inner: InnerRule
    like: MetaState | None = None

    @classmethod
    def of(
        cls, outer: InnerRule, algorithm: Algorithm, objective: Differentiable, meta: np.ndarray
    ) -> Rules:
        """The rules of a run of ``algorithm`` on ``objective``.

        The shapes are those of a run with the meta-parameters ``meta: (M,)``.
        The inner loop's number of parameters is not known where an algorithm
        adapts in its own way.
        """
        own = type(algorithm).adapt is not Algorithm.adapt
        phi = None if own else algorithm.problem(objective, meta).start.shape[-1]
        return cls(outer, algorithm.rule).at_sizes(meta, phi)

    def at_sizes(self, meta: np.ndarray, phi: int | None) -> Rules:
        """These rules, with the shapes of a run.

        ``meta`` is ``(M,)`` and of the run's dtype. The inner rule steps on
        ``phi`` parameters; None if their number is not known.
        """
        outer = _state_on(self.outer, np.zeros_like(meta))
        inner = None
        if phi is not None and structure_of(self.inner) is not None:
            inner = _state_on(self.inner, np.zeros((1, phi), meta.dtype), merged=True)
        return self._replace(like=MetaState(1, meta, outer, inner))


def _state_on(rule: InnerRule, zeros: np.ndarray, merged: bool = False) -> Any:
    """A rule's state after one step on ``zeros``.

    It is None if the shapes of the state change with the next step: then a
    later state may have others.
    """

    def after(state: Any) -> Any:
        with np.errstate(all="ignore"):
            return rule.step(zeros, zeros, state, 0)[1]

    first = after(None)
    shapes = [
        {name: array.shape for name, array in packed("", each).items()}
        for each in (first, after(first))
    ]
    if shapes[0] != shapes[1]:
        return None
    return rule.merge(None, first, 1) if merged else first


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
        if arrays are missing, have the wrong type, hold numbers that are not
        finite, or belong to no rule; if the state is not ``like`` the one in
        ``rules``, or the outer rule has not made ``iteration`` steps.
    """
    _check_arrays(arrays, rules.like)
    left = dict(arrays)
    iteration = _item(taken(left, "iteration"), int, "iteration")
    meta = taken(left, "meta")
    if iteration < 0 or meta.ndim != 1 or meta.dtype.kind != "f":
        raise CheckpointError("iteration must be 0 or more, and meta a real vector")
    states = {}
    for name, rule in (("outer", rules.outer), ("inner", rules.inner)):
        absent = not any(each == name or each.startswith(f"{name}.") for each in left)
        structure = None if first_format and absent else structure_of(rule)
        if first_format and structure is None:
            left[name] = np.array(_NONE)
        states[name] = unpacked(left, name, structure, xp)
    if left and not first_format:
        raise CheckpointError(f"no state of the run's rules has {', '.join(sorted(left))}")
    state = MetaState(iteration, xp.asarray(meta), states["outer"], states["inner"])
    if rules.like is not None:
        _check_steps(state, rules)
    return state


def _check_arrays(arrays: Mapping[str, np.ndarray], like: MetaState | None) -> None:
    """Raise a CheckpointError if an array cannot be a part of the state."""
    for name, array in arrays.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise CheckpointError(f"{name} holds numbers that are not finite")
    for name, want in packed_state(like).items() if like is not None else ():
        got = arrays.get(name)
        if got is None or want.ndim == 0 or got.dtype.kind == "U":
            continue
        if (got.shape, got.dtype) != (want.shape, want.dtype):
            raise CheckpointError(
                f"{name} must be {want.dtype} of shape {want.shape}, "
                f"got {got.dtype} of shape {got.shape}"
            )


def largest_size(rules: Rules) -> int | None:
    """An upper bound of the bytes of a packed state; None if none is known."""
    like = rules.like
    if like is None:
        return None
    parts = ((rules.outer, like.outer), (rules.inner, like.inner))
    if any(part is None and structure_of(rule) is not None for rule, part in parts):
        return None
    return 4 * sum(array.nbytes for array in packed_state(like).values())


def _check_steps(state: MetaState, rules: Rules) -> None:
    """Raise a CheckpointError if a rule cannot be in its state.

    A rule may define ``fault_in(state, steps)``, as ``Adam`` does.
    """
    stateful = structure_of(rules.outer) is not None
    if (state.outer is not None) != (stateful and state.iteration > 0):
        told = "no state" if state.outer is None else "a state"
        raise CheckpointError(
            f"the outer rule cannot have {told} after {state.iteration} meta-steps"
        )
    for name, rule, steps in (
        ("outer", rules.outer, state.iteration),
        ("inner", rules.inner, None),
    ):
        part, fault_in = getattr(state, name), getattr(rule, "fault_in", None)
        if part is not None and fault_in is not None and (fault := fault_in(part, steps)):
            raise CheckpointError(f"{name}.{fault}, at iteration {state.iteration}")


def check_finite(state: MetaState) -> None:
    """Check that a state of meta-training holds finite numbers alone.

    Raises
    ------
    DivergenceError
        if a parameter, or a number in a rule's state, is not finite; names the
        meta-step.
    """
    for name, leaf in _leaves("", state._replace(iteration=0)):
        if not _is_finite(leaf):
            what = "a parameter" if name == ".meta" else f"the rules' state {name[1:]}"
            raise DivergenceError(
                f"{what} is no longer finite at meta-step {state.iteration}: "
                "try a smaller inner or outer step size"
            )


def _is_finite(leaf: Any) -> bool:
    if not hasattr(leaf, "shape"):
        return not isinstance(leaf, (float, complex)) or cmath.isfinite(leaf)
    if leaf.dtype.kind not in "fc":
        return True
    with np.errstate(over="ignore", invalid="ignore"):
        # A finite sum has only finite terms. The sum of finite terms may
        # overflow, so another sum says nothing yet.
        if cmath.isfinite(complex(leaf.sum())):
            return True
        return bool(array_module(leaf).isfinite(leaf).all())


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
    return {each: _as_array(each, leaf) for each, leaf in _leaves(name, state)}


def _leaves(name: str, state: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a state that are no tuples, each with its name."""
    if isinstance(state, tuple):
        for key, part in named_parts(state):
            yield from _leaves(f"{name}.{key}", part)
    else:
        yield name, state


def _as_array(name: str, leaf: Any) -> np.ndarray:
    if leaf is None:
        return np.array(_NONE)
    number = isinstance(leaf, (bool, int, float, complex))
    array = np.array(leaf) if number else to_host(leaf) if hasattr(leaf, "shape") else None
    if array is None or array.dtype.kind not in "biufc":
        raise SettingsError(
            "a rule's state must consist of arrays, numbers, None, and tuples of these, "
            f"got {leaf!r} in {name}"
        )
    return array


def unpacked(left: dict[str, np.ndarray], name: str, structure: Any, xp: ModuleType) -> Any:
    """The part of a state called ``name``, taken out of ``left``."""
    if name in left and left[name].dtype.kind == "U" and left[name].tolist() == _NONE:
        del left[name]
        return None
    if isinstance(structure, tuple):
        parts = [unpacked(left, f"{name}.{key}", part, xp) for key, part in named_parts(structure)]
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


def read_meta(
    left: dict[str, np.ndarray], algorithm: Algorithm, objective: Differentiable
) -> np.ndarray:
    """The meta-parameters, taken out of ``left``.

    Raises
    ------
    CheckpointError
        if they are missing, not finite, or do not fit the algorithm and the
        objective.
    """
    meta = taken(left, "meta")
    if meta.dtype not in (np.float32, np.float64) or not meta.dtype.isnative:
        raise CheckpointError(f"meta must be float32 or float64, got {meta.dtype}")
    # A network that a file merely describes may be larger than any memory.
    if meta.ndim != 1 or meta.size < objective.size:
        raise CheckpointError(
            f"meta must hold the {objective.size} parameters of the network, got {meta.shape}"
        )
    wanted = algorithm.init(objective, np.random.default_rng(0), meta.dtype).shape
    if meta.shape != wanted:
        raise CheckpointError(f"meta must have shape {wanted}, got {meta.shape}")
    if not np.isfinite(meta).all():
        raise CheckpointError("meta is not finite")
    return meta


def state_of(
    left: dict[str, np.ndarray],
    name: str,
    algorithm: Algorithm,
    objective: Differentiable,
    meta: np.ndarray,
    xp: ModuleType,
) -> Any:
    """The state of the algorithm's rule called ``name``, taken out of ``left``.

    Raises
    ------
    CheckpointError
        if it is missing, not finite, or does not fit the objective.
    """
    like = Rules.of(algorithm.rule, algorithm, objective, meta).like
    _check_arrays({each: left[each] for each in left if each.startswith(name)}, like)
    state = unpacked(left, name, structure_of(algorithm.rule), xp)
    fault_in = getattr(algorithm.rule, "fault_in", None)
    if state is not None and fault_in is not None and (fault := fault_in(state, None)):
        raise CheckpointError(f"{name}.{fault}")
    return state
