"""The README tells the truth.

Its code runs, the files and tests that it names exist, and its numbers are
those of committed result files.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "figures" / "results"


EXAMPLES = [path.read_text() for path in (ROOT / "examples").glob("*.py")]
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
USE, TOUR, SWEEP, ALGORITHM, MICROSCOPE, LAYER = (code for code in CODE if code not in EXAMPLES)
BLOCKS = {"use": USE, "tour": TOUR, "algorithm": ALGORITHM, "microscope": MICROSCOPE}
BLOCKS["layer"] = LAYER
PAGE = (ROOT / "docs" / "python.md").read_text()
BLOCKS["docs/python.md"] = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.mark.parametrize("code", BLOCKS.values(), ids=BLOCKS)
def test_code_runs(code, tmp_path):
    """Each block runs as a script, which may register names and write files."""
    (tmp_path / "readme.py").write_text(code)
    _run("readme.py", tmp_path)


def _run(script, folder):
    places = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    words, environment = [sys.executable, script], os.environ | {"PYTHONPATH": places}
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended


def test_the_sweep_runs_as_a_script(tmp_path):
    (tmp_path / "mine.py").write_text(SWEEP)
    made = _run("mine.py", tmp_path)
    assert re.fullmatch(r"\{('seed-\d': \{'largest': [\d.]+\}(, )?){3}\}\n", made.stdout)


def test_what_the_readme_says_of_a_broken_layer_is_what_the_kit_says():
    broken = LAYER.replace("x_dot * dy + x * dy_dot", "x * dy_dot")
    with pytest.raises(AssertionError) as caught:
        exec(compile(broken, "README.md", "exec"), {"__name__": "readme"})
    assert f"\n{caught.value}\n" in README


def test_named_files_tests_and_functions_exist():
    for link in re.findall(r"\]\(((?!http|#)[^)]+)\)", README):
        assert (ROOT / link).exists(), link
    sources = {
        path.relative_to(ROOT / "tests").as_posix(): path.read_text()
        for path in (ROOT / "tests").rglob("*.py")
    }
    file, rows = "", [line for line in README.splitlines() if line.startswith("| (")]
    assert len(rows) >= 10
    for row in rows:
        for named in re.findall(r"`([^`]+)`", row.split("|")[-2]):
            in_file, _, name = named.partition("::")
            file = in_file or file
            assert not name or f"def {name}(" in sources[file], f"{file} has no {name}"


@pytest.mark.parametrize("name", ["fig1", "family"])
def test_tables_are_the_committed_results(name):
    assert (RESULTS / f"{name}.md").read_text() in README


def test_the_family_is_as_the_readme_says():
    result = json.loads((RESULTS / "family.json").read_text())
    assert (result["budget"], result["seeds"], result["waves"], result["tasks"]) == (
        1.0,
        5,
        600,
        1000,
    )
    for rows in result["sine"].values():
        better, worse = (
            rows["meta-sgd"]["difference"],
            (rows["maml-agreement"], rows["reptile-agreement"]),
        )
        assert better["than"] == "maml" and better["mean"][1] + better["interval95"][1] < 0
        assert all(rows["meta-sgd"]["beyond"])  # with every seed a second step and more diverge
        assert all(row["difference"]["mean"][1] > 0 for row in worse)
    scores = {name: each["transductive"] for name, each in result["omniglot"].items()}
    for one, other in (("maml-agreement", "maml"), ("reptile-agreement", "reptile")):
        assert abs(scores[one]["mean"] - scores[other]["mean"]) < scores[other]["interval95"]
    settings = result["settings"]
    assert {each["iterations"] for each in settings["sine"].values()} == {20_000}
    assert {each["iterations"] for each in settings["omniglot"].values()} == {2_000}
    assert {each["meta_batch"] for each in settings["omniglot"].values()} == {8}


def test_the_omniglot_numbers_are_the_committed_results():
    result = json.loads((RESULTS / "omniglot-5way" / "result.json").read_text())
    assert result["by"]["tasks"] == 10_000 and result["settings"]["iterations"] == 100_000
    for mode, name in (("transductive", "with"), ("inductive", "without")):
        (line,) = [
            line
            for line in README.splitlines()
            if line.startswith(f"| minimeta, {name} transduction |")
        ]
        cells = [
            f"{mean:.2f} ± {half:.2f}"
            for mean, half in (result["result"][shots][mode] for shots in ("1", "5"))
        ]
        assert line == f"| minimeta, {name} transduction | {cells[0]} | {cells[1]} |"
    peak = result["training"]["peak_memory"] / 2**20
    assert f"{peak:.0f} MiB of memory at its peak" in " ".join(README.split())


def test_the_timings_are_the_committed_results():
    assert (ROOT / "benchmarks" / "results" / "speed.md").read_text() in README


def test_the_page_of_timings_is_written_from_the_committed_results(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import report

    assert report.PAGE.read_text() == report.page()
    assert (report.RESULTS / "speed.md").read_text() == report.summary(
        json.loads((report.RESULTS / "speed.json").read_text())
    )
    for link in re.findall(r"\]\(((?!http|#)[^)]+)\)", report.page()):
        assert (report.PAGE.parent / link).exists(), link


def test_the_peers_grades_and_the_mutants_are_the_committed_results():
    grades = (ROOT / "benchmarks" / "results" / "conformance.md").read_text()
    assert grades[grades.index("Inner SGD") : grades.index("Versions:")] in README
    total = json.loads((ROOT / "benchmarks" / "results" / "mutation.json").read_text())["total"]
    assert f"{total['caught']:,} of {total['tried']:,} mutants" in README


def test_what_the_microscope_shows_is_the_committed_result(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "figures"))
    import microscope

    text, (sine, omniglot) = (
        " ".join(README.split()),
        json.loads((RESULTS / "microscope.json").read_text())["studies"],
    )

    def cosines(study, name):
        """Task by task, at each look: median over seeds."""
        return np.median(
            [[at["task_cosine"][name] for at in run] for run in study["looks"]], axis=0
        )

    def reach(end):
        """The largest alpha with a cosine of 0.99, to first order."""
        apart = np.median(
            [[at["apart"]["taylor1"] for at in run[end]] for run in sine["ends"]], axis=0
        )
        return sine["alphas"][int(np.argmax(apart > 0.01)) - 1]

    fomaml, reptile, taylor = (cosines(sine, name) for name in ("fomaml", "reptile", "taylor1"))
    assert f"in a task falls from {fomaml[0]:.2f} to {fomaml[-1]:.2f}." in text
    best = sine["steps"][reptile.argmax()]
    rise = f"{reptile[0]:.2f} to {reptile.max():.2f} at meta-step {best}"
    assert f"{rise}, then falls to {reptile[-1]:.2f}." in text
    both = [
        f"from {each[0]:.2f} to {each[-1]:.2f}"
        for each in (cosines(omniglot, name) for name in ("fomaml", "reptile"))
    ]
    assert f"both rise, {both[0]} and {both[1]}." in text
    assert f"sine waves is {taylor[0]:.2f} before training and {taylor[-1]:.2f} after it" in text
    norms = np.median(
        [[at["norm"]["taylor1"] / at["norm"]["maml"] for at in run] for run in sine["looks"]],
        axis=0,
    )
    assert f"its average is {norms[0]:.0f} and {norms[-1]:.0f} times as long" in text
    assert f"0.99 up to alpha = {reach(0):.1g} before training and {reach(-1):.1g} after it" in text
    slopes = microscope.slopes(sine, 0)
    assert (
        "slopes " + ", ".join(f"{slopes[name]:.2f}" for name in ("fomaml", "taylor1", "taylor2"))
        in text
    )
    slopes = microscope.slopes(omniglot, -1)
    assert f"the series' slope is {slopes['taylor1']:.2f} to either order" in text
    assert f"{slopes['taylor1']:.2f}" == f"{slopes['taylor2']:.2f}"
