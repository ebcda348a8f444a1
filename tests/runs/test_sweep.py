"""Sweeps: every job is trained once, and bit-identical to a run by itself.

This holds whatever process dies in between.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minimeta as mm
from minimeta.files import locked
from minimeta.runs.experiment import Experiment
from minimeta.runs.folder import RunFolder
from minimeta.runs.presets import PRESETS
from minimeta.runs.sweep import Job, run_job, sweep
from minimeta.runs.sweep_progress import _steps_done
from minimeta.runs.task_settings import TaskData
from minimeta.runs.train import Saving, open_run, train

SHORT = PRESETS["sine"].settings.changed(iterations=120, meta_batch=2, hidden="8")
TINY = SHORT.changed(iterations=3)
LONG = SHORT.changed(iterations=4_000)
ENDLESS = SHORT.changed(iterations=1_000_000)

# In its own file, because another process must be able to import it.
MEASURING = '''
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minimeta.runs.sweep import Job

GO = Path(FOLDER) / "go"

@dataclass(frozen=True)
class Gated:
    """Tasks that wait in meta-step 60 until the file ``GO`` exists."""

    tasks: Any

    def sample(self, rng, *how):
        while rng.bit_generator.seed_seq.entropy[2] == 60 and not GO.exists():
            time.sleep(0.01)
        return self.tasks.sample(rng, *how)

def gated(name, settings):
    """A job that waits half way; its numbers are those of the same job."""
    tasks = settings.task.tasks(None, settings.training.seed, None)
    return Job(name, settings, own=tasks._replace(train=Gated(tasks.train)))

def parameters(experiment, state, **by):
    with open(Path(FOLDER) / f"seed-{experiment.settings.training.seed}", "a") as file:
        file.write("once\\n")
    return {"phi": state.meta.tolist()} | by
'''


@pytest.fixture
def parameters(tmp_path_factory, monkeypatch):
    """A run's last phi."""
    folder = tmp_path_factory.mktemp("measuring")
    (folder / "measuring.py").write_text(f"FOLDER = {str(folder)!r}\n{MEASURING}")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
    yield importlib.import_module("measuring").parameters
    del sys.modules["measuring"]


def _jobs(settings, count=3):
    return [Job(f"seed-{seed}", settings.changed(seed=seed)) for seed in range(count)]


def _train(settings, out, **how):
    return train(Experiment(settings, workers=1), out, **how)


def _alone(jobs, folder):
    """The same runs, each by itself."""
    phis = {job.name: _train(job.settings, folder / job.name).meta.tolist() for job in jobs}
    return {name: {"phi": phi} for name, phi in phis.items()}


def _results(finished):
    return {name: each.result for name, each in finished.items()}


def _measured(job):
    """How often runs with the job's seed were measured by ``parameters``."""
    folder = Path(sys.modules["measuring"].FOLDER)
    return (folder / f"seed-{job.settings.training.seed}").read_text().count("once")


def test_a_sweep_gives_the_bits_of_its_runs_and_computes_none_twice(tmp_path, parameters):
    jobs = _jobs(SHORT)
    want = _alone(jobs, tmp_path / "alone")
    two = sweep(jobs[:2], tmp_path / "sweep", parameters, processes=2)
    assert _results(two) == {name: want[name] for name in ("seed-0", "seed-1")}
    every = sweep(jobs, tmp_path / "sweep", parameters, processes=2)
    assert _results(every) == want
    assert all(
        each.training["iteration"] == 120 and each.training["provenance"] for each in every.values()
    )
    assert [_measured(job) for job in jobs] == [1, 1, 1]


def _wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


OFTEN = Saving(10, 0.0)


def _on_the_way(folder):
    """The number of runs with a checkpoint beyond their start, unfinished."""
    begun = [file.parent for file in folder.glob("*/checkpoint.npz")]
    return sum(
        open_run(run)[1].iteration > 0 and not (run / "result.json").exists() for run in begun
    )


def _gone_on_with(folder):
    """The number of runs that were resumed beyond their start."""
    runs = [RunFolder(path.parent).metrics() for path in folder.glob("*/metrics.jsonl")]
    return sum(
        any(entry["iteration"] > 0 for entry in run if "provenance" in entry) for run in runs
    )


