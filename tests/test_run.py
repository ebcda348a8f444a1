"""Runs on disk: the same end however a run is interrupted, and one line for everything that can be wrong."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from minimeta.checkpoint import RunFolder
from minimeta.errors import CheckpointError, DivergenceError, SettingsError
from minimeta.experiment import PRESETS
from minimeta.meta_training import checked_mean
from minimeta.run import Saving, open_run, train

SHORT = replace(PRESETS["sine"][1], iterations=60, hidden="8", inner="adam", inner_lr=0.01, meta_batch=3)


def _same_state(a, b):
    assert a.iteration == b.iteration
    for x, y in ((a.meta, b.meta), *((p, q) for p, q in zip(a.inner or (), b.inner or (), strict=True))):
        assert np.array_equal(x, y)


class _Stop(Exception):
    """A run cut off."""


@pytest.mark.parametrize("outer", ["sgd", "adam"])
@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_a_run_cut_off_again_and_again_and_resumed_ends_bit_identical(tmp_path, monkeypatch, inner, outer):
    settings, saving = replace(SHORT, inner=inner, outer=outer), Saving(7, 0)
    whole = train(settings, tmp_path / "whole", saving=saving)
    for windows in (1, 2, 3):
        folder = RunFolder(tmp_path / f"cut-every-{windows}")
        resume, cuts = False, 0
        while True:
            calls = iter([None] * windows)

            def cut(losses, first, calls=calls):
                if next(calls, _Stop) is _Stop:
                    raise _Stop
                return checked_mean(losses, first)

            with monkeypatch.context() as patch:
                patch.setattr("minimeta.run.checked_mean", cut)
                try:
                    end = train(settings, folder.path, resume=resume, saving=saving)
                    break
                except _Stop:
                    resume, cuts = True, cuts + 1
        assert cuts == -(-60 // 7) // windows - (-(-60 // 7) % windows == 0)
        _same_state(end, whole)


def _command(out, *more):
    flags = ["--iterations", "400", "--hidden", "8", "--inner", "adam", "--inner-lr", "0.01", "--meta-batch", "3"]
    return [
        sys.executable, "-m", "minimeta", "train", "sine", *flags, "--out", str(out), "--quiet",
        "--log-every", "5", "--checkpoint-seconds", "0", *more,
    ]  # fmt: skip


def test_killed_at_twenty_random_moments_a_run_ends_bit_identical(tmp_path):
    subprocess.run(_command(tmp_path / "whole"), check=True, capture_output=True)
    folder, chance = RunFolder(tmp_path / "killed"), random.Random(0)
    for _ in range(20):
        _kill_after_progress(folder, chance.uniform(0, 0.03))
    subprocess.run(_command(folder.path, "--resume"), check=True, capture_output=True)
    _same_state(open_run(tmp_path / "whole")[1], open_run(folder.path)[1])
    assert _losses(RunFolder(tmp_path / "whole")) == _losses(folder)
    assert not list(folder.path.glob(".*.part"))


def _kill_after_progress(folder, seconds):
    """Start or resume the run, and kill it ``seconds`` after it first writes anything."""
    more = ["--resume"] if folder.config_path.exists() else []
    before = _written(folder)
    with subprocess.Popen(_command(folder.path, *more), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and _written(folder) == before:
            time.sleep(0.001)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)


def _written(folder):
    files = (folder.config_path, folder.metrics_path, folder.checkpoint_path)
    return [path.stat().st_mtime_ns if path.exists() else None for path in files]


def _losses(folder):
    entries = map(json.loads, folder.metrics_path.read_text().splitlines())
    return [(entry["iteration"], entry["loss"]) for entry in entries if "loss" in entry]


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.create(SHORT.to_dict())
    _same_state(train(SHORT, folder.path, resume=True), train(SHORT, tmp_path / "whole"))


def test_metrics_tell_loss_rate_and_what_produced_them(tmp_path):
    train(SHORT, tmp_path / "run", saving=Saving(20, 0))
    first, *rest = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {"minimeta", "numpy", "python", "commit"} <= set(first["provenance"])
    assert [entry["iteration"] for entry in rest] == [20, 40, 60]
    # The last meta-step's epsilon: one 60th of the first.
    assert rest[-1]["epsilon"] == pytest.approx(SHORT.epsilon / 60)


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    train(SHORT, tmp_path / "run")
    before = _written(RunFolder(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="already holds a run"):
        train(SHORT, tmp_path / "run")
    assert _written(RunFolder(tmp_path / "run")) == before


def test_missing_truncated_and_altered_files_are_one_line_and_stay_as_they_are(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(CheckpointError, match="not a run folder"):
        open_run(folder.path)
    train(SHORT, folder.path)
    good = folder.checkpoint_path.read_bytes()
    for bad in (good[:-40], good[: len(good) // 3], b"", b"not an archive"):
        folder.checkpoint_path.write_bytes(bad)
        for attempt in (lambda: open_run(folder.path), lambda: train(SHORT, folder.path, resume=True)):
            with pytest.raises(CheckpointError, match="checkpoint.npz is damaged"):
                attempt()
        assert folder.checkpoint_path.read_bytes() == bad
    folder.checkpoint_path.unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        train(SHORT, folder.path, resume=True)
    folder.checkpoint_path.write_bytes(good)
    for bad in ("{", "[]", ""):
        folder.config_path.write_text(bad)
        with pytest.raises(CheckpointError, match="config.json is damaged"):
            open_run(folder.path)
    folder.config_path.write_text(json.dumps(SHORT.to_dict() | {"colour": 1}))
    with pytest.raises((CheckpointError, SettingsError), match="colour|other settings"):
        open_run(folder.path)


def test_an_altered_byte_of_a_checkpoint_is_noticed_or_makes_no_difference(tmp_path):
    folder = RunFolder(tmp_path / "run")
    state = train(SHORT, folder.path)
    good, noticed = folder.checkpoint_path.read_bytes(), 0
    for place in range(0, len(good), 17):
        folder.checkpoint_path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        try:
            _same_state(open_run(folder.path)[1], state)
        except CheckpointError:
            noticed += 1
    assert noticed > 0.8 * len(good) / 17  # all but some bytes of the archive's headers that nothing reads


def test_settings_altered_behind_a_checkpoint_are_noticed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    train(SHORT, folder.path)
    folder.config_path.write_text(json.dumps(SHORT.to_dict() | {"inner_lr": 0.5}))
    with pytest.raises(CheckpointError, match="other settings"):
        open_run(folder.path)


def test_a_pickle_is_never_loaded(tmp_path):
    folder = RunFolder(tmp_path / "run")
    train(SHORT, folder.path)
    np.savez(folder.checkpoint_path, format=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="damaged"):
        open_run(folder.path)


def test_divergence_names_the_meta_step_and_leaves_the_last_good_checkpoint(tmp_path):
    settings = replace(SHORT, inner="sgd", inner_lr=0.02, epsilon=30.0, iterations=400, activation="relu")
    with pytest.raises(DivergenceError, match=r"the loss is (inf|nan) at meta-step \d+") as caught:
        train(settings, tmp_path / "run", saving=Saving(1, 0))
    failed = int(str(caught.value).split("meta-step ")[1].split(":")[0])
    _, state = open_run(tmp_path / "run")
    assert 0 < state.iteration < failed and np.isfinite(state.meta).all()


def test_the_numbers_do_not_depend_on_the_number_of_workers(tmp_path):
    states = [train(replace(SHORT, meta_batch=5), tmp_path / str(count), workers=count) for count in (1, 2, 3, 5)]
    for state in states[1:]:
        _same_state(state, states[0])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tail": "separate"}, "reptile steps through all"), ({"algorithm": "maml", "tail": "separate", "k": 1}, "k to 2"),
        ({"inner": "lbfgs"}, "inner must be one of sgd, adam"), ({"hidden": "8,x"}, "hidden must be layer sizes"),
        ({"iterations": 0}, "iterations must be 1 or more"),
        ({"shots": 0}, "shots must be 1"), ({"inner_lr": "fast"}, "inner_lr must be float"), ({"k": 6}, "grid of 50"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_with_a_sentence(tmp_path, changes, match):
    with pytest.raises(SettingsError, match=match):
        train(replace(SHORT, **changes), tmp_path / "run")
