"""The rows of metrics.jsonl, which folder.py specifies: read, judged, plotted.

A whole row that is not as specified is an error. A last row that was cut short
by a kill does not count. Rows that are missing, doubled or out of order are
told, and the other rows are used.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import CheckpointError, SettingsError, one_line, reason_of
from ..files import MEBIBYTE, opened, parsed_json

Row = dict[str, Any]

LONGEST_ROW, _LARGEST_FILE = MEBIBYTE, 1024 * MEBIBYTE
_NUMBERS = {"loss": False, "epsilon": False, "seconds": False, "peak_memory": False}
_NUMBERS |= {"iteration": True, "steps": True}  # True: a whole number
_OBJECTS = ("provenance", "extended")


def read_rows(path: Path, enough: float = math.inf) -> list[Row]:
    """All whole rows of the file; an empty list without a file.

    Once the rows reach meta-step ``enough``, a damaged row ends them. What
    follows a checkpoint may be damaged by a loss of power, and is computed
    again.

    Raises
    ------
    CheckpointError
        if the file cannot be read, or a whole row is not as specified.
    """
    rows: list[Row] = []
    try:
        with opened(path, "read") as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST_FILE:
                raise ValueError(f"it has {size} bytes, and {_LARGEST_FILE} or less are expected")
            while (line := file.readline(LONGEST_ROW)).endswith(b"\n"):
                row = parsed_json(line)
                _check_row(row)
                rows.append(row)
            if len(line) == LONGEST_ROW:
                raise ValueError(f"a row has more than {LONGEST_ROW} bytes")
    except FileNotFoundError:
        return []
    except ValueError as error:
        if max((row["iteration"] for row in rows), default=0) < enough:
            raise CheckpointError(f"{path} is damaged after {len(rows)} rows: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {reason_of(error)}") from error
    return rows


def _check_row(row: Any) -> None:
    """Raise a ValueError if a JSON value is no row."""
    if not isinstance(row, dict) or "iteration" not in row:
        raise ValueError(f"a row must be an object with an iteration, got {one_line(row)}")
    for name, whole in _NUMBERS.items():
        value = row.get(name, 0)
        if value is None and name == "peak_memory":
            continue
        if type(value) not in ((int,) if whole else (int, float)):
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{name} must be {kind}, got {value!r}")
        if abs(value) >= 2**63 and (whole or not math.isfinite(float(value))):
            raise ValueError(f"{name} is too large: {value}")
    if row["iteration"] < 0 or not 0 <= row.get("steps", 0) <= row["iteration"]:
        raise ValueError("iteration must be 0 or more, and steps between 0 and iteration")
    for name in _OBJECTS:
        if not isinstance(row.get(name, {}), dict):
            raise ValueError(f"{name} must be an object, got {one_line(row[name])}")
    _check_event(row)
    _check_gaps(row.get("gaps", []))


def _check_event(row: Row) -> None:
    """Raise a ValueError if a row of an event lacks what such a row tells."""
    if row.get("event") == "diverged" and "told" not in row:
        raise ValueError("a row of a divergence must have told")
    if row.get("event") == "extended" and "extended" not in row:
        raise ValueError("a row of an extension must have extended")
    if not isinstance(row.get("told", ""), str):
        raise ValueError(f"told must be text, got {one_line(row['told'])}")
    extended = row.get("extended", {"from": 0, "to": 0})
    if not all(type(extended.get(name)) is int for name in ("from", "to")):
        raise ValueError(f"extended must have whole numbers from and to, got {one_line(extended)}")


def _check_gaps(gaps: Any) -> None:
    whole = isinstance(gaps, list) and all(
        isinstance(gap, list) and len(gap) == 2 and all(type(end) is int for end in gap)
        for gap in gaps
    )
    if not whole:
        raise ValueError(f"gaps must be pairs of meta-steps, got {gaps!r}")


class Sorted(NamedTuple):
    """Rows in the order of their meta-steps, without doubled losses.

    ``doubled`` are the rows left out, because a later one has the same
    meta-step. ``gaps`` are pairs (first, last) of meta-steps, counted from 1,
    between which losses are missing. ``moved`` tells whether rows were out of
    order.
    """

    rows: list[Row]
    doubled: list[Row]
    gaps: list[tuple[int, int]]
    moved: bool

    def told(self) -> str:
        """The faults of the rows in words; an empty text without faults."""
        faults = [f"no loss of meta-steps {first} to {last}" for first, last in self.gaps[:3]]
        faults += [f"{len(self.gaps) - 3} more gaps"] if len(self.gaps) > 3 else []
        faults += [f"{len(self.doubled)} doubled rows"] if self.doubled else []
        faults += ["rows out of order"] if self.moved else []
        return ", ".join(faults)


def sorted_rows(rows: Sequence[Row], end: int = 0) -> Sorted:
    """The rows of a run, sorted, with their faults.

    Gaps that a row of the file tells already are left out. The run has reached
    meta-step ``end``, or its last row.
    """
    latest = {row["iteration"]: place for place, row in enumerate(rows) if "loss" in row}
    doubled = [
        row for place, row in enumerate(rows) if "loss" in row and latest[row["iteration"]] != place
    ]
    kept = [
        row
        for place, row in enumerate(rows)
        if latest.get(row["iteration"], -1) == place or "loss" not in row
    ]
    ordered = sorted(kept, key=lambda row: row["iteration"])
    told = {tuple(gap) for row in rows for gap in row.get("gaps", [])}
    gaps = [gap for gap in _gaps(ordered, end) if gap not in told]
    return Sorted(ordered, doubled, gaps, ordered != kept)


def _gaps(rows: Sequence[Row], end: int) -> list[tuple[int, int]]:
    """The ranges of meta-steps without a loss in sorted rows."""
    gaps, covered = [], 0
    for row in rows:
        if "loss" in row:
            # A row without "steps", of an older version, covers all since the
            # row before it.
            start = row["iteration"] - row.get("steps", row["iteration"] - covered)
            if start > covered:
                gaps.append((covered + 1, start))
            covered = row["iteration"]
    return [*gaps, (covered + 1, end)] if covered < end else gaps


def told_gaps(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """All gaps of a run: those that rows tell, and those between rows."""
    told = {tuple(gap) for row in rows for gap in row.get("gaps", [])}
    return sorted(told | set(sorted_rows(rows).gaps))


def metrics_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The losses of the run in the folder ``path``, as arrays to plot.

    The result has "iteration" (int64), "loss", "epsilon", "seconds" and
    "peak_memory" (float64), each ``(rows,)``, in the order of the meta-steps.
    folder.py tells their meaning. A value that a row lacks is NaN. Where
    several rows have one meta-step, the last counts. Missing, doubled and
    unordered rows are told by one warning.

    Raises
    ------
    CheckpointError
        if there are no metrics, or they are damaged.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise SettingsError(f"metrics needs the path of a run folder, got {one_line(path)}")
    file = Path(path) / "metrics.jsonl"
    rows = read_rows(file)
    if not rows and not file.exists():
        raise CheckpointError(f"{path} holds no metrics: it has no {file.name}")
    found = sorted_rows(rows)
    all_gaps = found._replace(gaps=told_gaps(rows))
    if told := all_gaps.told():
        warnings.warn(one_line(f"{file} has {told}"), stacklevel=2)
    losses = [row for row in found.rows if "loss" in row]
    columns = {
        name: np.array([row.get(name, math.nan) for row in losses], np.float64)
        for name in ("loss", "epsilon", "seconds", "peak_memory")
    }
    return {"iteration": np.array([row["iteration"] for row in losses], np.int64)} | columns