@pytest.fixture
def ctrl_c():
    """Ctrl-C interrupts this process, and so the processes that it starts.

    A shell starts background jobs with SIGINT ignored, and a process that
    ignores it passes this on.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def begin(tmp_path, parameters, ctrl_c):
    """Start a sweep of jobs, two at once, in a new process group."""
    with contextlib.ExitStack() as stack:

        def begin(jobs, folder, kind="Job"):
            told = [(job.name, job.settings.to_dict()) for job in jobs]
            program = tmp_path / "program.py"
            program.write_text(
                "from minimeta.runs.settings import Settings\n"
                "from minimeta.runs.train import Saving\n"
                "from minimeta.runs.sweep import Job, sweep\n"
                f"from measuring import gated, parameters\nJOBS = {told!r}\n"
                "if __name__ == '__main__':\n"
                f"    jobs = [{kind}(n, Settings.from_dict(s)) for n, s in JOBS]\n"
                f"    sweep(jobs, {str(folder)!r}, parameters, processes=2, saving={OFTEN!r})\n"
            )
            words = [sys.executable, program]
            process = subprocess.Popen(
                words, start_new_session=True, stderr=subprocess.PIPE, text=True
            )
            stack.enter_context(process)
            stack.callback(_kill_group, process.pid)
            return process

        yield begin


def _kill_group(group):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _gone(group):
    """Whether no process of a group is left, except zombies."""
    told = subprocess.run(
        ["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True
    ).stdout
    return not any(
        line.split()[0] == str(group) and line.split()[1][0] != "Z" for line in told.splitlines()
    )


def _two_begun(folder):
    return sum(1 for _ in folder.glob("*/metrics.jsonl")) == 2


def test_a_killed_sweep_goes_on_where_it_stopped(begin, tmp_path, parameters):
    jobs, folder = _jobs(SHORT, 2), tmp_path / "sweep"
    process = begin(jobs, folder, "gated")
    _wait_for(lambda: _on_the_way(folder) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert _results(sweep(jobs, folder, parameters, processes=2)) == _alone(
        jobs, tmp_path / "alone"
    )
    assert _gone_on_with(folder) == 2


@pytest.mark.parametrize(
    "send", [os.kill, os.killpg], ids=["to the sweep alone", "to all its processes"]
)
def test_an_interrupted_sweep_ends_at_once_and_says_how_to_go_on(begin, tmp_path, send):
    jobs, folder = _jobs(ENDLESS, 3), tmp_path / "sweep"
    process = begin(jobs, folder)
    _wait_for(lambda: _two_begun(folder))
    send(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert errors.strip().endswith(
        "KeyboardInterrupt: stopped: the same call continues the sweep from the checkpoints in "
        f"{folder}"
    )
    assert errors.count("Traceback") == 1  # only of the sweep itself
    _wait_for(lambda: _gone(process.pid), 20)
    assert not (folder / jobs[2].name).exists()  # no further job starts


def test_processes_end_with_a_sweep_that_is_killed_alone(begin, tmp_path):
    folder = tmp_path / "sweep"
    process = begin(_jobs(ENDLESS, 3), folder)
    _wait_for(lambda: _two_begun(folder))
    process.kill()
    process.wait()
    _wait_for(lambda: _gone(process.pid), 20)


def test_a_job_that_fails_is_told_and_the_others_are_kept(tmp_path, parameters):
    good, bad = _jobs(SHORT, 1)[0], Job("wild", SHORT.changed(inner_lr=1e6, seed=7))
    with pytest.raises(
        mm.SweepError, match=r"1 of 2 runs failed.*\n  wild: the loss is \w+ at meta-step"
    ):
        sweep([bad, good], tmp_path, parameters, processes=1)
    assert _measured(good) == 1
    with pytest.raises(mm.SweepError, match="wild"):  # the failure is not taken for a result
        sweep([bad, good], tmp_path, parameters, processes=1)
    assert _measured(good) == 1


FAILING = """
import math, os, signal
from minimeta.errors import DataError

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("odd")

