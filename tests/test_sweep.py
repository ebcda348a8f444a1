"""Sweeps: every job is trained once, to the bits of a run by itself, whatever dies in between."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

import minimeta as mm
from minimeta.checkpoint import RunFolder
from minimeta.experiment import PRESETS
from minimeta.files import locked
from minimeta.run import train
from minimeta.sweep import Job, run_job, sweep

SHORT = replace(PRESETS["sine"][1], iterations=120, meta_batch=2, hidden="8")
LONG = replace(SHORT, iterations=2_000)

# In a file of its own: another process must be able to import it.
MEASURING = """
import json
from minimeta.checkpoint import RunFolder

def parameters(path, data):
    with open(path / "measured", "a") as file:
        file.write("once\\n")
    folder = RunFolder(path)
    return {"phi": folder.load(folder.config()).meta.tolist()}
"""


@pytest.fixture
def parameters(tmp_path_factory, monkeypatch):
    """A run's last phi."""
    folder = tmp_path_factory.mktemp("measuring")
    (folder / "measuring.py").write_text(MEASURING)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
    yield importlib.import_module("measuring").parameters
    del sys.modules["measuring"]


def _jobs(settings, count=3):
    return [Job(f"seed-{seed}", replace(settings, seed=seed)) for seed in range(count)]


def _alone(jobs, folder):
    """The same runs, each by itself."""
    phis = {job.name: train(job.settings, folder / job.name, workers=1).meta.tolist() for job in jobs}
    return {name: {"phi": phi} for name, phi in phis.items()}


def _results(finished):
    return {name: each.result for name, each in finished.items()}


def _measured(folder, job):
    return (folder / job.name / "measured").read_text().count("once")


def test_a_sweep_gives_the_bits_of_its_runs_and_computes_none_twice(tmp_path, parameters):
    jobs = _jobs(SHORT)
    want = _alone(jobs, tmp_path / "alone")
    two = sweep(jobs[:2], tmp_path / "sweep", parameters, processes=2)
    assert _results(two) == {name: want[name] for name in ("seed-0", "seed-1")}
    every = sweep(jobs, tmp_path / "sweep", parameters, processes=2)
    assert _results(every) == want
    assert all(each.training["iteration"] == 120 and each.training["provenance"] for each in every.values())
    assert [_measured(tmp_path / "sweep", job) for job in jobs] == [1, 1, 1]


