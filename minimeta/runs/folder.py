"""A run on disk. A folder holds

config.json       the settings, written once
checkpoint.npz    the last saved state, replaced by an atomic write
metrics.jsonl     one JSON object per line, appended

A kill at any moment leaves the old checkpoint or the new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ..arrays.backend import to_host
from ..errors import CheckpointError, MinimetaError, SettingsError
from ..files import locked, parts_of, write_atomically
from ..inner import InnerRule, with_parts
from ..training.meta_training import MetaState

_FORMAT = "minimeta checkpoint 2"
_FIRST_FORMAT = "minimeta checkpoint 1"  # left None out, and held arrays that no state has now
_NONE = "None"  # the word that stands for None in a checkpoint


class Rules(NamedTuple):
    """The rules whose states a run carries; they define the structure."""

    outer: InnerRule
    inner: InnerRule


@dataclass(frozen=True)
class RunFolder:
    """A meta-training run's folder."""

    path: Path

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoint_path(self) -> Path:
        return self.path / "checkpoint.npz"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def begun(self) -> bool:
        """Whether the run has a state to continue from.

        A run that was killed just after its settings were written has none.
        """
        return self.checkpoint_path.exists() or self.metrics_path.exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder if needed, and lock it against other processes.

        Raises
        ------
        CheckpointError
            if another process holds the lock, or the folder cannot be created.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with locked(self.path / ".lock") as alone:
                if not alone:
                    raise CheckpointError(f"another process is training in {self.path}")
                yield
        except OSError as error:
            if isinstance(error, MinimetaError):
                raise
            raise CheckpointError(f"{self.path} cannot be used as a run folder: {error}") from error

    def create(self, config: Mapping[str, Any]) -> None:
        """Write the settings of a new run.

        Raises
        ------
        CheckpointError
            if the folder already holds a run, or a file of a run.
        """
        for path in (self.config_path, self.checkpoint_path, self.metrics_path):
            if path.exists():
                raise CheckpointError(
                    f"{self.path} already holds a run ({path.name}): "
                    "continue it with --resume, or name another folder with --out"
                )
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
        write_atomically(self.config_path, lambda file: file.write(text.encode()))

    def config(self) -> dict[str, Any]:
        """The settings.

        Raises
        ------
        CheckpointError
            if the settings are missing or not readable.
        """
        if not self.config_path.exists():
            raise CheckpointError(
                f"{self.path} is not a run folder: it has no {self.config_path.name}"
            )
        try:
            config = json.loads(self.config_path.read_text())
        except (ValueError, OSError) as error:
            raise CheckpointError(f"{self.config_path} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{self.config_path} is damaged: it holds no settings")
        return config

    def save(self, state: MetaState, config: Mapping[str, Any], rules: Rules) -> None:
        """Replace the checkpoint.

        Raises
        ------
        SettingsError
            if the structure of a rule's state differs from that after its first
            step: such a state could not be read back.
        """
        packed = packed_state(state)
        try:
            read_state(packed, rules)
        except CheckpointError as error:
            raise SettingsError(f"this state cannot be saved: {error}") from error
        arrays = {"format": np.array(_FORMAT), "config": np.array(_digest(config))} | packed
        arrays["names"] = np.array(sorted([*arrays, "names"]))
        write_atomically(self.checkpoint_path, lambda file: np.savez(file, **arrays))

    def load(self, config: Mapping[str, Any], rules: Rules, xp: ModuleType = np) -> MetaState:
        """The last state of a run with these ``rules``, on the device of xp.

        Raises
        ------
        CheckpointError
            if the checkpoint is missing, truncated, altered, or was written
            under settings other than ``config``.
        """
        if not self.checkpoint_path.exists():
            raise CheckpointError(f"{self.path} holds no checkpoint")
        arrays = self._arrays()
        told = str(arrays.pop("format", ""))
        if told not in (_FORMAT, _FIRST_FORMAT):
            raise CheckpointError(
                f"{self.checkpoint_path} is not a checkpoint of this version ({_FORMAT!r} expected)"
            )
        if str(arrays.pop("config", "")) != _digest(config):
            raise CheckpointError(
                f"{self.checkpoint_path} was written under settings other than those in "
                f"{self.config_path}"
            )
        try:
            return read_state(arrays, rules, xp, first_format=told == _FIRST_FORMAT)
        except CheckpointError as error:
            raise CheckpointError(f"{self.checkpoint_path} is damaged: {error}") from error

    def _arrays(self) -> dict[str, np.ndarray]:
        """All arrays of the checkpoint except the list of their names."""
        try:
            with np.load(self.checkpoint_path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except Exception as error:  # a reader of archives may raise anything on damaged bytes
            raise CheckpointError(f"{self.checkpoint_path} is damaged: {error}") from error
        if "names" not in arrays or sorted(arrays) != arrays["names"].tolist():
            raise CheckpointError(
                f"{self.checkpoint_path} is damaged: some of its arrays are missing"
            )
        del arrays["names"]
        return arrays

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Add one line."""
        with open(self.metrics_path, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines of the metrics; an empty list without a file.

        Raises
        ------
        CheckpointError
            if a whole line is not a JSON object with an iteration.
        """
        if not self.metrics_path.exists():
            return []
        try:
            lines = self.metrics_path.read_text().splitlines(keepends=True)
            entries = [json.loads(line) for line in lines if line.endswith("\n")]
            return [entry for entry in entries if entry["iteration"] >= 0]
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.metrics_path} is damaged: {error}") from error

    def facts(self) -> dict[str, Any]:
        """The facts of the run in its metrics: the last value of every key.

        ``made_by`` lists the provenance of every part of the run, in order,
        without dates.
        """
        facts: dict[str, Any] = {}
        made_by: list[dict[str, Any]] = []
        for entry in self.metrics():
            facts |= entry
            producer = {
                name: value for name, value in facts.get("provenance", {}).items() if name != "date"
            }
            if "loss" in entry and producer and producer not in made_by:  # it made meta-steps
                made_by.append(producer)
        return facts | {"made_by": made_by}

    def clear_after(self, iteration: int) -> None:
        """Prepare the folder for a run that continues from ``iteration``.

        This drops the metrics that the run will write again, a last line cut
        short by a kill, and partly written files.
        """
        for path in (self.config_path, self.checkpoint_path, self.metrics_path):
            for part in parts_of(path):
                part.unlink()
        if self.metrics_path.exists():
            kept = [
                json.dumps(entry) + "\n"
                for entry in self.metrics()
                if entry["iteration"] <= iteration
            ]
            write_atomically(self.metrics_path, lambda file: file.write("".join(kept).encode()))


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


