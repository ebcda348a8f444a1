"""A user's own algorithm and inner rule, from settings to evaluation."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from minimeta.algorithms import ALGORITHMS, Algorithm, Outcome
from minimeta.cli import main
from minimeta.inner import RULES, descend
from minimeta.registry import setting
from minimeta.runs.experiment import Experiment, evaluate
from minimeta.runs.folder import RunFolder
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.runs.train import Saving, open_run, train


class Velocity(NamedTuple):
    steps: int
    v: np.ndarray


@dataclass(frozen=True)
class Momentum:
    lr: float = setting(0.01, "step size", least=0)
    decay: float = setting(0.9, "decay of the velocity", least=0, below=1)

    def step(self, phi, g, state=None, j=0):
        v = g if state is None else self.decay * state.v + g
        return phi - self.lr * v, Velocity(1 if state is None else state.steps + 1, v)

    def merge(self, shared, states, tasks):
        return Velocity(states.steps, states.v.mean(axis=0))


@dataclass(frozen=True)
class Pull(Algorithm):
    """Reptile with a part of its direction."""

    strength: float = setting(0.5, "part of the way to the adapted parameters", least=0)

    def direction(self, objective, meta, minibatches, state=None):
        phi, state, loss = descend(objective, meta, minibatches, self.rule, state)
        return Outcome(self.strength * (meta - phi), loss, state)


OFTEN = Saving(5, 0.0)


@contextmanager
def registered():
    """Register both classes.

    A user's script puts ``@ALGORITHMS.register("pull")`` above the class
    instead.
    """
    with RULES.registered("momentum", Momentum), ALGORITHMS.registered("pull", Pull):
        own = dict(algorithm="pull", strength=0.3, inner="momentum", inner_decay=0.8)
        yield PRESETS["sine"].settings.changed(**own, hidden="8", iterations=600, meta_batch=3)


@pytest.fixture
def settings():
    """Settings of a run with both classes, while they are registered."""
    with registered() as settings:
        yield settings


def test_they_are_settings_like_all_others(settings, capsys):
    stored = json.loads(json.dumps(settings.to_dict()))
    rule = {"type": "momentum", "lr": 0.02, "decay": 0.8}
    assert stored["algorithm"] == {"type": "pull", "rule": rule, "strength": 0.3}
    assert Settings.from_dict(stored) == settings
    words = ["train", "sine", "--algorithm", "pull", "--strength", "0.25", "--show"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["algorithm"]["strength"] == 0.25
    assert main(["train", "sine", "--strength", "0.25"]) == 1
    assert "strength belongs to pull: leave it out" in capsys.readouterr().err
    assert main([*words, "--inner", "momentum", "--inner-decay", "1"]) == 1
    assert "inner_decay must be 0 or more and below 1" in capsys.readouterr().err


def test_killed_and_resumed_they_end_bit_identical_and_are_evaluated(tmp_path, settings):
    whole = train(Experiment(settings, workers=1), tmp_path / "whole", saving=OFTEN)
    folder, reached = RunFolder(tmp_path / "killed"), [0]
    while reached[-1] < 400:
        _kill_beyond(folder, reached[-1] + 100)
        experiment, state = open_run(folder.path)
        assert isinstance(state.inner, Velocity) and state.inner.steps == 5 * state.iteration
        reached.append(state.iteration)
    assert len(reached) >= 3 and reached == sorted(reached) and reached[-1] < 600
    end = train(experiment, folder.path, resume=True, saving=OFTEN)
    assert end.iteration == 600 and isinstance(end.inner, Velocity)
    for one, other in zip(end, whole, strict=True):
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        assert all(np.array_equal(x, y) for x, y in pairs)
    errors = evaluate(*open_run(folder.path), count=20)
    assert errors.values.shape == (20, 33) and np.isfinite(errors.values).all()
    assert np.array_equal(errors.values, evaluate(experiment, whole, count=20).values)


def _kill_beyond(folder, iteration):
    """Train in a new process, and kill it beyond ``iteration``."""
    words = [sys.executable, __file__, str(folder.path)]
    places = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    with subprocess.Popen(words, env=environment) as process:
        while process.poll() is None and not _beyond(folder, iteration):
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL


def _beyond(folder, iteration):
    return folder.checkpoint_path.exists() and open_run(folder.path)[1].iteration >= iteration


if __name__ == "__main__":
    out = Path(sys.argv[1])
    resume = RunFolder(out).config_path.exists()
    with registered() as settings:
        train(Experiment(settings, workers=1), out, resume=resume, saving=OFTEN)