def measure(experiment, state, fails):
    match fails:
        case "value":
            raise ValueError("a bad value")
        case "odd":
            raise Odd(1, 2)
        case "nan":
            return {"x": math.nan}
        case "set":
            return {"x": {1}}
        case "list":
            return [1]
        case "data":
            raise DataError("no images")
        case "exits":
            os._exit(3)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    return {"x": 1}
"""


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """A measure that fails in the way that its job's name says."""
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("failing").measure
    del sys.modules["failing"]


def _failed(names, folder, measure, processes=2):
    jobs = [Job(name, TINY, by={"fails": name}) for name in names]
    with pytest.raises(mm.SweepError) as caught:
        sweep(jobs, folder, measure, processes=processes)
    return caught.value


@pytest.mark.parametrize(
    ("processes", "names"),
    [(2, ("odd", "exits", "killed")), (0, ("value", "odd", "nan", "set", "list", "data"))],
)
def test_whatever_a_measure_does_fails_its_own_job_alone(tmp_path, failing, processes, names):
    told = {
        "value": "ValueError: a bad value",
        "odd": "Odd: odd",
        "nan": "ValueError: measure must return values that JSON can hold",
        "set": "TypeError: measure must return values that JSON can hold",
        "data": "no images",
        "exits": "its process ended with status 3",
        "list": "TypeError: measure must return a JSON object, got list",
        "killed": "its process was killed by SIGKILL",
    }
    error = _failed([*names, "good"], tmp_path / "runs", failing, processes)
    lines = dict(line.strip().split(": ", 1) for line in str(error).splitlines()[1:])
    count = len(names)
    assert str(error).startswith(f"{count} of {count + 1} runs failed")
    assert lines.keys() == set(names)
    assert all(lines[name].startswith(told[name]) for name in names)
    unexpected = getattr(error.__cause__, "exceptions", [error.__cause__])
    assert len(unexpected) == len({*names} & {"value", "odd", "nan", "set", "list"})
    assert json.loads((tmp_path / "runs" / "good" / "result.json").read_text())["result"] == {
        "x": 1
    }


def test_what_was_not_foreseen_keeps_its_traceback(tmp_path, failing):
    cause = _failed(["value"], tmp_path / "runs", failing).__cause__
    assert type(cause) is ValueError
    assert 'raise ValueError("a bad value")' in "".join(cause.__notes__)
    assert _failed(["data"], tmp_path / "runs", failing).__cause__ is None


def test_looks_on_the_way_are_those_of_the_run_stopped_there(tmp_path, parameters):
    job = Job("looked-at", SHORT, looks=(50, 7))
    finished = sweep([job], tmp_path, parameters, processes=1)[job.name]
    want = {
        look: _train(SHORT, tmp_path / f"{look}", until=look).meta.tolist() for look in (7, 50, 120)
    }
    assert {look: each["phi"] for look, each in finished.looks.items()} == {
        look: want[look] for look in (7, 50)
    }
    assert finished.result["phi"] == want[120]
    # A run that is already beyond does not change.
    again = _train(SHORT, tmp_path / "7", resume=True, until=3)
    assert again.iteration == 7
    (tmp_path / job.name / "result.json").unlink()
    with pytest.raises(mm.SweepError, match="looks cannot be added"):
        sweep([Job("looked-at", SHORT, looks=(9,))], tmp_path, parameters, processes=1)


def test_two_sweeps_of_one_folder_share_the_work(tmp_path, parameters):
    """The second sweep waits for the first one's job, and takes its result."""
    (job,) = _jobs(SHORT, 1)
    path = tmp_path / job.name
    path.mkdir()
    with locked(path / ".job") as alone:
        assert alone
        program = (
            "import sys, json\nfrom pathlib import Path\nfrom measuring import parameters\n"
            "from minimeta.runs.settings import Settings\n"
            "from minimeta.runs.sweep import Job, run_job\n"
            "settings = Settings.from_dict(json.loads(sys.argv[2]))\n"
            "print('ready', flush=True)\n"
            "run_job(Job('seed-0', settings), Path(sys.argv[1]), parameters, None)\n"
        )
        words = [sys.executable, "-c", program, str(path), json.dumps(job.settings.to_dict())]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        assert not RunFolder(path).config_path.exists()  # the job waits
    process.stdout.close()
    assert process.wait(60) == 0
    assert run_job(job, path, parameters, None)["settings"] == job.settings.to_dict()
    assert _measured(job) == 1


