"""Nothing on disk harms a run, or is harmed by a run, and nothing hangs."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from minimeta.errors import (
    CheckpointError,
    DataError,
    DivergenceError,
    MinimetaError,
    SettingsError,
)
from minimeta.runs.experiment import Experiment
from minimeta.runs.folder import RunFolder
from minimeta.runs.presets import PRESETS
from minimeta.runs.sweep import Job, run_job
from minimeta.runs.train import Saving, open_run, rules_of, train

SHORT = PRESETS["sine"].settings.changed(
    iterations=40, hidden="8", inner="adam", inner_lr=0.01, meta_batch=2, outer="adam"
)
OFTEN = Saving(10, 0.0)


def _train(settings, out, **how):
    return train(Experiment(settings, workers=1), out, saving=OFTEN, **how)


@pytest.fixture
def half(tmp_path):
    """The folder of a run stopped half way."""
    _train(SHORT, tmp_path / "run", until=20)
    return RunFolder(tmp_path / "run")


def _one_line(error):
    text = str(error.value)
    assert len(text.splitlines()) == 1 and text.isprintable()
    return text


FILES = (".lock", "config.json", "metrics.jsonl", "checkpoint.npz")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", ["mine", None], ids=["to a file", "to nothing"])
def test_no_link_leads_out_of_a_run_folder(half, tmp_path, name, content):
    outside = tmp_path / "outside"
    if content:
        outside.write_text(content)
    (half.path / name).unlink()
    (half.path / name).symlink_to(outside)
    before = {path.name for path in half.path.iterdir()}
    for resume in (True, False):
        with pytest.raises(CheckpointError) as caught:
            _train(SHORT, half.path, resume=resume)
        _one_line(caught)
    assert outside.read_text() == content if content else not outside.exists()
    assert {path.name for path in half.path.iterdir()} == before


def test_a_new_run_follows_no_link_either(tmp_path):
    for name in FILES:
        folder, outside = tmp_path / f"new{name}", tmp_path / f"outside{name}"
        folder.mkdir()
        (folder / name).symlink_to(outside)
        with pytest.raises(CheckpointError):
            _train(SHORT, folder)
        assert not outside.exists()


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    assert _train(SHORT, tmp_path / "run").iteration == 40
    assert open_run(tmp_path / "disk")[1].iteration == 40


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["a pipe", "a folder"])
def test_what_is_no_file_is_one_line_and_no_wait(half, name, make):
    (half.path / name).unlink()
    make(half.path / name)
    told = []

    def attempt():
        try:
            _train(SHORT, half.path, resume=True)
        except CheckpointError as error:
            told.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(60)
    assert len(told) == 1 and name in told[0] and "it is a " in told[0]
    assert told[0].count(str(half.path)) == 1 and "Errno" not in told[0]


@pytest.mark.parametrize("name", [".job", "result.json", "look-20.json"])
def test_the_files_of_a_sweep_are_no_links_and_no_pipes(tmp_path, name):
    job, outside = Job("one", SHORT, looks=(20,)), tmp_path / "outside"
    outside.write_text("mine")
    for number, make in enumerate((os.mkfifo, lambda path: os.symlink(outside, path))):
        path = tmp_path / str(number)
        path.mkdir()
        make(path / name)
        with pytest.raises(CheckpointError, match="where a file is expected"):
            run_job(job, path, lambda *_: {}, None)
    assert outside.read_text() == "mine"


JSON = [
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"null",
    b"7",
    b'"text"',
    b"[]",
    b"{}",
    b'{"a": 1, "a": 1}',
    b"\xff\xfe",
    b"NaN",
    b'{"iteration": NaN}',
    b'{"iteration": null}',
    b'{"iteration": true}',
    b'{"iteration": -1}',
    b'{"iteration": 1e3}',
    b'{"iteration": 10, "loss": null}',
    b'{"iteration": 10, "loss": "x"}',
    b'{"iteration": 10, "seconds": null}',
    b'{"iteration": 10, "seconds": Infinity}',
    b'{"iteration": 10, "provenance": 1}',
    b'{"iteration": 10, "steps": 11}',
    b'{"iteration": 10, "gaps": 5}',
    b'{"iteration": 10, "event": "diverged"}',
    b'{"iteration": 10, "told": 1}',
    b'{"iteration": 10, "event": "extended"}',
    b'{"iteration": 10, "extended": {"from": 10, "to": "20", "config": {}}}',
    b'{"iteration": 10, "extended": {"to": 20}}',
    b'{"iteration": 1' + b"0" * 400 + b"}",
    b'{"settings": null, "by": null, "result": null, "looks": null, "training": null}',
    b'{"settings": [1], "by": {}, "result": {}, "looks": {"x": {}}, "training": {}}',
    b'{"settings": {}, "by": {}, "result": [], "looks": {}, "training": {}}',
    b'{"task": {"type": []}}',
    b'{"task": []}',
    b'{"training": {"iterations": 1' + b"0" * 300 + b"}}",
    b'{"task": {"type": "sine", "hidden": [100000000000000]}}',
]


@pytest.mark.parametrize("text", JSON, ids=lambda text: text[:50].decode("latin-1"))
def test_json_of_any_shape_is_one_line(half, text):
    job = Job("one", SHORT, looks=(20,))
    for name in ("config.json", "metrics.jsonl", "result.json", "look-20.json"):
        path = half.path / name
        before = path.read_bytes() if path.exists() else None
        path.write_bytes(text + b"\n")
        with pytest.raises(MinimetaError) as caught:
            _use(name, job, half.path)
        told = _one_line(caught)
        # Some of these are settings, of another run.
        assert name in told or (name == "config.json" and "other settings" in told)
        path.unlink() if before is None else path.write_bytes(before)


def _use(name, job, path):
    """Something that reads the file of this name."""
    if name in ("config.json", "metrics.jsonl"):
        _train(SHORT, path, resume=True)
    else:
        run_job(job, path, lambda *_: {}, None)


def test_a_file_that_is_far_too_large_is_not_read(half):
    for name in ("config.json", "checkpoint.npz", "metrics.jsonl"):
        path = half.path / name
        before = path.read_bytes()
        with open(path, "ab") as file:
            file.truncate(1 << 40)  # a hole: it takes no disk
        tracemalloc.start()
        with pytest.raises(CheckpointError, match="bytes") as caught:
            _train(SHORT, half.path, resume=True)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert name in _one_line(caught) and peak < 50e6
        path.write_bytes(before)


def _stored(folder):
    with np.load(folder.checkpoint_path) as stored:
        return dict(stored)


D = 25  # parameters of the network
WRONG = {
    "iteration": [np.array(10**9), np.array(-5), np.array(True), np.array(2.0), np.arange(2)],
    "meta": [np.zeros(D), np.zeros(D - 1, "f4"), np.zeros((1, D), "f4"), np.full(D, np.nan, "f4")],
    "outer.m": [np.zeros(3, "f4"), np.zeros(D), np.array("None"), np.full(D, np.inf, "f4")],
    "outer.v": [-np.ones(D, "f4"), np.zeros((D, 1), "f4")],
    "outer.steps": [np.array(7), np.array(-1), np.array(10**15), np.array(20.0)],
    "inner.v": [np.zeros(3, "f4"), -np.ones(D, "f4"), np.zeros(D, complex), np.zeros((2, D), "f4")],
    "inner.m": [np.zeros(D - 1, "f4"), np.full(D, -np.inf, "f4")],
    "inner.steps": [np.array(0), np.array(-1), np.array([200])],
}
CASES = [(name, value) for name, values in WRONG.items() for value in values]


@pytest.mark.parametrize(("name", "value"), CASES, ids=lambda each: str(each)[:20])
def test_a_whole_checkpoint_with_nonsense_is_one_line(half, name, value):
    arrays = _stored(half)
    assert arrays["meta"].shape == (D,) and name in arrays
    np.savez(half.checkpoint_path, **(arrays | {name: value}))
    for attempt in (lambda: open_run(half.path), lambda: _train(SHORT, half.path, resume=True)):
        with pytest.raises(CheckpointError, match=r"checkpoint\.npz is damaged") as caught:
            attempt()
        text = _one_line(caught)
        assert name.partition(".")[0] in text or "meta-step" in text


def test_a_state_that_is_missing_is_noticed(half):
    arrays = {name: each for name, each in _stored(half).items() if not name.startswith("outer")}
    names = np.array(sorted([*arrays, "outer"]))
    np.savez(half.checkpoint_path, **(arrays | {"outer": np.array("None"), "names": names}))
    with pytest.raises(CheckpointError, match="the outer rule cannot have no state after 20"):
        open_run(half.path)


def test_a_checkpoint_that_unpacks_to_far_more_is_not_unpacked(half):
    stored, file = _stored(half), io.BytesIO()
    np.save(file, np.zeros(10**7))
    with zipfile.ZipFile(half.checkpoint_path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.npy", file.getvalue())
        for name in ("format", "config"):
            file = io.BytesIO()
            np.save(file, stored[name])
            archive.writestr(f"{name}.npy", file.getvalue())
    del file
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="it unpacks to 80000724 bytes"):
        open_run(half.path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_state_that_is_no_longer_finite_is_a_divergence(tmp_path):
    """Outer Adam's second moment overflows, and every later step is zero."""
    settings = PRESETS["sine-maml"].settings.changed(iterations=2000, meta_batch=3, inner_lr=1000.0)
    with pytest.raises(DivergenceError, match=r"state outer\.v .*at meta-step \d+:") as caught:
        _train(settings, tmp_path / "run")
    failed = int(re.search(r"meta-step (\d+)", str(caught.value))[1])
    state = open_run(tmp_path / "run")[1]
    assert state.iteration == failed - 10 and np.isfinite(state.meta).all()
    assert state.outer is None or np.isfinite(state.outer.v).all()


