"""The command line: its output, and one line for every mistake."""

import json
import subprocess
import sys

import pytest

import minimeta
from minimeta.cli import main
from minimeta.inner import STORES
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings

SHORT = ["--iterations", "20", "--hidden", "8", "--quiet"]


@pytest.mark.parametrize("algorithm", ["reptile", "adml"])
def test_train_eval_and_resume(algorithm, tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["train", "sine", "--algorithm", algorithm, *SHORT, "--out", out]) == 0
    assert "20 meta-steps done" in capsys.readouterr().out
    assert main(["eval", out, "--tasks", "10", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "mean squared error over 10 unseen waves" in printed and "n =  32" in printed
    (path,) = (tmp_path / "run").glob("eval-*.json")
    result = json.loads(path.read_text())
    assert (
        result["tasks"] == 10
        and result["meta_steps"] == 20
        and result["provenance"]["minimeta"] == minimeta.__version__
    )
    assert main(["eval", out, "--tasks", "10", "--quiet"]) == 0
    assert json.loads(path.read_text()) == result
    assert len(list((tmp_path / "run").glob("eval-*.json"))) == 2
    assert main(["eval", out, "--tasks", "10", "--json", str(path)]) == 1
    assert main(["train", "--resume", "--out", out, "--quiet"]) == 0


def test_show_prints_a_presets_settings_and_does_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "omniglot-5way", "--k", "7", "--show"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == PRESETS["omniglot-5way"].settings.changed(k=7).to_dict()
    assert shown["algorithm"] == {
        "type": "reptile",
        "rule": {"type": "adam", "lr": 0.001, "beta1": 0.0, "beta2": 0.999, "eps": 1e-8},
    }
    assert not list(tmp_path.iterdir())


def test_a_setting_that_may_be_none_can_be_set_so(capsys):
    assert (
        main(
            [
                "train",
                "omniglot-5way-maml",
                "--tail",
                "shared",
                "--tail-shots",
                "none",
                "--shots",
                "2",
                "--show",
            ]
        )
        == 0
    )
    shown = json.loads(capsys.readouterr().out)
    want = PRESETS["omniglot-5way-maml"].settings.to_dict()
    want["schedule"] |= {"tail": "shared", "tail_shots": None, "shots": 2}
    assert shown == want
    for words in (["--tail-shots", "few"], ["--ways", "none"]):
        with pytest.raises(SystemExit):
            main(["train", "omniglot-5way-maml", *words])
        assert f"invalid int value: '{words[1]}'" in capsys.readouterr().err


@pytest.mark.parametrize("store", STORES)
def test_maml_is_told_what_to_store(store, capsys):
    assert main(["train", "sine-maml", "--store", store, "--show"]) == 0
    assert Settings.from_dict(json.loads(capsys.readouterr().out)).algorithm.store == store


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_preset_set_for_another_algorithm_is_not_refused(preset, capsys):
    words = ["--algorithm", "reptile", "--tail", "shared", "--tail-shots", "none", "--show"]
    assert main(["train", preset, *words]) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["train", "sine", *SHORT, "--out", "RUN"], "continue it with --resume"),
        (
            ["train", "sine", "--iterations", "30", "--out", "RUN", "--resume"],
            "iterations is 20 in the run, 30 here",
        ),
        (["train", "sine", *SHORT, "--out", "NEW", "--resume"], "not a run folder"),
        (["train"], "give a preset"),
        (["eval", "NEW"], "not a run folder"),
        (["eval", "RUN", "--shots", "0", "--quiet"], "eval_shots must be 1 or more"),
        (
            ["train", "omniglot-5way", "--data", "NEW", "--out", "NEW"],
            "Run 'minimeta data omniglot' to download it",
        ),
        (["train", "sine", "--k", "7", "--out", "NEW"], "grid of 50"),
        (
            ["train", "sine", "--algorithm", "adml", "--k", "1", "--out", "NEW"],
            "set k to 2 or more",
        ),
        (
            ["train", "omniglot-5way", "--algorithm", "cavia", "--out", "NEW"],
            "set context to their number, such as 5",
        ),
        (["train", "sine", "--context", "5", "--out", "NEW"], "context parameters are for cavia"),
        (
            ["train", "sine", "--bias", "gini", "--out", "NEW"],
            "bias belongs to taml: leave it out, or set algorithm to taml",
        ),
        (
            ["train", "sine", "--store", "points", "--out", "NEW"],
            "taml, taml-entropy: leave it out, or set algorithm to one of these",
        ),
        (["train", "sine", "--ways", "5", "--out", "NEW"], "set task to one of these"),
        (["train", "omniglot-5way", "--hidden", "8", "--out", "NEW"], "hidden belongs to sine"),
        (
            ["train", "sine-meta-sgd", "--inner-lr", "0.1", "--out", "NEW"],
            "meta-sgd reads rate_low, rate_high instead",
        ),
        (["train", "sine", "--inner-beta1", "0.9", "--out", "NEW"], "set inner to adam"),
        (
            ["train", "sine", "--algorithm", "adml", "--attack", "-1", "--out", "NEW"],
            "attack must be 0 or more",
        ),
        (
            ["train", "sine-maml", "--algorithm", "taml", "--bias", "entropy", "--out", "NEW"],
            "set algorithm to taml-entropy",
        ),
        (
            ["train", "sine-maml", "--inner", "lbfgs", "--out", "NEW"],
            "inner must be one of adam, sgd, got 'lbfgs'",
        ),
        (
            ["train", "sine", "--carry-inner-state", "--resume", "--k", "4", "--out", "RUN"],
            "k is 5 in the run, 4 here",
        ),
    ],
)
def test_every_mistake_is_one_line_on_standard_error(tmp_path, capsys, words, line):
    assert main(["train", "sine", *SHORT, "--out", str(tmp_path / "RUN")]) == 0
    capsys.readouterr()
    words = [str(tmp_path / word) if word in ("RUN", "NEW") else word for word in words]
    assert main(words) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("minimeta: ") and errors.count("\n") == 1 and line in errors
    assert not (tmp_path / "NEW").exists()


def test_a_gpu_that_is_not_there_is_one_line(tmp_path, capsys):
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount():
            pytest.skip("there is a GPU here")
    except ImportError:
        pass
    assert main(["train", "sine", "--device", "gpu", "--out", str(tmp_path / "run")]) == 1
    assert "device 'gpu'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["eval", "--help"],
        ["data", "--help"],
        ["vectors", "--help"],
        ["--version"],
    ],
)
def test_help_is_there(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0 and capsys.readouterr().out.strip()


def test_importing_the_package_loads_neither_matplotlib_nor_cupy_nor_hypothesis():
    heavy = ("matplotlib", "cupy", "hypothesis", "pooch")
    code = f"import sys, minimeta; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