def _wait_for(condition, seconds=60.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def _under_way(folder):
    """Whether a run of the sweep has begun, and none is done."""
    return any(folder.glob("*/metrics.jsonl")) and not any(folder.glob("*/result.json"))


def test_a_killed_sweep_goes_on_where_it_stopped(tmp_path, parameters):
    jobs, folder = _jobs(LONG, 2), tmp_path / "sweep"
    program = tmp_path / "program.py"
    program.write_text(
        "from minimeta.experiment import Settings\nfrom minimeta.sweep import Job, sweep\nfrom measuring import parameters\n"
        f"JOBS = {[(job.name, job.settings.to_dict()) for job in jobs]!r}\n"
        "if __name__ == '__main__':\n"
        f"    sweep([Job(n, Settings.from_dict(s)) for n, s in JOBS], {str(folder)!r}, parameters, processes=2)\n"
    )
    with subprocess.Popen([sys.executable, program], start_new_session=True) as process:
        _wait_for(lambda: _under_way(folder))
        os.killpg(process.pid, signal.SIGKILL)
    assert _results(sweep(jobs, folder, parameters, processes=2)) == _alone(jobs, tmp_path / "alone")


def test_a_job_that_fails_is_told_and_the_others_are_kept(tmp_path, parameters):
    good, bad = _jobs(SHORT, 1)[0], Job("wild", replace(SHORT, inner_lr=1e6))
    with pytest.raises(mm.SweepError, match=r"1 of 2 runs failed.*\n  wild: the loss is \w+ at meta-step"):
        sweep([bad, good], tmp_path, parameters, processes=1)
    assert _measured(tmp_path, good) == 1
    with pytest.raises(mm.SweepError, match="wild"):  # and told again, not taken for done
        sweep([bad, good], tmp_path, parameters, processes=1)
    assert _measured(tmp_path, good) == 1


def test_a_process_that_is_killed_is_told(tmp_path, parameters):
    folder = tmp_path / "sweep"
    program = "import os, signal\ndef killed(path, data):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "killing.py").write_text(program)
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(mm.SweepError, match="a process of the sweep died"):
            sweep(_jobs(SHORT, 1), folder, importlib.import_module("killing").killed, processes=1)
    finally:
        sys.path.remove(str(tmp_path))
    assert "seed-0" in sweep(_jobs(SHORT, 1), folder, parameters, processes=1)


def test_looks_on_the_way_are_those_of_the_run_stopped_there(tmp_path, parameters):
    job = Job("looked-at", SHORT, looks=(50, 7))
    finished = sweep([job], tmp_path, parameters, processes=1)[job.name]
    want = {look: train(SHORT, tmp_path / f"{look}", until=look, workers=1).meta.tolist() for look in (7, 50, 120)}
    assert {look: each["phi"] for look, each in finished.looks.items()} == {look: want[look] for look in (7, 50)}
    assert finished.result["phi"] == want[120]
    again = train(SHORT, tmp_path / "7", resume=True, until=3, workers=1)  # what is further on already stays
    assert again.iteration == 7
    (tmp_path / job.name / "result.json").unlink()
    with pytest.raises(mm.SweepError, match="looks cannot be added"):
        sweep([Job("looked-at", SHORT, looks=(9,))], tmp_path, parameters, processes=1)


def test_two_sweeps_of_one_folder_share_the_work(tmp_path, parameters):
    """The second waits for the job that the first holds, and takes its result."""
    (job,) = _jobs(SHORT, 1)
    path = tmp_path / job.name
    path.mkdir()
    with locked(path / ".job") as alone:
        assert alone
        program = (
            "import sys, json\nfrom pathlib import Path\nfrom measuring import parameters\n"
            "from minimeta.experiment import Settings\nfrom minimeta.sweep import Job, run_job\n"
            "settings = Settings.from_dict(json.loads(sys.argv[2]))\n"
            "print('ready', flush=True)\n"
            "run_job(Job('seed-0', settings), Path(sys.argv[1]), parameters, None)\n"
        )
        words = [sys.executable, "-c", program, str(path), json.dumps(job.settings.to_dict())]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.5)
        assert not RunFolder(path).config_path.exists()  # it waits
    process.stdout.close()
    assert process.wait(60) == 0
    assert run_job(job, path, parameters, None)["settings"] == job.settings.to_dict()
    assert _measured(tmp_path, job) == 1


def test_what_makes_no_sense_is_refused(tmp_path, parameters):
    (job,) = _jobs(SHORT, 1)
    with pytest.raises(mm.SettingsError, match="stands more than once"):
        sweep([job, job], tmp_path, parameters)
    for name in ("a/b", "..", ""):
        with pytest.raises(mm.SettingsError, match="its folder's"):
            sweep([Job(name, SHORT)], tmp_path, parameters)
    sweep([job], tmp_path, parameters, processes=1)
    with pytest.raises(mm.SettingsError, match="other settings"):
        sweep([Job(job.name, LONG)], tmp_path, parameters)
    (tmp_path / job.name / "result.json").write_text('{"result"')
    with pytest.raises(mm.CheckpointError, match=r"result\.json is damaged"):
        sweep([job], tmp_path, parameters)
    (tmp_path / job.name / "result.json").unlink()
    assert np.isfinite(sweep([job], tmp_path, parameters, processes=1)[job.name].result["phi"]).all()
    assert _measured(tmp_path, job) == 1  # what was looked at is kept by itself


def test_a_cluster_with_a_worker_killed_in_the_middle_gives_the_same_bits(tmp_path, parameters):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install '.[dask]'")
    jobs, folder = _jobs(LONG, 3), tmp_path / "sweep"
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            results = pool.submit(sweep, jobs, folder, parameters, scheduler=cluster.scheduler_address)
            _wait_for(lambda: _under_way(folder))
            os.kill(client.run(os.getpid).popitem()[1], signal.SIGKILL)
            assert _results(results.result(120)) == _alone(jobs, tmp_path / "alone")


def test_a_cluster_that_is_not_there_is_told(tmp_path, parameters, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install '.[dask]'")
    with pytest.raises(mm.SettingsError, match="no Dask scheduler answers"):
        sweep(_jobs(SHORT, 1), tmp_path, parameters, scheduler="tcp://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(mm.SettingsError, match="pip install 'minimeta\\[dask\\]'"):
        sweep(_jobs(SHORT, 1), tmp_path, parameters, scheduler="tcp://127.0.0.1:9")