def test_large_parameters_whose_sum_overflows_are_no_divergence():
    from minimeta.inner import AdamState
    from minimeta.training.meta_training import MetaState
    from minimeta.training.states import check_finite

    large = np.full(4, 3e38, np.float32)
    state = MetaState(7, large, AdamState(7, -large, large), None)
    check_finite(state)
    for bad in (np.inf, -np.inf, np.nan):
        array = large.copy()
        array[2] = bad
        for wrong in (
            state._replace(meta=array),
            state._replace(outer=AdamState(7, array, large)),
            state._replace(inner=AdamState(7, large, array)),
            state._replace(outer=(bad, None)),
        ):
            with pytest.raises(DivergenceError, match="no longer finite at meta-step 7"):
                check_finite(wrong)


def test_partial_files_of_a_killed_process_are_removed_and_no_others(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.create(SHORT.to_dict())  # and killed within the first checkpoint
    ours = [".checkpoint.npz.123.part", ".checkpoint.npz.123.456.part", ".config.json.9.part"]
    mine = [".thesis.part", ".checkpoint.npz.mine.part", "checkpoint.npz.1.part"]
    for name in ours + mine:
        (folder.path / name).write_bytes(b"half")
    _train(SHORT, folder.path, resume=True)
    left = {path.name for path in folder.path.iterdir()}
    assert left == {*mine, *FILES}


@pytest.mark.parametrize("error", [MemoryError, OSError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["start", "save"])
def test_a_run_that_cannot_begin_leaves_its_folder_to_the_next(tmp_path, monkeypatch, error, where):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")

    def fails(*_, **__):
        raise error("no more")

    place = {
        "start": "minimeta.training.meta_training.MetaTraining.start",
        "save": "minimeta.runs.folder.RunFolder.save",
    }[where]
    with monkeypatch.context() as patch:
        patch.setattr(place, fails)
        with pytest.raises((error, CheckpointError), match="no more"):
            _train(SHORT, tmp_path / "run")
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left - {".lock"} == {"notes.txt"}
    assert _train(SHORT, tmp_path / "run").iteration == 40


def test_a_full_disk_is_one_line_and_harms_nothing(half, tmp_path):
    """The system refuses every byte of a file beyond the limit."""
    whole = _train(SHORT, tmp_path / "whole")
    size = half.checkpoint_path.stat().st_size
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "limit = int(sys.argv[2])\n"
        "from minimeta.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "sys.exit(main(['train', '--resume', '--out', sys.argv[1], '--quiet']))\n"
    )
    for limit in (0, 10, half.metrics_path.stat().st_size + 50, size - 1):
        before = half.checkpoint_path.read_bytes()
        words = [sys.executable, "-c", code, str(half.path), str(limit)]
        ended = subprocess.run(words, capture_output=True, text=True)
        assert ended.returncode == 1
        assert ended.stderr.count("\n") == 1 and "File too large" in ended.stderr
        assert half.checkpoint_path.read_bytes() == before
    end = _train(SHORT, half.path, resume=True)
    assert np.array_equal(end.meta, whole.meta)
    assert not list(half.path.glob(".*.part"))


@pytest.mark.parametrize("name", ["checkpoint.npz", "config.json", "metrics.jsonl"])
def test_the_files_of_another_run_are_not_taken(half, tmp_path, name):
    _train(SHORT.changed(seed=1), tmp_path / "other", until=20)
    (half.path / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(CheckpointError, match=r"settings other than|other settings") as caught:
        _train(SHORT, half.path, resume=True)
    _one_line(caught)


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoint.npz", "config.json", ".lock"])
def test_a_copy_by_hard_links_stays_as_it_is(half, tmp_path, name):
    (tmp_path / "copy").mkdir()
    os.link(half.path / name, tmp_path / "copy" / name)
    before = (half.path / name).read_bytes()
    _train(SHORT, half.path, resume=True)
    assert (tmp_path / "copy" / name).read_bytes() == before


def test_a_folder_that_cannot_be_is_told(tmp_path):
    for name in ("a\0b", "a/" * 2000, "x" * 256):
        with pytest.raises(CheckpointError, match="folder") as caught:
            _train(SHORT, tmp_path / name)
        _one_line(caught)


def test_a_name_with_a_line_break_is_told_in_one_line(tmp_path):
    folder = tmp_path / "two\nlines \x1b[2J"
    with pytest.raises(CheckpointError, match="not a run folder") as caught:
        open_run(folder)
    _one_line(caught)


@pytest.mark.parametrize("name", ["notes", "notes/run"])
def test_a_file_in_the_place_of_a_folder_is_told_without_a_number(tmp_path, name):
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(CheckpointError, match="cannot be used as a run folder") as caught:
        _train(SHORT, tmp_path / name)
    assert "Errno" not in _one_line(caught) and (tmp_path / "notes").read_text() == "mine"


@pytest.fixture
def little_memory():
    """Fail a test that takes 50 MB at any time."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


@pytest.mark.parametrize("hidden", [[10**8], [10**9, 10**9]])
def test_altered_sizes_are_refused_before_parameters_are_made(half, little_memory, hidden):
    config = json.loads(half.config_path.read_text())
    config["task"]["hidden"] = hidden
    half.config_path.write_text(json.dumps(config))
    altered = SHORT.changed(hidden=hidden)
    for attempt in (lambda: open_run(half.path), lambda: _train(altered, half.path, resume=True)):
        with pytest.raises(CheckpointError, match="settings other than those in") as caught:
            attempt()
        _one_line(caught)


@pytest.mark.parametrize(("dtype", "size"), [("float32", "0.373"), ("float64", "0.745")])
def test_sizes_beyond_this_machine_are_told(monkeypatch, little_memory, dtype, size):
    monkeypatch.setattr("minimeta.arrays.memory.physical_memory", lambda: 10**8)
    told = f"need at least {size} GiB of memory, but this machine has 0.0931 GiB"
    with pytest.raises(SettingsError, match=told) as caught:
        rules_of(SHORT.changed(hidden=[10_000, 10_000], dtype=dtype))
    _one_line(caught)


@dataclass(frozen=True)
class Missing:
    """``tasks``, which raise ``error`` in meta-step 5."""

    tasks: Any
    error: BaseException

    def sample(self, rng, *how):
        if rng.bit_generator.seed_seq.entropy[2] == 5:
            raise self.error
        return self.tasks.sample(rng, *how)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "none", "my.csv"), OSError("mine")])
def test_an_error_of_the_users_own_tasks_stays_as_it_is(tmp_path, error):
    experiment = Experiment(SHORT, workers=1)
    experiment.__dict__["training"] = replace(
        experiment.training, tasks=Missing(experiment.training.tasks, error)
    )
    with pytest.raises(OSError) as caught:
        train(experiment, tmp_path / "run")
    assert caught.value is error


@pytest.mark.parametrize("name", ["checkpoint.npz", "metrics.jsonl"])
def test_a_file_that_cannot_be_written_is_named(half, monkeypatch, name):
    rename = os.replace

    def full(part, path):
        if path.name == name:
            raise OSError(28, "No space left on device", str(part))
        rename(part, path)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError) as caught:
        _train(SHORT, half.path, resume=True)
    assert _one_line(caught) == f"{half.path / name} cannot be written: No space left on device"


def test_a_folder_with_a_run_is_refused_before_images_are_loaded(half, tmp_path):
    images = Experiment(PRESETS["omniglot-5way"].settings, data=str(tmp_path / "nowhere"))
    before = sorted(path.name for path in half.path.iterdir())
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(images, half.path)
    assert sorted(path.name for path in half.path.iterdir()) == before
    with pytest.raises(DataError):
        train(images, tmp_path / "new")
    assert not (tmp_path / "new").exists()
