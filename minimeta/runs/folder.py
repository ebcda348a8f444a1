"""A run on disk. A folder holds

config.json       the settings, written once
checkpoint.npz    the last saved state, replaced by an atomic write
metrics.jsonl     one JSON object per line, appended

A kill at any moment leaves the old checkpoint or the new one.
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

from ..errors import CheckpointError, MinimetaError, SettingsError
from ..files import locked, parts_of, write_atomically
from ..training.meta_training import MetaState
from ..training.states import Rules, packed_state, read_state

_FORMAT = "minimeta checkpoint 2"
_FIRST_FORMAT = "minimeta checkpoint 1"  # left None out, and held arrays that no state has now


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