# States as named arrays.


def packed_state(state: MetaState) -> dict[str, np.ndarray]:
    """A state as named arrays on the host.

    A name consists of field names and of places in tuples: ``outer.m``,
    ``inner.0.v``. The classes of the states are not stored.
    """
    arrays = {"iteration": np.array(state.iteration), "meta": to_host(state.meta)}
    return arrays | _packed("outer", state.outer) | _packed("inner", state.inner)


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
    iteration = _item(_taken(left, "iteration"), int, "iteration")
    meta = _taken(left, "meta")
    if iteration < 0 or meta.ndim != 1 or meta.dtype.kind != "f":
        raise CheckpointError("iteration must be 0 or more, and meta a real vector")
    states = {}
    for name, rule in rules._asdict().items():
        absent = not any(each == name or each.startswith(f"{name}.") for each in left)
        structure = None if first_format and absent else structure_of(rule)
        if first_format and structure is None:
            left[name] = np.array(_NONE)
        states[name] = _unpacked(left, name, structure, xp)
    if left and not first_format:
        raise CheckpointError(f"no state of the run's rules has {', '.join(sorted(left))}")
    return MetaState(iteration, xp.asarray(meta), states["outer"], states["inner"])


def structure_of(rule: InnerRule) -> Any:
    """The structure of a rule's state: its state after one step on zeros."""
    zeros = np.zeros((1, 1))
    with np.errstate(all="ignore"):
        return rule.step(zeros, zeros, None, 0)[1]


def _packed(name: str, state: Any) -> dict[str, np.ndarray]:
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
            arrays |= _packed(f"{name}.{key}", part)
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


def _unpacked(left: dict[str, np.ndarray], name: str, structure: Any, xp: ModuleType) -> Any:
    """The part of a state called ``name``, taken out of ``left``."""
    if name in left and left[name].dtype.kind == "U" and left[name].tolist() == _NONE:
        del left[name]
        return None
    if isinstance(structure, tuple):
        parts = [_unpacked(left, f"{name}.{key}", part, xp) for key, part in _parts(structure)]
        return with_parts(structure, parts)
    array = _taken(left, name)
    for kind in (bool, int, float, complex):  # bool first, since a bool is an int
        if isinstance(structure, kind):
            return _item(array, kind, name)
    return xp.asarray(array)


def _taken(left: dict[str, np.ndarray], name: str) -> np.ndarray:
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
