"""Runs on disk: interruptions change no bit, and errors are one line."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from minimeta.errors import CheckpointError, DivergenceError, SettingsError
from minimeta.files import write_atomically
from minimeta.runs.experiment import Experiment
from minimeta.runs.folder import RunFolder
from minimeta.runs.presets import PRESETS
from minimeta.runs.train import Saving, open_run, train
from minimeta.training.meta_training import checked_mean

SHORT = PRESETS["sine"].settings.changed(
    iterations=60, hidden="8", inner="adam", inner_lr=0.01, meta_batch=3
)


def _train(settings, out, *, workers=None, **how):
    return train(Experiment(settings, workers=workers), out, **how)


def _same_state(a, b):
    assert a.iteration == b.iteration
    assert np.array_equal(a.meta, b.meta)
    for one, other in ((a.inner, b.inner), (a.outer, b.outer)):
        assert type(one) is type(other)
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        assert all(np.array_equal(x, y) for x, y in pairs)


class _Stop(Exception):
    """A run that was killed."""


@pytest.mark.usefixtures("either_kernels")
@pytest.mark.parametrize(
    "changes",
    [{"inner": inner, "outer": outer} for inner in ("sgd", "adam") for outer in ("sgd", "adam")]
    + [
        {
            "algorithm": "meta-sgd",
            "outer": "adam",
            "epsilon": 0.001,
            "combine": "agreement",
        },
        {"algorithm": "anil", "outer": "adam"},
        {"algorithm": "cavia", "context": 2},
        {"algorithm": "imaml", "outer": "adam", "epsilon": 0.001},
        {"algorithm": "adml", "attack": 0.3, "outer": "adam", "epsilon": 0.001},
        {"algorithm": "taml", "bias": "gini", "outer": "adam", "epsilon": 0.001},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)
def test_a_run_cut_off_again_and_again_and_resumed_ends_bit_identical(
    tmp_path, monkeypatch, changes
):
    settings, saving = SHORT.changed(**changes), Saving(7, 0)
    whole = _train(settings, tmp_path / "whole", saving=saving)
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
                patch.setattr("minimeta.runs.train.checked_mean", cut)
                try:
                    end = _train(settings, folder.path, resume=resume, saving=saving)
                    break
                except _Stop:
                    resume, cuts = True, cuts + 1
        assert cuts == -(-60 // 7) // windows - (-(-60 // 7) % windows == 0)
        _same_state(end, whole)


LONGER = SHORT.changed(iterations=400)


def test_killed_at_twenty_random_moments_a_run_ends_bit_identical(tmp_path):
    whole = _train(LONGER, tmp_path / "whole", workers=1, saving=Saving(5, 0))
    folder, chance, reached = RunFolder(tmp_path / "killed"), random.Random(0), []
    for kill in range(20):
        _kill_beyond(folder, chance.randrange(10 * kill, 10 * kill + 40), chance.uniform(0, 0.004))
        reached.append(open_run(folder.path)[1].iteration)
    assert reached == sorted(reached)
    assert len(set(reached)) >= 10  # the kills fell within the training, far apart
    end = _train(LONGER, folder.path, workers=1, resume=True, saving=Saving(5, 0))
    _same_state(end, whole)
    assert _losses(RunFolder(tmp_path / "whole")) == _losses(folder)
    assert not list(folder.path.glob(".*.part"))


def _kill_beyond(folder, iteration, seconds):
    """Start or resume the run in a process of its own, and kill it some time
    after ``iteration``.

    The kill comes ``seconds`` after the metrics pass ``iteration``.
    """
    if (process := os.fork()) == 0:
        try:
            resume = folder.config_path.exists()
            _train(LONGER, folder.path, workers=1, resume=resume, saving=Saving(5, 0))
        finally:
            os._exit(1)
    until = time.monotonic() + 60
    while _last_line(folder) < iteration and time.monotonic() < until:
        time.sleep(0.0005)
    time.sleep(seconds)
    os.kill(process, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == -signal.SIGKILL


def _last_line(folder):
    losses = _losses(folder) if folder.metrics_path.exists() else []
    return losses[-1][0] if losses else -1


def test_a_write_that_fails_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"half of the n")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_atomically(path, fails)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_going_on_drops_what_will_be_written_again_and_no_file_of_the_users(tmp_path):
    folder = RunFolder(tmp_path)
    for iteration in (10, 20, 30):
        folder.append_metrics({"iteration": iteration, "loss": 0.0})
    with open(folder.metrics_path, "a") as file:
        file.write('{"iteration": 40, "lo')
    (tmp_path / ".checkpoint.npz.123.part").write_bytes(b"half")
    (tmp_path / ".thesis.part").write_text("mine")
    with folder.held():
        folder.clear_after(20)
    assert [iteration for iteration, _ in _losses(folder)] == [10, 20]
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [".lock", ".thesis.part", "metrics.jsonl"]


def test_two_processes_do_not_train_in_one_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _train(SHORT, folder.path)
    code = (
        f"import time; from minimeta.runs.folder import RunFolder; from pathlib import Path\n"
        f"with RunFolder(Path({str(folder.path)!r})).held():\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="another process is training"):
            _train(SHORT, folder.path, resume=True)
        process.kill()
    _train(SHORT, folder.path, resume=True)


@pytest.mark.parametrize("name", ["config.json", "checkpoint.npz", "metrics.jsonl"])
def test_a_run_is_not_begun_over_a_file_of_another(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(CheckpointError, match=f"already holds a run .{name}"):
        _train(SHORT, tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_a_run_is_resumed_only_with_its_own_settings(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        _train(SHORT, tmp_path / "none", resume=True)
    _train(SHORT, str(tmp_path / "run"))
    with pytest.raises(CheckpointError, match="other settings"):
        _train(SHORT.changed(seed=1), tmp_path / "run", resume=True)


def _losses(folder):
    lines = folder.metrics_path.read_text().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.endswith("\n")]
    return [(entry["iteration"], entry["loss"]) for entry in entries if "loss" in entry]


def test_a_run_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.create(SHORT.to_dict())
    _same_state(_train(SHORT, folder.path, resume=True), _train(SHORT, tmp_path / "whole"))


def test_metrics_tell_loss_rate_and_what_produced_them(tmp_path):
    _train(SHORT, tmp_path / "run", saving=Saving(20, 0))
    first, *rest = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert {"minimeta", "numpy", "python", "commit"} <= set(first["provenance"])
    assert [entry["iteration"] for entry in rest] == [20, 40, 60]
    # The last meta-step's epsilon: one 60th of the first.
    assert rest[-1]["epsilon"] == pytest.approx(SHORT.outer.lr / 60)


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    _train(SHORT, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(CheckpointError, match="already holds a run"):
        _train(SHORT, tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_missing_truncated_and_altered_files_are_one_line_and_stay_as_they_are(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(CheckpointError, match="not a run folder"):
        open_run(folder.path)
    _train(SHORT, folder.path)
    good = folder.checkpoint_path.read_bytes()
    for bad in (good[:-40], good[: len(good) // 3], b"", b"not an archive"):
        folder.checkpoint_path.write_bytes(bad)
        for attempt in (
            lambda: open_run(folder.path),
            lambda: _train(SHORT, folder.path, resume=True),
        ):
            with pytest.raises(CheckpointError, match="checkpoint.npz is damaged"):
                attempt()
        assert folder.checkpoint_path.read_bytes() == bad
    folder.checkpoint_path.unlink()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        _train(SHORT, folder.path, resume=True)
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
    state = _train(SHORT, folder.path)
    good, noticed = folder.checkpoint_path.read_bytes(), 0
    places = [
        *range(0, len(good) - 200, 17),
        *range(len(good) - 200, len(good)),
    ]  # and the whole end of the archive
    for place in places:
        folder.checkpoint_path.write_bytes(
            good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :]
        )
        try:
            _same_state(open_run(folder.path)[1], state)
        except CheckpointError:
            noticed += 1
    assert noticed > 0.6 * len(
        places
    )  # all except some bytes of the archive's headers that no reader uses


def test_settings_altered_behind_a_checkpoint_are_noticed(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _train(SHORT, folder.path)
    folder.config_path.write_text(json.dumps(SHORT.changed(inner_lr=0.5).to_dict()))
    with pytest.raises(CheckpointError, match="written under settings other than"):
        open_run(folder.path)


def test_settings_of_another_version_are_told_with_their_file(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _train(SHORT, folder.path)
    folder.config_path.write_text(json.dumps(SHORT.to_dict() | {"momentum": 0.5}))
    told = f"{folder.config_path}: unknown settings: momentum"
    with pytest.raises(SettingsError, match=re.escape(told)):
        _train(SHORT, folder.path, resume=True)


def test_a_pickle_is_never_loaded(tmp_path):
    folder = RunFolder(tmp_path / "run")
    _train(SHORT, folder.path)
    np.savez(folder.checkpoint_path, format=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CheckpointError, match="damaged"):
        open_run(folder.path)


def test_divergence_names_the_meta_step_and_leaves_the_last_good_checkpoint(tmp_path):
    settings = SHORT.changed(
        inner="sgd", inner_lr=0.02, epsilon=30.0, iterations=400, activation="relu"
    )
    with pytest.raises(DivergenceError, match=r"the loss is (inf|nan) at meta-step \d+") as caught:
        _train(settings, tmp_path / "run", saving=Saving(1, 0))
    failed = int(str(caught.value).split("meta-step ")[1].split(":")[0])
    _, state = open_run(tmp_path / "run")
    assert 0 < state.iteration < failed and np.isfinite(state.meta).all()


@pytest.mark.usefixtures("either_kernels")
def test_the_numbers_do_not_depend_on_the_number_of_workers(tmp_path):
    states = [
        _train(SHORT.changed(meta_batch=5), tmp_path / str(count), workers=count)
        for count in (1, 2, 3, 5)
    ]
    for state in states[1:]:
        _same_state(state, states[0])


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"tail": "separate"}, "reptile takes an inner step on every"),
        ({"algorithm": "maml", "tail": "separate", "k": 1}, "k to 2"),
        ({"inner": "lbfgs"}, "inner must be one of adam, sgd"),
        ({"hidden": "8,x"}, "hidden must be numbers such as 64,64"),
        ({"iterations": 0}, "iterations must be 1 or more"),
        ({"shots": 0}, "shots must be 1"),
        ({"inner_lr": "fast"}, "inner_lr must be a number"),
        ({"k": 6}, "grid of 50"),
        ({"inner_beta2": 1.0}, "inner_beta2 must be 0 or more and below 1"),
        ({"phase": float("inf")}, "phase must be"),
        ({"inner_lr": float("nan")}, "inner_lr must be"),
        ({"epsilon": -1.0}, "epsilon must be 0 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_a_sentence(tmp_path, changes, match):
    with pytest.raises(SettingsError, match=match):
        _train(SHORT.changed(**changes), tmp_path / "run")