def test_what_makes_no_sense_is_refused(tmp_path, parameters):
    (job,) = _jobs(SHORT, 1)
    with pytest.raises(mm.SettingsError, match="occurs more than once"):
        sweep([job, job], tmp_path, parameters)
    for name in ("a/b", "..", ""):
        with pytest.raises(mm.SettingsError, match="must be the name of a folder"):
            sweep([Job(name, SHORT)], tmp_path, parameters)
    sweep([job], tmp_path, parameters, processes=1)
    with pytest.raises(mm.SettingsError, match="other settings"):
        sweep([Job(job.name, LONG)], tmp_path, parameters)
    (tmp_path / job.name / "result.json").write_text('{"result"')
    with pytest.raises(mm.CheckpointError, match=r"result\.json is damaged"):
        sweep([job], tmp_path, parameters)
    (tmp_path / job.name / "result.json").unlink()
    assert np.isfinite(
        sweep([job], tmp_path, parameters, processes=1)[job.name].result["phi"]
    ).all()
    assert _measured(job) == 2  # measured again, at the end of the existing run


def test_a_result_is_taken_only_for_the_job_that_it_is_of(tmp_path, parameters):
    job = Job("one", SHORT, looks=(7, 50, SHORT.training.iterations))
    assert job.looks == (7, 50)  # the end is not a look
    sweep([job], tmp_path, parameters, processes=1)
    fewer = sweep([replace(job, looks=(50,))], tmp_path, parameters)["one"]
    assert list(fewer.looks) == [50]
    with pytest.raises(
        mm.SettingsError, match="lacks the look after 9 meta-steps: name another folder"
    ):
        sweep([replace(job, looks=(7, 9))], tmp_path, parameters)
    (tmp_path / "one" / "config.json").unlink()
    with pytest.raises(mm.SettingsError, match="with other settings: name another folder"):
        sweep([replace(job, settings=SHORT.changed(seed=1))], tmp_path, parameters)


def test_what_was_measured_by_something_else_is_not_taken(tmp_path, parameters):
    job = Job("one", SHORT, looks=(7,), by={"tasks": 10, "sizes": (1, 5)})
    sweep([job], tmp_path, parameters, processes=1)
    (one,) = sweep([job], tmp_path, parameters).values()
    for got in (one.result, one.looks[7]):  # in JSON a tuple is a list
        assert (got["tasks"], got["sizes"]) == (10, [1, 5])
    more = replace(job, by={"tasks": 100, "sizes": (1, 5)})
    with pytest.raises(
        mm.SettingsError,
        match=r'result.json was measured by \{"tasks": 10, .*, not \{"tasks": 100, .*delete',
    ):
        sweep([more], tmp_path, parameters)
    (tmp_path / "one" / "result.json").unlink()
    with pytest.raises(mm.SweepError, match=r"look-7.json was measured by .*: name another folder"):
        sweep([more], tmp_path, parameters, processes=1)
    assert sweep([replace(more, looks=())], tmp_path, parameters, processes=1)["one"].result
    with pytest.raises(mm.SweepError, match=r"look-7.json belongs to a run with other settings"):
        sweep(
            [replace(job, name="other")],
            _with_look(tmp_path, SHORT.changed(seed=1), job.by),
            parameters,
            processes=1,
        )


def _with_look(root, settings, by):
    """A folder of a sweep with a look of these settings, but without a run."""
    (root / "other").mkdir()
    (root / "other" / "look-7.json").write_text(
        json.dumps({"settings": settings.to_dict(), "by": by, "result": {}})
    )
    return root


