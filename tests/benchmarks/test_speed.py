"""Timed steps compute the intended work, and wrong peers are found.

There are no tests of times, which vary.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

import minimeta as mm
from minimeta.inner import STORES

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import cases  # noqa: E402
import ours  # noqa: E402
import speed  # noqa: E402
from peers import timing  # noqa: E402

SMALL = "sine-maml-5"


@pytest.fixture
def folder(tmp_path):
    """The folder of the small case."""
    cases.CASES[SMALL].write(tmp_path / "case")
    return tmp_path / "case"


@pytest.mark.parametrize("name", cases.CASES)
def test_a_case_is_the_same_each_time_and_of_the_shapes_it_tells(name):
    case = cases.CASES[name]
    description, arrays, again = case.describe(), case.arrays(), case.arrays()
    for array, same in zip(arrays.values(), again.values(), strict=True):
        np.testing.assert_array_equal(array, same)
    assert arrays["phi"].shape == (description["network"]["size"],)
    assert len(description["sizes"]) == description["k"]
    for i, size in enumerate(description["sizes"], start=1):
        assert arrays[f"x_{i}"].shape == (case.tasks, size, *case.network.input_shape)
        assert arrays[f"y_{i}"].shape[:2] == (case.tasks, size)
    assert json.loads(json.dumps(description)) == description


def test_the_papers_settings():
    sizes = {name: (case.tasks, case.describe()["sizes"]) for name, case in cases.CASES.items()}
    assert sizes["sine-maml-1"] == (25, [10, 10])
    assert sizes["omniglot-reptile"] == (5, [10] * 5)
    assert sizes["omniglot-maml-5"] == (32, [5] * 6)
    assert sizes["omniglot-evaluation"] == (10, [5] * 51)
    assert sizes["mini-imagenet-reptile"] == (5, [10] * 8)


def test_every_case_has_entries_whose_scripts_exist():
    assert list(speed.ENTRIES) == list(cases.CASES)
    for entries in speed.ENTRIES.values():
        assert entries[0].peer == speed.OURS
        assert all((BENCHMARKS / entry.script).exists() for entry in entries)


def of_ours(folder, dtype, variant="default"):
    """Results of one step by our worker, in this process."""
    settings, arrays = timing.read(folder, dtype)
    with ExitStack() as stack:
        program = ours.build(stack, settings, arrays, variant)
        return program.results(program.step(program.start()))


def test_our_step_is_the_algorithms_direction_and_an_outer_adam_step(folder):
    case = cases.CASES[SMALL]
    phi, batches = case.arrays()["phi"], case.minibatches()
    outcome = mm.MAML(case.rule).direction(case.objective(), phi, batches)
    direction, losses = outcome.direction, outcome.loss
    got = of_ours(folder, "float64")
    np.testing.assert_allclose(got["direction"], mm.mean(direction), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(got["loss"], losses)
    np.testing.assert_array_equal(got["phi"], case.outer.step(phi, mm.mean(direction))[0])


def test_memory_is_told_of_maml_in_every_way_of_keeping_its_trajectory(tmp_path):
    case = cases.CASES["memory-1"]
    case.write(tmp_path / "case")
    results = [of_ours(tmp_path / "case", "float64", variant)["maml"] for variant in STORES]
    expected = mm.MAML(case.rule).direction(
        case.objective(), case.arrays()["phi"], case.minibatches()
    )
    for result in results:
        np.testing.assert_array_equal(result, expected.direction)


def test_a_wrong_result_is_found(folder):
    case = cases.CASES[SMALL]
    description, phi, want = case.describe(), case.arrays()["phi"], of_ours(folder, "float64")
    assert max(speed.errors(description, phi, want, want).values()) == 0
    for name in want:
        wrong = want[name].copy()
        wrong[0] += 1e-3 * np.abs(want[name] - (phi if name == "phi" else 0)).max()
        assert speed.errors(description, phi, want | {name: wrong}, want)[name] > speed.TOLERANCE
    shorter = want | {"loss": want["loss"][:-1]}
    assert speed.errors(description, phi, shorter, want)["loss"] == np.inf
    assert (
        speed.errors(description, phi, want | {"loss": want["loss"] * np.nan}, want)["loss"]
        == np.inf
    )


def test_only_biases_before_a_batch_norm_are_left_out_and_only_behind_adam():
    case = cases.CASES["omniglot-reptile"]
    description, phi = case.describe(), case.arrays()["phi"]
    left_out = speed.zero_gradients(description)
    assert left_out.sum() == 4 * 64
    moved = {"phi": phi + 1e-3}
    noisy = {"phi": moved["phi"] + 1e-3 * left_out}
    assert speed.errors(description, phi, noisy, moved)["phi"] == 0
    by_sgd = description | {"rule": {"type": "SGD"}, "outer": {"type": "SGD"}}
    assert speed.errors(by_sgd, phi, noisy, moved)["phi"] > speed.TOLERANCE
    point = case.objective().at(phi, case.minibatches()[0])
    assert np.abs(point.grad[:, left_out]).max() < 1e-13 < np.abs(point.grad[:, ~left_out]).max()


def test_a_worker_of_ours_answers_and_one_that_fails_says_why(folder):
    entry = speed.Entry(speed.OURS, "ours.py", "default")
    with speed.worker(entry, sys.executable, folder, "float32") as process:
        assert process.versions["numpy"] == np.__version__
        assert process.ask("time 0.001")["seconds"] > 0
        assert process.ask(f"result {folder.parent / 'result.npz'}") == {}
    with np.load(folder.parent / "result.npz") as stored:
        assert stored["phi"].dtype == np.float32
    with (
        pytest.raises(speed.WorkerError, match="no_such"),
        speed.worker(entry, sys.executable, folder, "no_such_dtype"),
    ):
        pass


@pytest.mark.parametrize("variant", ["default", ours.WITHOUT_FAST])
def test_the_process_of_each_variant_has_its_kernels(folder, monkeypatch, variant):
    # The switch of the caller must reach neither: the default is the default.
    monkeypatch.setenv("MINIMETA_FAST", "0" if variant == "default" else "1")
    entry = speed.Entry(speed.OURS, "ours.py", variant)
    with speed.worker(entry, sys.executable, folder, "float32") as process:
        had = "numba" in process.versions
    monkeypatch.delenv("MINIMETA_FAST")
    assert had == (variant == "default" and bool(ours.extra()))


def test_no_variant_is_timed_twice_and_all_cases_are_timed_without_the_extra():
    for entries in speed.ENTRIES.values():
        assert len(set(entries)) == len(entries)
        own = [entry.variant for entry in entries if entry.peer == speed.OURS]
        assert any(variant.endswith(ours.WITHOUT_FAST) for variant in own)


def test_the_figure_is_drawn_from_the_file_alone(tmp_path, monkeypatch):
    found = {}
    for name, case in cases.CASES.items():
        rows = [
            vars(entry) | {"ratio": {"median": 0.5, "quartiles": [0.4, 0.6]}}
            for entry in speed.ENTRIES[name]
        ]
        for row in rows:
            row |= {"bytes": 2**20} if case.kind == "memory" else {"milliseconds": {"median": 2.0}}
        del rows[0]["ratio"]
        rows.append(vars(speed.HIGHER) | {"not_run": "no such module"})
        found[name] = {"title": case.title, "kind": case.kind, "entries": rows}
    speed.save(tmp_path / "speed.json", found)
    assert json.loads((tmp_path / "speed.json").read_text()) == {"cases": found}
    monkeypatch.setattr(sys, "argv", ["speed.py", "--draw", "--out", str(tmp_path / "speed.json")])
    speed.main()
    assert (tmp_path / "speed.png").stat().st_size > 0 < (tmp_path / "speed.pdf").stat().st_size
