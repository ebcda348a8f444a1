"""Floor 6: a run on disk. A folder holds

config.json       the settings, written once
checkpoint.npz    the last state, replaced whole: a kill at any moment leaves the old one or the new one
metrics.jsonl     one JSON object a line, appended
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.backend import Array, to_host
from ..errors import CheckpointError, MinimetaError
from ..files import locked, parts_of, write_atomically
from ..inner import AdamState
from ..training.meta_training import MetaState

_FORMAT = "minimeta checkpoint 1"


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
        """Whether there is a state to go on from; not so where a run was killed just after its settings were written."""
        return self.checkpoint_path.exists() or self.metrics_path.exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder if need be, and keep any other process from training in it meanwhile.

        Raises
        ------
        CheckpointError
            if another process holds it, or it cannot be made.
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
            if there is a run in the folder already, or a file of a run.
        """
        for path in (self.config_path, self.checkpoint_path, self.metrics_path):
            if path.exists():
                raise CheckpointError(
                    f"{self.path} already holds a run ({path.name}): --resume continues it, --out names another folder"
                )
        text = json.dumps(config, indent=2) + "\n"
        write_atomically(self.config_path, lambda file: file.write(text.encode()))

    def config(self) -> dict[str, Any]:
        """The settings.

        Raises
        ------
        CheckpointError
            if they are missing or not readable.
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

    def save(self, state: MetaState, config: Mapping[str, Any]) -> None:
        """Replace the checkpoint."""
        arrays = {
            "format": np.array(_FORMAT),
            "config": np.array(_digest(config)),
            **_packed(state),
        }
        arrays["names"] = np.array(sorted([*arrays, "names"]))
        write_atomically(self.checkpoint_path, lambda file: np.savez(file, **arrays))

    def load(self, config: Mapping[str, Any], xp: ModuleType = np) -> MetaState:
        """The last state, on the device of ``xp``.

        Raises
        ------
        CheckpointError
            if the checkpoint is missing, truncated, altered, or was written under settings other than ``config``.
        """
        if not self.checkpoint_path.exists():
            raise CheckpointError(f"{self.path} holds no checkpoint")
        try:
            with np.load(self.checkpoint_path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (
            Exception
        ) as error:  # whatever a reader of archives may meet in bytes that are not what it wrote
            raise CheckpointError(f"{self.checkpoint_path} is damaged: {error}") from error
        if sorted(arrays) != arrays.get("names", np.array(())).tolist():
            raise CheckpointError(
                f"{self.checkpoint_path} is damaged: some of its arrays are missing"
            )
        if str(arrays.get("format")) != _FORMAT:
            raise CheckpointError(
                f"{self.checkpoint_path} is not a checkpoint of this version ({_FORMAT!r} expected)"
            )
        if str(arrays.get("config")) != _digest(config):
            raise CheckpointError(
                f"{self.checkpoint_path} was written under other settings than {self.config_path} holds"
            )
        return _unpacked(arrays, xp)

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Add one line."""
        with open(self.metrics_path, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of the metrics; none where there is no file.

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
        """What the metrics tell of the run: the last value of everything in them, what produced it among them; and as
        ``made_by`` all that produced a part of it, in order, without their dates."""
        facts: dict[str, Any] = {}
        made_by: list[dict[str, Any]] = []
        for entry in self.metrics():
            facts |= entry
            producer = {
                name: value for name, value in facts.get("provenance", {}).items() if name != "date"
            }
            if "loss" in entry and producer and producer not in made_by:  # it has made steps
                made_by.append(producer)
        return facts | {"made_by": made_by}

    def clear_after(self, iteration: int) -> None:
        """Before a run goes on from ``iteration``: drop the metrics it will write again, a last line cut short by a kill,
        and files left half written."""
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


def _packed(state: MetaState) -> dict[str, np.ndarray]:
    """A MetaState as named arrays: ``outer.steps``, ``inner.v`` and so on; what is None is left out."""
    arrays = {"iteration": np.array(state.iteration), "meta": to_host(state.meta)}
    for name, rule_state in (("outer", state.outer), ("inner", state.inner)):
        if isinstance(rule_state, AdamState):
            arrays |= {
                f"{name}.{field}": _host(value) for field, value in rule_state._asdict().items()
            }
        elif rule_state is not None:
            arrays[f"{name}.steps"] = np.array(rule_state)
    return arrays


def _host(value: Array | int) -> np.ndarray:
    return to_host(value) if hasattr(value, "shape") else np.array(value)


def _unpacked(arrays: Mapping[str, np.ndarray], xp: ModuleType) -> MetaState:
    def rule_state(name: str) -> Any:
        if f"{name}.steps" not in arrays:
            return None
        steps = int(arrays[f"{name}.steps"])
        if f"{name}.v" not in arrays:
            return steps
        m, v = (xp.asarray(arrays[f"{name}.{moment}"]) for moment in ("m", "v"))
        return AdamState(steps, m, v, int(arrays[f"{name}.here"]))

    try:
        return MetaState(
            int(arrays["iteration"]),
            xp.asarray(arrays["meta"]),
            rule_state("outer"),
            rule_state("inner"),
        )
    except KeyError as error:
        raise CheckpointError(f"the checkpoint lacks {error}") from error
