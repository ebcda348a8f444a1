"""A run is extended where its schedule allows; Ctrl-C loses no meta-step."""

import json
import os
import signal
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from minimeta.errors import CheckpointError
from minimeta.runs.experiment import Experiment
from minimeta.runs.folder import RunFolder
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.runs.train import Saving, open_run, train

FALLING = PRESETS["sine"].settings.changed(iterations=40, hidden="8", meta_batch=2)
CONSTANT = FALLING.changed(epsilon=0.1, epsilon_final=0.1, inner="adam", outer="adam")
OFTEN = Saving(10, 0.0)


def _train(settings, out, **how):
    return train(Experiment(settings, workers=1), out, saving=OFTEN, **how)


def _same(one, other):
    flat = [
        [part for each in state for part in (each if isinstance(each, tuple) else (each,))]
        for state in (one, other)
    ]
    return all(np.array_equal(a, b) for a, b in zip(*flat, strict=True))


@pytest.mark.usefixtures("either_kernels")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("done", [40, 25, 0])
def test_an_extended_run_has_the_bits_of_a_longer_one(tmp_path, dtype, done):
    short = CONSTANT.changed(dtype=dtype)
    long = short.changed(iterations=90)
    whole = _train(long, tmp_path / "whole")
    _train(short, tmp_path / "run", until=done)
    end = _train(long, tmp_path / "run", resume=True)
    assert end.iteration == 90 and _same(end, whole)
    folder = RunFolder(tmp_path / "run")
    assert folder.config() == json.loads(json.dumps(long.to_dict()))
    (row,) = (row for row in folder.metrics() if row.get("event") == "extended")
    assert row["iteration"] == done and (row["extended"]["from"], row["extended"]["to"]) == (40, 90)
    assert Settings.from_dict(row["extended"]["config"]) == short
    assert _same(open_run(tmp_path / "run")[1], whole)
    assert "extended" not in folder.facts()


def test_a_run_with_a_falling_step_size_is_not_extended(tmp_path):
    _train(FALLING, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    told = "cannot be extended from 40 to 90 .*outer step size changes over the whole run"
    with pytest.raises(CheckpointError, match=told) as caught:
        _train(FALLING.changed(iterations=90), tmp_path / "run", resume=True)
    assert "\n" not in str(caught.value)
    for other in (FALLING.changed(iterations=30), FALLING.changed(iterations=90, seed=1)):
        with pytest.raises(CheckpointError, match="other settings"):
            _train(other, tmp_path / "run", resume=True)
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}


def test_a_run_that_would_be_extended_unasked_is_told_how(tmp_path):
    _train(CONSTANT, tmp_path / "run")
    told = r"iterations is 40 in the run, 90 here; --iterations 90 \(in Python iterations=90\)"
    with pytest.raises(CheckpointError, match=told):
        _train(CONSTANT.changed(iterations=90), tmp_path / "run", resume=True, extend=False)
    with pytest.raises(CheckpointError, match="in the run, 30 here$"):
        _train(CONSTANT.changed(iterations=30), tmp_path / "run", resume=True)


class _Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("long_next", [True, False])
def test_a_kill_between_any_two_writes_of_an_extension_leaves_a_whole_run(
    tmp_path, monkeypatch, long_next
):
    long = CONSTANT.changed(iterations=60)
    whole = {each: _train(each, tmp_path / f"whole{i}") for i, each in enumerate((CONSTANT, long))}
    rename, moment = os.replace, 0
    while True:
        path = tmp_path / f"killed{moment}"
        _train(CONSTANT, path)
        calls = iter(range(moment))

        def killed(part, target, calls=calls):
            if next(calls, None) is None:
                raise _Killed
            rename(part, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            try:
                _train(long, path, resume=True)
                break
            except _Killed:
                pass
        there = Settings.from_dict(RunFolder(path).config())
        assert there in (CONSTANT, long) and open_run(path)[1].iteration >= 40
        wanted = long if long_next or there == long else CONSTANT
        assert _same(_train(wanted, path, resume=True), whole[wanted])
        extensions = [row for row in RunFolder(path).metrics() if "extended" in row]
        assert len(extensions) == (wanted == long)
        moment += 1
    assert moment >= 4  # metrics, checkpoint, config.json, checkpoints of new meta-steps


@dataclass(frozen=True)
class Interrupting:
    """``tasks``, which send SIGINT to this process within meta-step ``at``."""

    tasks: Any
    at: int
    count: int

    def sample(self, rng, *how):
        batches = self.tasks.sample(rng, *how)
        if rng.bit_generator.seed_seq.entropy[2] == self.at:
            for _ in range(self.count):
                os.kill(os.getpid(), signal.SIGINT)
        return batches


def _experiment(at, count=1):
    """An experiment that is interrupted within meta-step ``at``."""
    experiment = Experiment(FALLING, workers=1)
    plain = experiment.training
    # Replace a cached property of a frozen object.
    experiment.__dict__["training"] = replace(plain, tasks=Interrupting(plain.tasks, at, count))
    return experiment


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts this process, even if it was started without that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("at", [1, 3, 9, 10, 24, 39])
def test_ctrl_c_saves_the_meta_step_reached_and_changes_no_bit(tmp_path, ctrl_c, at):
    whole, seldom = _train(FALLING, tmp_path / "whole"), Saving(10, 1e9)
    with pytest.raises(KeyboardInterrupt, match="stopped: --resume"):
        train(_experiment(at), tmp_path / "run", saving=seldom)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert open_run(tmp_path / "run")[1].iteration == at + 1
    assert RunFolder(tmp_path / "run").arrays()["iteration"][-1] == at + 1
    end = train(Experiment(FALLING, workers=1), tmp_path / "run", resume=True, saving=seldom)
    assert _same(end, whole)


def test_a_second_ctrl_c_stops_at_once(tmp_path, ctrl_c):
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        train(_experiment(24, count=2), tmp_path / "run", saving=Saving(10, 0))
    assert open_run(tmp_path / "run")[1].iteration == 20


def test_another_handler_of_ctrl_c_is_left_alone(tmp_path, ctrl_c):
    def mine(*_):
        pass

    signal.signal(signal.SIGINT, mine)
    _train(FALLING, tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is mine
    failed = []

    def in_a_thread():
        try:
            _train(FALLING, tmp_path / "other")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert not failed
