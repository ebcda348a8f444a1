"""A run on disk: the specification of a run folder.

A run folder holds these files. No other name in it matters to a run.

config.json       the settings, written once; replaced if the run is extended
checkpoint.npz    the last saved state, replaced by an atomic write
metrics.jsonl     one row for every few meta-steps, appended
.lock             held by the process that trains here; empty
.NAME.*.part      a file that is being written; left behind by a kill, and
                  removed by the next process that trains here

In a sweep's folder, result.json, look-N.json and .job come beside them
(jobs.py). ``minimeta eval`` adds eval-*.json.

A kill at any moment leaves the old checkpoint or the new one. Before a
checkpoint is replaced, the metrics up to it are flushed to the disk. So after a
loss of power, too, no checkpoint is ahead of its metrics. All files are plain
files: a symbolic link in the place of one is refused, never followed. The
folder itself may be a link.

config.json is an object of UTF-8 JSON, ``Settings.to_dict()``. Readers also
take the flat form of the first edition (first_edition.py).

checkpoint.npz is an uncompressed archive of arrays without pickles:

format            the text "minimeta checkpoint 2"
config            the digest of the settings that the state belongs to: the
                  SHA-256 of config.json's object, written by Python's
                  ``json.dumps(config, sort_keys=True)``. While a run is
                  extended there are two, of the old and the new settings.
names             the sorted names of all arrays
iteration         the number of meta-steps done
meta              the meta-parameters, (M,), of the run's dtype
outer, outer.*    the state of the outer rule (states.py)
inner, inner.*    the state of the inner rule, where it passes on

metrics.jsonl has one JSON object per line, in ASCII. ``iteration`` is in every
row: the number of meta-steps done when the row was written. There are five
kinds of rows.

A row of losses has ``loss``. It covers the meta-steps since the row of losses
before it:

loss              the mean, over these meta-steps and over the tasks of each, of
                  a task's loss on its last mini-batch, before any step on that
                  mini-batch. A task's loss on images is the mean or the sum
                  over the examples of the mini-batch, as the setting
                  ``reduction`` says. On waves it is the mean.
epsilon           the outer step size of the last of these meta-steps
seconds           seconds of training since the run began, without the pauses
                  between its processes
peak_memory       the largest memory so far, in bytes: of the process, or on a
                  GPU of CuPy's pool; null where the system does not tell it
steps             the number of meta-steps that the row covers. Older rows lack
                  it.

A row of a beginning has ``provenance``. A process writes it before its first
meta-step:

event             "begun" at meta-step 0, "continued" later. Older rows lack it.
config            the digest of the settings, as in checkpoint.npz. Older rows
                  lack it.
provenance        versions, machine, commit and date (provenance.py)
images            the number of images per class and their digest, or null

A row of a repair has the ``event`` "repaired". A process that continues the run
writes it if it found rows missing, doubled or out of order, and warns:

gaps              ranges of meta-steps whose loss no row tells: pairs [first,
                  last], counted from 1
doubled           the rows of losses that were removed, because a later row had
                  the same meta-step. Many gaps or removed rows take several
                  rows of a repair, since no row is longer than 1 MiB.

A row of a divergence has the ``event`` "diverged". The meta-steps after it have
no rows:

told              the error, which names the first meta-step that diverged

A row of an extension has the ``event`` "extended":

extended          an object: ``from`` and ``to``, the old and the new number of
                  meta-steps of the run; ``config``, the old settings

The last line may be cut short by a kill. It does not count. A process that
continues a run rewrites the file: without that line, and without the rows after
its checkpoint, whose meta-steps it computes again. After a loss of power, lines
after the checkpoint may be damaged; they are left out in the same way.

Older versions computed a constant ``epsilon`` with an error of rounding. A run
that such a version began, and that this version continues, may differ in the
last bit of ``epsilon`` from a run of one version.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..arrays.memory import physical_memory
from ..errors import CheckpointError, SettingsError, one_line, reason_of
from ..files import (
    MEBIBYTE,
    flush_file,
    flush_folder,
    locked,
    make_folder,
    opened,
    read_arrays,
    read_json,
    remove_parts_of,
    write_atomically,
    write_new,
)
from ..training.meta_training import MetaState
from ..training.states import Rules, largest_size, packed_state, read_state
from .metrics import LONGEST_ROW, Sorted, metrics_arrays, read_rows, sorted_rows, told_gaps

_FORMAT = "minimeta checkpoint 2"
_FIRST_FORMAT = "minimeta checkpoint 1"  # left None out, and held arrays that no state has now
_LARGEST = 1 << 32  # bytes of a checkpoint of unknown structure


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
        return any(map(os.path.lexists, (self.checkpoint_path, self.metrics_path)))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Create the folder if needed, and lock it against other processes.

        Partial files that killed processes have left are removed.

        Raises
        ------
        CheckpointError
            if another process holds the lock, or the folder cannot be used.
        """
        with ExitStack() as stack:
            try:
                make_folder(self.path)
                alone = stack.enter_context(locked(self.path / ".lock"))
                for path in self._files if alone else ():
                    remove_parts_of(path)
            except OSError as error:
                raise self._unusable(reason_of(error), error.filename) from error
            if not alone:
                raise CheckpointError(f"another process is training in {self.path}")
            yield

    def _unusable(self, reason: str, file: str | None = None) -> CheckpointError:
        """The error for a folder, or for a ``file`` in it, of no use."""
        beside = f"{Path(file).name}: " if file and Path(file) != self.path else ""
        return CheckpointError(f"{self.path} cannot be used as a run folder: {beside}{reason}")

    @property
    def _files(self) -> tuple[Path, ...]:
        return (self.config_path, self.checkpoint_path, self.metrics_path)

    def check_new(self) -> None:
        """Check that a new run can be in the folder; nothing is created.

        Raises
        ------
        CheckpointError
            if the folder holds a run, or a file of a run, or is a file.
        """
        if os.path.lexists(self.path) and not self.path.is_dir():
            raise self._unusable("it is a file")
        for path in self._files:
            if os.path.lexists(path):
                raise CheckpointError(
                    f"{self.path} already holds a run ({path.name}): "
                    "continue it with --resume (in Python resume=True), or name another folder"
                )

    def create(self, config: Mapping[str, Any]) -> None:
        """Write the settings of a new run.

        Raises
        ------
        CheckpointError
            if the folder already holds a run, or a file of a run; if the
            settings cannot be written.
        """
        self.check_new()
        with _writing(self.config_path):
            write_new(self.config_path, lambda file: file.write(_json(config)))

    def replace_config(self, config: Mapping[str, Any]) -> None:
        """Replace the settings, of a run that is extended, atomically."""
        with _writing(self.config_path):
            write_atomically(self.config_path, lambda file: file.write(_json(config)))

    def discard(self) -> None:
        """Remove the settings and the first checkpoint of a run.

        Only the process that created them, and still holds the lock, may do
        this: for a run that could not begin.
        """
        self.checkpoint_path.unlink(missing_ok=True)
        self.config_path.unlink(missing_ok=True)

    def config(self) -> dict[str, Any]:
        """The settings.

        Raises
        ------
        CheckpointError
            if the settings are missing or not readable.
        """
        config = object_in(self.config_path)
        if config is None:
            there = os.path.lexists(self.path)
            fault = f"it has no {self.config_path.name}" if there else "there is no such folder"
            raise CheckpointError(f"{self.path} is not a run folder: {fault}")
        return config

    def save(
        self,
        state: MetaState,
        config: Mapping[str, Any],
        rules: Rules,
        becoming: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace the checkpoint, once the metrics are on the disk.

        The checkpoint belongs to ``config``, and to the settings ``becoming``
        that are about to replace it.

        Raises
        ------
        CheckpointError
            if the checkpoint cannot be written.
        SettingsError
            if the structure of a rule's state, or the shape or dtype of an
            array, differs from that after its first step: such a state could
            not be read back.
        """
        packed = packed_state(state)
        try:
            read_state(packed, rules)
        except CheckpointError as error:
            raise SettingsError(f"this state cannot be saved: {error}") from error
        digests = np.array(digest(config))
        if becoming is not None:
            digests = np.array([digest(config), digest(becoming)])
        arrays = {"format": np.array(_FORMAT), "config": digests} | packed
        arrays["names"] = np.array(sorted([*arrays, "names"]))
        if os.path.lexists(self.metrics_path):
            with _writing(self.metrics_path):
                flush_file(self.metrics_path)
        with _writing(self.checkpoint_path):
            write_atomically(self.checkpoint_path, lambda file: np.savez(file, **arrays))

    def check_checkpoint(self, config: Mapping[str, Any]) -> None:
        """Check that the checkpoint was written under the settings ``config``.

        This reads no parameters.

        Raises
        ------
        CheckpointError
            if the checkpoint is missing, of another version, damaged, or was
            written under other settings.
        """
        limit = max(_LARGEST, physical_memory() or 0)
        self._check_origin(self._arrays(limit, ("format", "config")), config)

    def _check_origin(self, arrays: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
        if str(arrays.get("format", "")) not in (_FORMAT, _FIRST_FORMAT):
            raise CheckpointError(
                f"{self.checkpoint_path} is not a checkpoint of this version ({_FORMAT!r} expected)"
            )
        if digest(config) not in np.atleast_1d(arrays.get("config", "")).tolist():
            raise CheckpointError(
                f"{self.checkpoint_path} was written under settings other than those in "
                f"{self.config_path}"
            )

    def load(self, config: Mapping[str, Any], rules: Rules, xp: ModuleType = np) -> MetaState:
        """The last state of a run with these ``rules``, on the device of xp.

        Raises
        ------
        CheckpointError
            if the checkpoint is missing, truncated, altered, was written under
            settings other than ``config``, or holds no state of such a run.
        """
        arrays = self._arrays(largest_size(rules) or _LARGEST)
        names = arrays.pop("names", None)
        if names is None or sorted([*arrays, "names"]) != names.tolist():
            raise CheckpointError(
                f"{self.checkpoint_path} is damaged: some of its arrays are missing"
            )
        self._check_origin(arrays, config)
        first_format = str(arrays.pop("format")) == _FIRST_FORMAT
        del arrays["config"]
        try:
            return read_state(arrays, rules, xp, first_format)
        except CheckpointError as error:
            raise CheckpointError(f"{self.checkpoint_path} is damaged: {error}") from error

    def _arrays(self, limit: int, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays of the checkpoint: all, or those of these names."""
        try:
            return read_arrays(self.checkpoint_path, limit, names)
        except FileNotFoundError as error:
            raise CheckpointError(f"{self.path} holds no checkpoint") from error
        except ValueError as error:
            raise CheckpointError(f"{self.checkpoint_path} is damaged: {error}") from error
        except OSError as error:
            told = f"{self.checkpoint_path} cannot be read: {reason_of(error)}"
            raise CheckpointError(told) from error

    def append_metrics(self, entry: Mapping[str, Any]) -> None:
        """Add one row.

        Raises
        ------
        CheckpointError
            if the row cannot be written.
        """
        new = not os.path.lexists(self.metrics_path)
        with _writing(self.metrics_path):
            with opened(self.metrics_path, "append") as file:
                file.write(_line(entry))
            if new:
                flush_folder(self.path)

    def metrics(self, enough: float = math.inf) -> list[dict[str, Any]]:
        """All whole rows of the metrics; an empty list without a file.

        A row that is damaged ends them, once they reach meta-step ``enough``.

        Raises
        ------
        CheckpointError
            if the file cannot be read, or a whole row is not as specified.
        """
        return read_rows(self.metrics_path, enough)

    def arrays(self) -> dict[str, np.ndarray]:
        """The losses as arrays to plot (``metrics_arrays``)."""
        return metrics_arrays(self.path)

    def check_metrics(self, config: Mapping[str, Any], enough: float = math.inf) -> None:
        """Check that the metrics belong to a run with these settings.

        A row that is damaged ends them, once they reach meta-step ``enough``.

        Raises
        ------
        CheckpointError
            if they belong to another run, or are damaged.
        """
        told = None
        for row in self.metrics(enough):
            told = None if "extended" in row else row.get("config", told)
        if told not in (None, digest(config)):
            raise CheckpointError(
                f"{self.metrics_path} was written under settings other than those in "
                f"{self.config_path}"
            )

    def facts(self, enough: float = math.inf) -> dict[str, Any]:
        """The facts of the run in its metrics: the last value of every key.

        A row that is damaged ends them, once they reach meta-step ``enough``.

        ``made_by`` lists the provenance of every part of the run, in order,
        without dates. ``gaps`` lists the meta-steps whose losses are missing,
        if there are any.
        """
        facts: dict[str, Any] = {}
        made_by: list[dict[str, Any]] = []
        rows = self.metrics(enough)
        for entry in rows:
            facts |= {name: value for name, value in entry.items() if name not in _OF_ONE_ROW}
            producer = {
                name: value for name, value in facts.get("provenance", {}).items() if name != "date"
            }
            if "loss" in entry and producer and producer not in made_by:  # it made meta-steps
                made_by.append(producer)
        gaps = told_gaps(rows)
        return facts | {"made_by": made_by} | ({"gaps": gaps} if gaps else {})

    def clear_after(self, iteration: int, end: int | None = None) -> None:
        """Prepare the folder for a run that continues from ``iteration``.

        This drops the metrics that the run will write again, and a last line
        cut short by a kill, or damaged by a loss of power. Missing, doubled and
        unordered rows are told by a warning and by a row. An extension to more
        than ``end`` meta-steps did not happen, and is dropped.

        Raises
        ------
        CheckpointError
            if the metrics are damaged, or cannot be written.
        """
        rows = self.metrics(iteration)
        found = sorted_rows([row for row in rows if _happened(row, iteration, end)], iteration)
        rows = found.rows
        if told := found.told():
            warnings.warn(one_line(f"{self.metrics_path} had {told}"), stacklevel=2)
            rows = [*rows, *_repairs(found, iteration)]
        if rows or os.path.lexists(self.metrics_path):
            text = b"".join(map(_line, rows))
            with _writing(self.metrics_path):
                write_atomically(self.metrics_path, lambda file: file.write(text))
                flush_folder(self.path)


_OF_ONE_ROW = ("event", "config", "steps", "gaps", "doubled", "told", "extended")


def _happened(row: Mapping[str, Any], iteration: int, end: int | None) -> bool:
    """Whether a row tells of a run of ``end`` meta-steps at ``iteration``."""
    to = row.get("extended", {}).get("to", 0)
    return row["iteration"] <= iteration and (end is None or to <= end)


def _repairs(found: Sorted, iteration: int) -> Iterator[dict[str, Any]]:
    """The rows that tell the faults of metrics, each short enough to read."""
    faults = [("gaps", list(gap)) for gap in found.gaps]
    faults += [("doubled", row) for row in found.doubled]
    row, size = _repair(iteration), 0
    for name, fault in faults:
        size += len(json.dumps(fault)) + 2
        if size > LONGEST_ROW // 2:
            yield row
            row, size = _repair(iteration), 0
        row[name].append(fault)
    yield row


def _repair(iteration: int) -> dict[str, Any]:
    return {"iteration": iteration, "event": "repaired", "gaps": [], "doubled": []}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell an error of the system by the file that was being written."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {reason_of(error)}") from error


def object_in(file: Path, limit: int = MEBIBYTE, remedy: str = "") -> dict[str, Any] | None:
    """The JSON object in a file of ``limit`` bytes or fewer; None without a
    file.

    Raises
    ------
    CheckpointError
        if the file holds anything else; names the file and the ``remedy``.
    """
    end = f"; {remedy}" if remedy else ""
    try:
        contents = read_json(file, limit)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged: {error}{end}") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {reason_of(error)}{end}") from error
    if not isinstance(contents, dict):
        raise CheckpointError(f"{file} is damaged: it must hold a JSON object{end}")
    return contents


def _json(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, allow_nan=False) + "\n").encode()


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()


def digest(config: Mapping[str, Any]) -> str:
    """The SHA-256 of settings, by which files of a run tell their own."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
