"""Every example runs, is short, and stands in the README as it is."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
named = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def _main(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_there_are_six():
    assert len(EXAMPLES) == 6


@named
def test_an_example_fits_on_a_screen_or_two(path):
    assert len(path.read_text().splitlines()) <= 60


@named
def test_an_example_stands_in_the_readme(path):
    assert f"```python\n{path.read_text()}```" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["train_and_plot", "own_tasks"])
def test_it_trains_and_draws(name, tmp_path):
    _main(name)(runs=tmp_path / "runs", out=tmp_path / "out", iterations=20)
    assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000


def test_it_adapts_and_predicts(tmp_path, capsys):
    _main("adapt_and_predict")(runs=tmp_path / "runs", out=tmp_path / "out", iterations=20)
    told = capsys.readouterr().out
    here = told.partition("prediction at 1.0: ")[2].split()[0]
    assert told.partition("the same from the file: ")[2].split()[0] == here


def test_it_classifies_its_own_images(tmp_path, capsys):
    _main("own_images")(runs=tmp_path / "runs", iterations=2)
    assert "classified as ['character-" in capsys.readouterr().out


def test_it_compares_in_pairs(tmp_path):
    errors, difference = _main("compare_algorithms")(runs=tmp_path, iterations=50, count=20)
    wanted = errors["fomaml"].values - errors["maml"].values
    assert (difference.values == wanted).all()


def test_it_sweeps(tmp_path):
    """The processes of the sweep import the example by its name."""
    import sys

    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from sweep import main

        finished = main(runs=tmp_path, iterations=2, processes=2)
    finally:
        sys.path.remove(str(ROOT / "examples"))
        sys.modules.pop("sweep", None)
    assert len(finished) == 6