def test_a_damaged_look_is_told(tmp_path, parameters):
    job = Job("one", SHORT, looks=(7,))
    sweep([job], tmp_path, parameters, processes=1)
    (tmp_path / "one" / "result.json").unlink()
    for bad in ('{"phi"', "", "[1]"):
        (tmp_path / "one" / "look-7.json").write_text(bad)
        with pytest.raises(
            mm.SweepError,
            match=r"look-7\.json is damaged: .*; delete .*one to compute this job again",
        ):
            sweep([job], tmp_path, parameters, processes=1)
    for bad in ("[]", '{"settings": 1, "looks": {}, "result": {}, "training": {}}', "{}", b"\xff"):
        (tmp_path / "one" / "result.json").write_bytes(
            bad if isinstance(bad, bytes) else bad.encode()
        )
        with pytest.raises(mm.CheckpointError, match=r"result\.json is damaged: .*delete it"):
            sweep([job], tmp_path, parameters)


def test_a_run_that_cannot_go_on_is_told_before_any_other_begins(tmp_path, parameters):
    one, other = _jobs(SHORT, 2)
    _train(SHORT, tmp_path / one.name, until=60)
    (tmp_path / one.name / "checkpoint.npz").write_bytes(b"PK")
    with pytest.raises(
        mm.CheckpointError,
        match=r"checkpoint.npz is damaged: .*; delete .*seed-0 to compute this job again",
    ):
        sweep([one, other], tmp_path, parameters, processes=1)
    assert not (tmp_path / other.name).exists()
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/within"):
        with pytest.raises(mm.SettingsError, match="cannot be used as a folder of runs"):
            sweep([other], tmp_path / folder, parameters, processes=1)


def test_looks_lie_within_a_run(tmp_path, parameters):
    for look in (0, -1, SHORT.training.iterations + 1):
        with pytest.raises(
            mm.SettingsError, match=f"must be between 1 and its 120 meta-steps, got {look}"
        ):
            Job("one", SHORT, looks=(7, look))
    with pytest.raises(mm.SettingsError, match="processes must be 1 or more"):
        sweep(_jobs(SHORT, 1), tmp_path, parameters, processes=-1)


