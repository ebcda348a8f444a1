"""Metrics are as durable as checkpoints, and tell where they have gaps."""

import json
import os
import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimeta.runs.folder
from minimeta.errors import CheckpointError
from minimeta.runs.experiment import Experiment
from minimeta.runs.folder import RunFolder
from minimeta.runs.metrics import metrics_arrays, sorted_rows
from minimeta.runs.presets import PRESETS
from minimeta.runs.train import Saving, train

SHORT = PRESETS["sine"].settings.changed(iterations=60, hidden="8", meta_batch=2)
OFTEN = Saving(10, 0.0)


def _train(out, **how):
    return train(Experiment(SHORT, workers=1), out, saving=OFTEN, **how)


def _rows(folder):
    return [json.loads(line) for line in folder.metrics_path.read_text().splitlines()]


def _write(folder, rows):
    folder.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def whole(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _train(folder.path)
    return folder


def test_no_checkpoint_is_ahead_of_its_metrics_on_the_disk(tmp_path, monkeypatch):
    """The disk after a loss of power: what was flushed, and nothing else."""
    folder, flushed, seen = RunFolder(tmp_path / "run"), {}, []
    fsync, replace = os.fsync, os.replace

    def flush(number):
        status = os.fstat(number)
        flushed[status.st_ino] = status.st_size
        fsync(number)

    def replaced(part, path):
        if path == folder.checkpoint_path and folder.metrics_path.exists():
            size = flushed.get(folder.metrics_path.stat().st_ino, 0)
            lines = folder.metrics_path.read_bytes()[:size].splitlines()
            with np.load(part) as stored:
                seen.append((int(stored["iteration"]), json.loads(lines[-1])["iteration"]))
        replace(part, path)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", replaced)
    _train(folder.path, until=30)
    _train(folder.path, resume=True)
    assert [iteration for iteration, _ in seen] == [10, 20, 30, 40, 50, 60]
    assert all(iteration == row for iteration, row in seen)


def test_rows_are_as_the_specification_tells(whole):
    told = minimeta.runs.folder.__doc__
    begun, *losses = _rows(whole)
    assert begun["event"] == "begun" and "loss" not in begun
    assert [row["steps"] for row in losses] == [10] * 6
    for name in {*begun, *losses[0]}:
        assert re.search(rf"(^|``){name}\b", told, re.MULTILINE), name


def test_the_arrays_are_the_losses_in_order(whole):
    got, rows = whole.arrays(), _rows(whole)[1:]
    assert got["iteration"].dtype == np.int64
    assert list(got) == ["iteration", "loss", "epsilon", "seconds", "peak_memory"]
    for name, array in got.items():
        assert array.tolist() == [row[name] for row in rows]
    other = [{"iteration": 30, "loss": 7.0, "steps": 10}]
    _write(whole, [*_rows(whole), *other])
    with pytest.warns(UserWarning, match="1 doubled rows, rows out of order"):
        got = metrics_arrays(whole.path)
    assert got["iteration"].tolist() == [10, 20, 30, 40, 50, 60]
    assert got["loss"][2] == 7.0 and np.isnan(got["epsilon"][2])
    with pytest.raises(CheckpointError, match="holds no metrics"):
        metrics_arrays(whole.path.parent)


def test_a_run_without_faults_tells_none(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _train(folder.path, until=7)
        _train(folder.path, resume=True, until=33)
        _train(folder.path, resume=True)
        assert folder.arrays()["iteration"].tolist() == [7, 10, 20, 30, 33, 40, 50, 60]
    assert "gaps" not in folder.facts()
    assert [row["event"] for row in _rows(folder) if "event" in row] == [
        "begun",
        "continued",
        "continued",
    ]


FAULTS = [
    (lambda rows: [], "no loss of meta-steps 1 to 40", [[1, 40]]),
    (lambda rows: rows[:3], "no loss of meta-steps 21 to 40", [[21, 40]]),
    (lambda rows: [*rows[:2], *rows[3:]], "no loss of meta-steps 11 to 20", [[11, 20]]),
    (lambda rows: [*rows[:2], rows[1], *rows[2:]], "1 doubled rows", []),
    (lambda rows: [*rows[:2], rows[3], rows[2], rows[4]], "rows out of order", []),
]


@pytest.mark.parametrize(("damage", "told", "gaps"), FAULTS, ids=[each[1] for each in FAULTS])
@pytest.mark.parametrize("remove", [False, True])
def test_a_run_that_goes_on_tells_its_faults_once(tmp_path, damage, told, gaps, remove):
    folder = RunFolder(tmp_path / "run")
    _train(folder.path, until=40)
    rows = damage(_rows(folder))
    _write(folder, rows)
    if remove and not rows:
        folder.metrics_path.unlink()
    with pytest.warns(UserWarning, match=f"had {told}"):
        _train(folder.path, resume=True, until=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        end = _train(folder.path, resume=True)
    (repair,) = (row for row in _rows(folder) if row.get("event") == "repaired")
    assert repair["gaps"] == gaps and repair["iteration"] == 40
    assert folder.facts().get("gaps", []) == [tuple(gap) for gap in gaps]
    losses = [row["iteration"] for row in _rows(folder) if "loss" in row]
    assert losses == sorted(set(losses))
    assert np.array_equal(end.meta, _train(tmp_path / "alone").meta)


@pytest.mark.parametrize(
    "tail", [b"\0" * 5000, b"\0" * 5000 + b"\n", b'{"iterat\0\0\0\n{}\n', b"\xff\n", b"null\n"]
)
def test_what_a_loss_of_power_leaves_after_the_checkpoint_is_computed_again(tmp_path, tail):
    folder = RunFolder(tmp_path / "run")
    for until in (0, 40):
        _train(folder.path, resume=until > 0, until=until)
        with open(folder.metrics_path, "ab") as file:
            file.write(tail)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _train(folder.path, resume=True, until=until + 10)
    assert folder.arrays()["iteration"].tolist() == [10, 20, 30, 40, 50]
    lines = folder.metrics_path.read_bytes().splitlines(keepends=True)
    folder.metrics_path.write_bytes(b"".join([lines[0], b"null\n", *lines[1:]]))
    with pytest.raises(CheckpointError, match="damaged after 1 rows"):
        _train(folder.path, resume=True)


def test_a_row_that_was_removed_is_kept_in_the_row_that_tells_it(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _train(folder.path, until=40)
    other = {"iteration": 20, "loss": 7.0, "steps": 10}
    _write(folder, [*_rows(folder)[:2], other, *_rows(folder)[2:]])
    with pytest.warns(UserWarning, match="doubled"):
        _train(folder.path, resume=True)
    assert [row["doubled"] for row in _rows(folder) if "doubled" in row] == [[other]]


@pytest.mark.parametrize(("doubled", "gaps"), [(9_000, 0), (100, 60_000)])
def test_a_repair_of_any_size_is_read_again_and_told_once(tmp_path, doubled, gaps):
    folder, end = RunFolder(tmp_path), 10 * max(doubled, gaps)
    losses = [
        {"iteration": 10 * i, "loss": 0.1 + i, "steps": 5 if i <= gaps else 10, "seconds": 0.0}
        for i in range(1, end // 10 + 1)
    ]
    removed = [row | {"loss": 7.0, "epsilon": 0.123456789, "notes": 60 * "x"} for row in losses]
    _write(folder, [*removed[:doubled], *losses])
    for told in (True, False):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            folder.clear_after(end)
        assert bool(warned) == told
        rows = [row for row in folder.metrics() if row.get("event") == "repaired"]
        assert [row for each in rows for row in each["doubled"]] == removed[:doubled]
        want = [[10 * i - 9, 10 * i - 5] for i in range(1, gaps + 1)]
        assert [gap for each in rows for gap in each["gaps"]] == want
        assert [row for row in folder.metrics() if "loss" in row] == losses


@given(st.permutations(range(8)), st.sets(st.integers(0, 7)), st.data())
def test_gaps_are_the_meta_steps_that_no_row_covers(order, missing, data):
    """Rows in any order, some of them twice, give the same gaps."""
    rows = [{"iteration": 5 * i + 5, "loss": 0.0, "steps": 5} for i in order if i not in missing]
    rows += data.draw(st.lists(st.sampled_from(rows), max_size=3)) if rows else []
    found = sorted_rows(rows, 40)
    covered = {step for row in rows for step in range(row["iteration"] - 4, row["iteration"] + 1)}
    uncovered = {step for first, last in found.gaps for step in range(first, last + 1)}
    assert uncovered == set(range(1, 41)) - covered
    assert sum(last - first + 1 for first, last in found.gaps) == len(uncovered)
    assert len(found.rows) + len(found.doubled) == len(rows)
    told = {"iteration": 40, "gaps": [list(gap) for gap in found.gaps]}
    assert not sorted_rows([*found.rows, told], 40).told()


def test_metrics_of_older_versions_are_read(tmp_path):
    rows = [{"iteration": 0, "provenance": {"minimeta": "0.1.0"}}]
    rows += [{"iteration": i, "loss": 1.0 / i, "epsilon": 0.1} for i in (100, 200, 250)]
    folder = RunFolder(tmp_path)
    _write(folder, rows)
    assert folder.arrays()["iteration"].tolist() == [100, 200, 250]
    assert folder.facts()["made_by"] == [{"minimeta": "0.1.0"}]
