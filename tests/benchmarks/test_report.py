"""The pages and figures are written from result files, old and new."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import report  # noqa: E402
import speed_figure  # noqa: E402


def timed(peer, variant, milliseconds, ratio=None):
    row = {"peer": peer, "variant": variant, "milliseconds": {"median": milliseconds}}
    return row | (
        {} if ratio is None else {"ratio": {"median": ratio, "quartiles": [ratio / 2, 2 * ratio]}}
    )


@pytest.fixture
def old():
    """Results without the extra ``fast`` and floors, and with the aims that
    results once had."""
    entries = [
        timed("minimeta", "default", 60.0),
        timed("JAX", "vmap,scan", 100.0, 0.6),
        timed("JAX", "map,scan", 40.0, 1.5),
        {
            "peer": "torch.func",
            "variant": "outside",
            "errors": {"phi": 2.0},
            "agrees": False,
        },
        {"peer": "higher", "variant": "loop", "not_run": "no such module", "errors": {}},
    ]
    memory = [
        {"peer": "minimeta", "variant": "points", "bytes": 2**20},
        {"peer": "JAX", "variant": "map,scan", "bytes": 3 * 2**20, "ratio": {"median": 0.3}},
    ]
    cases = {
        "a": {"title": "the work", "kind": "maml", "entries": entries},
        "memory-5": {"title": "the memory", "kind": "memory", "entries": memory},
    }
    return {"cases": cases, "aims": [{"case": "a", "at_most": 0.5}]}


@pytest.fixture
def new(old):
    """Results with the extra ``fast`` and floors."""
    case = old["cases"]["a"]
    case["entries"][0]["versions"] = {"numpy": "2.4", "numba": "0.68"}
    case["entries"].insert(1, timed("minimeta", "without fast", 120.0, 0.5))
    case["floor"] = {
        "multiply_adds": 4_000_000_000,
        "peak_gigaflops": 100.0,
        "cores": 2,
        "milliseconds": 40.0,
        "ratio": 1.5,
    }
    memory = old["cases"]["memory-5"]["entries"]
    memory.append({"peer": "minimeta", "variant": "points, without fast", "bytes": 2 * 2**20})
    return {"cases": old["cases"]}


def test_the_summary_has_the_best_variant_of_each_peer(old):
    head, _, row = report.summary(old).strip().splitlines()
    assert head == "|  | minimeta | JAX | torch.func | higher |"
    assert row == "| the work | 60 ms | 40 ms (1.5) |  |  |"


def test_the_summary_shows_minimeta_without_the_extra_and_the_floor(new):
    head, _, row = report.summary(new).strip().splitlines()
    assert head == (
        "|  | minimeta | minimeta, without fast | JAX | torch.func | higher | "
        "matrix products at peak |"
    )
    assert row == "| the work | 60 ms | 120 ms (0.5) | 40 ms (1.5) |  |  | 40 ms (1.5) |"


def test_a_floor_is_told_above_the_times(old, new):
    told = report.times_of(new["cases"]["a"])
    assert "4,000 million multiply-adds, 40 ms at 100 GFLOP/s per core on 2 cores" in told
    assert "takes 1.50 times as long" in told
    assert "| minimeta | without fast | 120 ms | 0.5 (0.25 to 1) |" in told
    assert "not timed: differs by 2e+00" in told and "no such module" in told
    del new["cases"]["a"]["floor"]
    assert "multiply-adds" not in report.times_of(new["cases"]["a"])


def test_the_page_tells_whether_the_extra_was_there(old):
    assert "without the extra `fast`" in report.forms(old)
    old["cases"]["a"]["entries"][0]["versions"] = {"numba": "0.68"}
    assert "(numba 0.68)" in report.forms(old)


def test_memory_without_the_extra_is_a_row_of_its_own(new):
    told = report.memory(new)
    assert "| minimeta, points | 1.0 |" in told
    assert "| minimeta, points, without fast | 2.0 |" in told


def test_steps_by_the_default_kernels_are_told_where_they_were_measured():
    step = {"title": "a step", "milliseconds": {"step": 10.0}, "two_threads_by_one": 1.5}
    assert report.default_kernels({"steps": {"a": step}}) == ""
    step["default_kernels"] = {"milliseconds": 5.0, "two_threads_by_one": 1.1}
    told = report.default_kernels({"steps": {"a": step}, "default_kernels": "numba 0.68"})
    assert "(numba 0.68)" in told
    assert "| a step | 10 ms | 5 ms (50%) | 1.50 | 1.10 |" in told


def test_runs_say_what_was_shortened_or_not_run():
    def run(wall):
        return {"wall_seconds": wall, "cpu_seconds": 2 * wall, "peak_memory_bytes": 2**20 * wall}

    both = {"default": [run(10), run(14), run(11)], "without fast": [run(20)]}
    neither = {"default": [], "without fast": []}
    runs = {
        "sine": {"iterations": 1000, "complete": True, "forms": both},
        "mini": {"iterations": 100, "complete": False, "part": True, "forms": both},
        "omniglot": {
            "iterations": 1000,
            "complete": True,
            "forms": neither,
            "skipped": "no images",
        },
    }
    rows = report.training_runs({"runs": runs}).splitlines()[2:]
    times = "11 s (10 to 14) | 22 s | 14 MiB | 20 s | 40 s | 20 MiB |"
    assert rows == [
        f"| sine | 1,000 | {times}",
        f"| mini | 100 (shortened, a part of the images) | {times}",
        "| omniglot | 1,000 | not run: no images |  |  | not run: no images |  |  |",
    ]
    assert report.training_runs(None) == "No run has been measured."


def test_the_figure_shows_the_fastest_variant_of_each_peer(new):
    best = speed_figure.fastest(new["cases"]["a"])
    assert {told: row["variant"] for told, row in best.items()} == {
        "minimeta, without fast": "without fast",
        "JAX": "map,scan",
    }


@pytest.mark.parametrize("results", ["old", "new"])
def test_the_figure_is_drawn_from_old_and_new_results(results, request, tmp_path):
    drawn = speed_figure.draw(request.getfixturevalue(results), tmp_path / "speed.json")
    assert all(path.stat().st_size > 0 for path in drawn)


def test_the_figure_is_drawn_from_the_committed_results(tmp_path):
    results = json.loads((report.RESULTS / "speed.json").read_text())
    assert len(speed_figure.draw(results, tmp_path / "speed.json")) == 2