def test_every_job_has_a_process_of_its_own_and_builds_once(tmp_path, monkeypatch):
    (tmp_path / "looking.py").write_text(
        "import os\n"
        "def measure(experiment, state):\n"
        "    told = {'process': os.getpid(), 'data': experiment.data}\n"
        "    return told | {'objects': id(experiment.training)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    jobs = [replace(job, looks=(7, 50)) for job in _jobs(SHORT)]
    finished = sweep(
        jobs, "runs", importlib.import_module("looking").measure, data="images", processes=1
    )
    del sys.modules["looking"]
    assert len({each.result["process"] for each in finished.values()}) == 3
    assert all(each.looks[7] == each.looks[50] == each.result for each in finished.values())
    assert {each.result["data"] for each in finished.values()} == {str(tmp_path / "images")}


def test_what_made_a_part_of_a_run_is_told(tmp_path, parameters, monkeypatch):
    def by(commit):
        monkeypatch.setattr(
            "minimeta.runs.train.provenance", lambda module: {"commit": commit, "date": commit * 2}
        )

    folder = RunFolder(tmp_path / "one")
    for commit, until in (
        ("a", 40),
        ("b", 40),
        ("c", 80),
        ("d", 60),
        ("a", 100),
        ("e", 120),
        ("f", 120),
    ):
        by(commit)
        _train(SHORT, folder.path, resume=folder.config_path.exists(), until=until)
    facts = folder.facts()
    assert [each["commit"] for each in facts["made_by"]] == [
        "a",
        "c",
        "e",
    ]  # the others made no step
    assert facts["provenance"] == {"commit": "e", "date": "ee"}
    folder.clear_after(80)
    folder.append_metrics(
        {"iteration": 80, "provenance": {"commit": "g"}}
    )  # killed before its first meta-step
    assert [each["commit"] for each in folder.facts()["made_by"]] == ["a", "c"]


def test_the_steps_of_a_run_are_those_of_its_last_whole_line(tmp_path):
    metrics, lines = (
        tmp_path / "metrics.jsonl",
        [json.dumps({"iteration": i, "loss": 0.5}) + "\n" for i in range(1000)],
    )
    assert _steps_done(metrics) == 0
    for text, steps in (
        ("", 0),
        ("".join(lines), 999),
        ("".join(lines) + lines[-1][:-1], 999),
        (lines[7] + '{"it', 7),
    ):
        metrics.write_text(text)
        assert _steps_done(metrics) == steps


def test_what_measured_a_run_is_told(tmp_path, parameters, monkeypatch):
    (job,) = _jobs(SHORT, 1)
    monkeypatch.setattr("minimeta.runs.train.provenance", lambda module: {"commit": "a"})
    monkeypatch.setattr("minimeta.runs.jobs.provenance", lambda: {"commit": "b"})
    run_job(job, tmp_path / job.name, parameters, None)
    finished = sweep([job], tmp_path, parameters)[job.name]
    assert (finished.training["made_by"], finished.measured_by) == (
        [{"commit": "a"}],
        {"commit": "b"},
    )


@pytest.fixture
def images(monkeypatch):
    """A function that sets the images of runs."""

    def here(seed):
        halves = np.random.default_rng(seed).integers(0, 2, (2, 8, 20, 28, 28, 1), dtype=np.uint8)
        told = {"a_class": 20, "sha256": f"of {seed}"}
        data = TaskData(*(mm.FewShotImages(half, 3) for half in halves), told)
        monkeypatch.setattr("minimeta.runs.task_settings.OmniglotSettings.tasks", lambda *_: data)

    return here


ON_IMAGES = PRESETS["omniglot-5way"].settings.changed(
    iterations=3, meta_batch=1, ways=3, filters=2, size=3, shots=2
)


def test_a_run_goes_on_with_its_own_images_alone(tmp_path, images):
    images(0)
    _train(ON_IMAGES, tmp_path / "run", until=2)
    images(1)
    with pytest.raises(
        mm.CheckpointError, match="was started with other images: .*of 0.*, not .*of 1"
    ):
        _train(ON_IMAGES, tmp_path / "run", resume=True)
    images(0)
    assert _train(ON_IMAGES, tmp_path / "run", resume=True).iteration == 3


def test_runs_of_different_images_are_not_taken_together(tmp_path, parameters, images):
    jobs = [Job(f"seed-{seed}", ON_IMAGES.changed(seed=seed)) for seed in (0, 1)]
    for job in jobs:
        images(0)
        run_job(job, tmp_path / "same" / job.name, parameters, None)
        images(job.settings.training.seed)
        run_job(job, tmp_path / "different" / job.name, parameters, None)
    assert len(sweep(jobs, tmp_path / "same", parameters)) == 2
    with pytest.raises(
        mm.SettingsError,
        match="runs used different images.*seed-0: .*of 0.*seed-1: .*of 1",
    ):
        sweep(jobs, tmp_path / "different", parameters)


def test_waiting_for_another_process_is_said_once(tmp_path, parameters, monkeypatch):
    monkeypatch.setattr("minimeta.runs.jobs.SAY_SO_AFTER", 0.1)
    (job,) = _jobs(SHORT, 1)
    (tmp_path / job.name).mkdir()
    said = []
    monkeypatch.setattr("warnings.warn", lambda text, **_: said.append(text))
    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / job.name / ".job"):
            result = pool.submit(run_job, job, tmp_path / job.name, parameters, None)
            time.sleep(1.5)
        result.result(60)
    assert said == [f"another process is computing {tmp_path / job.name}: waiting for its result"]


def test_without_processes_the_jobs_run_here_one_after_another(tmp_path, parameters):
    here = []

    def measure(experiment, state):  # which no other process can import
        here.append(os.getpid())
        if state.meta[0] == 7:
            raise ValueError("never")
        return {"phi": state.meta.tolist()}

    jobs = _jobs(SHORT, 2)
    got = sweep(jobs, tmp_path / "here", measure, processes=0)
    assert _results(got) == _alone(jobs, tmp_path / "alone") and here == [os.getpid()] * 2
    bad = Job("wild", SHORT.changed(inner_lr=1e6))
    with pytest.raises(mm.SweepError, match="wild: the loss is"):
        sweep([bad], tmp_path / "here", measure, processes=0)
    with pytest.raises(mm.SettingsError, match="cannot import this sweep .*local.*processes=0"):
        sweep(jobs, tmp_path / "other", measure, processes=1)
    assert not (tmp_path / "other").exists()


NOTEBOOK = """
from minimeta.runs.presets import PRESETS
from minimeta.runs.sweep import Job, sweep

def measure(experiment, state):
    return {"done": state.iteration}

jobs = [Job("one", PRESETS["sine"].settings.changed(iterations=5, hidden="8"))]
try:
    sweep(jobs, FOLDER)
except ValueError as error:
    print(error)
print(sweep(jobs, FOLDER, measure, processes=0)["one"].result)
"""


def test_a_measure_of_a_notebook_is_refused_or_runs_here(tmp_path):
    program = NOTEBOOK.replace("FOLDER)", "FOLDER, measure)").replace("FOLDER", repr(str(tmp_path)))
    plain = os.environ | {"MINIMETA_FAST": "0"}  # no word of compiling
    ended = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, check=True, env=plain
    )
    refused, result = ended.stdout.splitlines()
    assert "is defined in a notebook or an interactive session" in refused
    assert refused.endswith("processes=0, which runs the jobs in this process")
    assert result == "{'done': 5}" and not ended.stderr


@pytest.mark.parametrize(("progress", "shown"), [(True, True), (None, False), (False, False)])
def test_a_bar_is_shown_where_there_is_no_terminal_if_it_is_asked_for(
    tmp_path, capfd, parameters, progress, shown
):
    _train(SHORT, tmp_path / "run", progress=progress)
    assert ("120/120" in capfd.readouterr().err) == shown
    sweep(_jobs(SHORT, 1), tmp_path / "sweep", parameters, processes=0, progress=progress)
    assert ("1 of 1 runs measured" in capfd.readouterr().err) == shown


def test_a_result_that_appeared_meanwhile_is_not_replaced(tmp_path):
    (job,) = _jobs(SHORT, 1)
    file = tmp_path / job.name / "result.json"

    def measure(experiment, state):
        file.write_text("of another process")
        return {}

    with pytest.raises(mm.CheckpointError, match="was written by another process"):
        run_job(job, file.parent, measure, None)
    assert file.read_text() == "of another process"


@pytest.fixture
def cluster():
    """Two workers, and a client."""
    distributed = pytest.importorskip(
        "distributed", reason="Dask is not installed: pip install '.[dask]'"
    )
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield cluster.scheduler_address, client


def test_a_cluster_needs_not_have_the_script_that_measures(cluster, tmp_path, monkeypatch):
    """The module beside it is sent too: Figure 4's script uses Figure 3's."""
    scheduler, client = cluster
    (tmp_path / "beside.py").write_text(
        "SCALE = 3\n\ndef scaled(steps):\n    return SCALE * steps\n"
    )
    (tmp_path / "first.py").write_text(
        "import beside\nfrom beside import scaled\n"
        "def measure(experiment, state):\n"
        "    return {'x': [scaled(state.iteration), beside.SCALE, experiment.data]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    measure = importlib.import_module("first").measure
    try:
        assert set(client.run(importlib.util.find_spec, "first").values()) == {None}
        finished = sweep(_jobs(SHORT, 2), "runs", measure, data="images", scheduler=scheduler)
        assert _results(finished) == {
            f"seed-{seed}": {"x": [360, 3, str(tmp_path / "images")]} for seed in (0, 1)
        }
    finally:
        del sys.modules["first"], sys.modules["beside"]


def test_a_measure_that_fails_on_a_cluster_fails_its_job_alone(cluster, tmp_path, failing):
    with pytest.raises(
        mm.SweepError, match="1 of 2 runs failed.*\n  value: ValueError: a bad value$"
    ) as caught:
        sweep(
            [Job(name, SHORT, by={"fails": name}) for name in ("value", "good")],
            tmp_path / "runs",
            failing,
            scheduler=cluster[0],
        )
    # cloudpickle may drop the name of the file, and with it the source line.
    line = FAILING.splitlines().index('            raise ValueError("a bad value")') + 1
    assert f", line {line}, in measure\n" in "".join(caught.value.__cause__.__notes__)
    assert (tmp_path / "runs" / "good" / "result.json").exists()


def test_a_cluster_with_a_worker_killed_in_the_middle_gives_the_same_bits(
    cluster, tmp_path, parameters
):
    scheduler, client = cluster
    jobs, folder = _jobs(SHORT, 3), tmp_path / "sweep"
    gated = [sys.modules["measuring"].gated(job.name, job.settings) for job in jobs]
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(sweep, gated, folder, parameters, scheduler=scheduler, saving=OFTEN)
        _wait_for(lambda: _on_the_way(folder) == 2)
        os.kill(client.run(os.getpid).popitem()[1], signal.SIGKILL)
        sys.modules["measuring"].GO.touch()
        assert _results(results.result(120)) == _alone(jobs, tmp_path / "alone")
    assert _gone_on_with(folder) == 1


def test_a_cluster_without_workers_is_told(tmp_path, parameters, monkeypatch):
    distributed = pytest.importorskip(
        "distributed", reason="Dask is not installed: pip install '.[dask]'"
    )
    monkeypatch.setattr("minimeta.runs.cluster.SAY_SO_AFTER", 0.1)
    options = {"dashboard_address": None, "silence_logs": 50, "threads_per_worker": 1}
    with distributed.LocalCluster(n_workers=0, **options) as cluster:
        address = cluster.scheduler_address
        said = []
        monkeypatch.setattr("warnings.warn", lambda text, **_: said.append(text))
        with ThreadPoolExecutor(1) as pool:
            results = pool.submit(sweep, _jobs(SHORT, 1), tmp_path, parameters, scheduler=address)
            _wait_for(lambda: said)
            cluster.scale(1)
            assert results.result(120)["seed-0"].result
    assert said[0].startswith(f"the Dask scheduler at {address} has no workers: the jobs wait")


def test_a_scheduler_that_is_killed_is_told_without_tracebacks(tmp_path, parameters, capfd):
    """Dask would log the lost connection, which the failures of jobs tell."""
    pytest.importorskip("distributed", reason="Dask is not installed: pip install '.[dask]'")
    place = tmp_path / "scheduler.json"
    with contextlib.ExitStack() as stack:

        def start(name, *words):
            words = [sys.executable, "-m", f"distributed.cli.dask_{name}", *words, "--no-dashboard"]
            process = subprocess.Popen(
                [*words, "--scheduler-file", str(place)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        start("worker", "--nthreads", "1")
        _wait_for(place.exists)
        address = json.loads(place.read_text())["address"]
        pool = stack.enter_context(ThreadPoolExecutor(1))
        results = pool.submit(sweep, _jobs(ENDLESS, 1), tmp_path, parameters, scheduler=address)
        _wait_for(lambda: list(tmp_path.glob("*/metrics.jsonl")))
        scheduler.kill()
        with pytest.raises(mm.SweepError, match="seed-0: lost with its scheduler"):
            results.result(60)
    assert capfd.readouterr().err == ""


def test_a_cluster_that_goes_away_is_told(cluster, tmp_path, parameters):
    scheduler, client = cluster
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(sweep, _jobs(ENDLESS, 3), tmp_path, parameters, scheduler=scheduler)
        _wait_for(lambda: _two_begun(tmp_path))
        client.shutdown()
        with pytest.raises(mm.SweepError, match="3 of 3 runs failed") as caught:
            results.result(60)
    assert str(caught.value).count("lost with its scheduler: the same call continues") == 3


def test_a_cluster_that_is_not_there_is_told(tmp_path, parameters, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install '.[dask]'")
    monkeypatch.setattr("minimeta.runs.cluster.CONNECT_WITHIN", 0.5)
    for address in ("tcp://127.0.0.1:9", "tcp://127.0.0.1:port", "nothing://here", "nowhere"):
        with pytest.raises(mm.SettingsError, match="no Dask scheduler answers"):
            sweep(_jobs(SHORT, 1), tmp_path, parameters, scheduler=address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(mm.SettingsError, match="pip install 'minimeta\\[dask\\]'"):
        sweep(_jobs(SHORT, 1), tmp_path, parameters, scheduler="tcp://127.0.0.1:9")
