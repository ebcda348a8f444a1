"""The command line: its output, and one line for every mistake."""

import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minimeta
from minimeta.cli import main
from minimeta.fields import every_flag
from minimeta.inner import STORES
from minimeta.runs.experiment import Experiment
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.runs.train import train
from minimeta.testing.self_check import Row

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
    for words, none in ((["--tail-shots", "few"], " or none"), (["--ways", "none"], "")):
        with pytest.raises(SystemExit):
            main(["train", "omniglot-5way-maml", *words])
        assert f"must be a whole number{none}, got '{words[1]}'" in capsys.readouterr().err


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
        (["eval", "NEW"], "NEW is not a run folder: there is no such folder"),
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
            ["train", "sine-maml", "--algorithm", "taml", "--bias-alpha", "2", "--out", "NEW"],
            "set bias to generalized-entropy",
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


TRAIN = "usage: minimeta train PRESET [--out RUN] [--resume] [options and settings]"


@pytest.mark.parametrize(
    ("words", "usage", "line"),
    [
        (
            "train sine --lr 0.1",
            TRAIN,
            "minimeta train: unknown flag --lr: did you mean --inner-lr?",
        ),
        (
            "train --lr=0.1 sine",
            TRAIN,
            "minimeta train: unknown flag --lr: did you mean --inner-lr?",
        ),
        (
            "train sine --iter 10",  # an abbreviation of one flag today may be one of two tomorrow
            TRAIN,
            "minimeta train: unknown flag --iter: did you mean --iterations?",
        ),
        (
            "train sine --steps 1",
            TRAIN,
            "minimeta train: unknown flag --steps: did you mean --cg-steps or --eval-steps?",
        ),
        ("train sine --zzz", TRAIN, "minimeta train: unknown flag --zzz"),
        ("train sine extra", TRAIN, "minimeta train: unexpected word 'extra'"),
        ("train snie", TRAIN, "minimeta train: preset 'snie' is unknown: did you mean sine?"),
        (
            "train sine --inner adm",
            TRAIN,
            "minimeta train: --inner must be one of adam, sgd, got 'adm': did you mean adam?",
        ),
        (
            "train sine-maml --inner lbfgs",
            TRAIN,
            "minimeta train: --inner must be one of adam, sgd, got 'lbfgs'",
        ),
        (
            "train sine --bias entropy",
            TRAIN,
            "minimeta train: --bias: bias 'entropy' is now algorithm 'taml-entropy': set algorithm "
            "to taml-entropy",
        ),
        (
            "train sine --algorithm mmal",
            TRAIN,
            "minimeta train: --algorithm 'mmal' is unknown: did you mean maml?",
        ),
        ("train sine --workers 0", TRAIN, "minimeta train: --workers must be 1 or more, got 0"),
        (
            "train sine --hidden 1e3",
            TRAIN,
            "minimeta train: --hidden must be numbers such as 64,64, got '1e3'",
        ),
        (
            "train sine --inner-lr x",
            TRAIN,
            "minimeta train: --inner-lr must be a number, got 'x'",
        ),
        (
            "trian",
            "usage: minimeta COMMAND ... (minimeta --help lists the commands)",
            "minimeta: command must be one of train, eval, check, data, vectors, got 'trian': "
            "did you mean train?",
        ),
        (
            "evaluate RUN",
            "usage: minimeta COMMAND ... (minimeta --help lists the commands)",
            "minimeta: command must be one of train, eval, check, data, vectors, got 'evaluate': "
            "did you mean eval?",
        ),
        (
            "eval",
            "usage: minimeta eval RUN [options and settings]",
            "minimeta eval: the following arguments are required: RUN",
        ),
        (
            "eval RUN --steps 0.5",
            "usage: minimeta eval RUN [options and settings]",
            "minimeta eval: --steps must be a whole number, got '0.5'",
        ),
        (
            "check --dtype float16",
            "usage: minimeta check [options]",
            "minimeta check: --dtype must be one of float64, float32, got 'float16': did you mean "
            "float64?",
        ),
        (
            "data omniglo",
            "usage: minimeta data {omniglot,mini-imagenet} [--data DIR]",
            "minimeta data: dataset must be one of omniglot, mini-imagenet, got 'omniglo': did you "
            "mean omniglot?",
        ),
        (
            "train sine --checkpoint-seconds nan",
            TRAIN,
            "minimeta train: --checkpoint-seconds must be a number, 0 or more, got 'nan'",
        ),
    ],
)
def test_a_wrong_word_is_told_in_a_line_below_the_usage_of_its_command(words, usage, line, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2 and capsys.readouterr().err == f"{usage}\n{line}\n"


FLAGS = {flag: owners[0].field for flag, owners in every_flag(Settings).items()}
CHOICES = {flag: tuple(field.registry) for flag, field in FLAGS.items() if field.is_choice}
SIZES = ("hidden", "grid", "k", "size", "shots", "tail-shots", "meta-batch")
MACHINE = ("workers", "log_every", "checkpoint_seconds")
values = st.one_of(
    st.sampled_from(["1e22", "1e400", "1e-400", "1e308", "nan", "inf", "-inf", "-0.0", "0", "-1"]),
    st.sampled_from(["1_000", "٣", "½", "none", "True", "0x10"]),
    st.sampled_from(["", " 5", "x\ny", "9" * 5000, "1,1", "1," + "9" * 30, ",", "--", "-"]),
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(repr),
    st.text(max_size=5),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([*PRESETS]),
    st.fixed_dictionaries({}, optional={flag: st.sampled_from(CHOICES[flag]) for flag in CHOICES}),
    st.dictionaries(st.sampled_from([*FLAGS, *MACHINE]), values, min_size=1, max_size=2),
)
def test_no_value_of_a_flag_ends_in_a_traceback(capsys, preset, chosen, given):
    """The settings are shown, or refused in a line (below the usage, where
    the words are not even settings)."""
    words = [f"--{flag.replace('_', '-')}={value}" for flag, value in (chosen | given).items()]
    try:
        status = main(["train", preset, "--show", *words])
    except SystemExit as ended:
        status = ended.code
    out, err = capsys.readouterr()
    assert (status, err.count("\n")) in ((0, 0), (1, 1), (2, 2))
    if status == 0:
        assert Settings.from_dict(json.loads(out)).to_dict() == json.loads(out)


@pytest.mark.parametrize("flag", [*SIZES, "iterations", "workers", "log-every"])
def test_a_number_that_no_array_can_count_is_refused_by_its_flag(flag, tmp_path, capsys):
    for number in ("1" + "0" * 22, str(2**63 - 1)):
        with pytest.raises(SystemExit):
            main(["train", "sine-maml", f"--{flag}={number}", "--out", str(tmp_path / "run")])
        line = capsys.readouterr().err.splitlines()[-1]
        assert line == f"minimeta train: --{flag} must be at most 1000000000, got {number}"


@given(st.dictionaries(st.sampled_from(SIZES), st.integers(9 * 10**8, 10**9), min_size=1))
def test_sizes_beyond_the_memory_of_the_machine_are_told_in_a_line(sizes):
    """Any one of them alone needs more than the machine's 1 GiB."""
    words = [f"--{flag}={size}" for flag, size in sizes.items()]
    with TemporaryDirectory() as folder, redirect_stderr(StringIO()) as told:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("minimeta.arrays.memory.physical_memory", lambda: 2**30)
            assert main(["train", "sine-maml", *words, "--out", f"{folder}/run"]) == 1
        assert "GiB of memory, but this machine has 1 GiB" in told.getvalue()
        assert told.getvalue().count("\n") == 1 and not list(Path(folder).iterdir())


def test_an_evaluation_beyond_the_memory_of_the_machine_is_told_in_a_line(tmp_path, capsys):
    assert main(["train", "sine", *SHORT, "--out", str(tmp_path)]) == 0
    words = ["--steps", "1000000000", "--size", "1000000000"]
    assert main(["eval", str(tmp_path), *words]) == 1
    assert "GiB of memory, but this machine has" in capsys.readouterr().err


def test_the_last_loss_is_told_by_its_name(tmp_path, capsys):
    for algorithm, name in (
        ("reptile", "mean squared error"),
        ("adml", "mean squared error, clean and adversarial added"),
    ):
        run = tmp_path / algorithm
        words = ["--log-every", "8", *SHORT, "--algorithm", algorithm, "--out", str(run)]
        assert main(["train", "sine", *words]) == 0
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        told = f"training loss {last['loss']:.4g} ({name}; average of meta-steps 17 to 20)"
        assert capsys.readouterr().out.splitlines()[-1] == told


@given(st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=12))
def test_rows_of_check_are_wrapped_and_their_columns_are_aligned(words):
    item = ", ".join(words)
    rows = [Row("section", each, "1.0000, 2.0000", "1, 2 ± 0.001", True) for each in (item, "x")]
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(StringIO()) as printed:
        patched.setattr("minimeta.testing.self_check.run_checks", lambda *_: rows)
        assert main(["check"]) == 0
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    head, *below = lines[1:-2]
    full = [line for line in below if line.endswith("  ok")]
    assert {line.index("1.0000") for line in full} == {head.index("measured") - 6}
    assert {line.index("1, 2 ±") for line in full} == {head.index("expected")}
    told = " ".join(line.removesuffix("  ok")[: head.index("measured") - 6] for line in below)
    assert told.split() == [*item.split(), "x"]


def test_two_evaluations_at_once_both_keep_their_results(tmp_path, monkeypatch):
    run, dumps, nested = str(tmp_path / "run"), json.dumps, []
    assert main(["train", "sine", *SHORT, "--out", run]) == 0
    for words in ([], ["--json", str(tmp_path / "mine.json")]):
        nested.clear()

        def first_the_other(*args, words=words, **how):  # writes its result meanwhile
            if not nested:
                nested.append(True)
                assert main(["eval", run, "--tasks", "10", "--quiet", *words]) == 0
            return dumps(*args, **how)

        monkeypatch.setattr("minimeta.cli.json.dumps", first_the_other)
        assert main(["eval", run, "--tasks", "10", "--quiet", *words]) == 0
    assert len(list((tmp_path / "run").glob("eval-*.json"))) == 2
    assert (tmp_path / "mine.json").exists() and (tmp_path / "mine-2.json").exists()


def _unfinished(path):
    """A run that was stopped after 10 of its 20 meta-steps."""
    settings = PRESETS["sine"].settings.changed(
        iterations=20, hidden="8", outer="adam", epsilon=0.001
    )
    return settings, train(Experiment(settings), path, until=10)


def test_eval_tells_that_a_run_ended_early(tmp_path, capsys):
    run = tmp_path / "run"
    _unfinished(run)
    assert main(["eval", str(run), "--tasks", "10", "--quiet"]) == 0
    assert "the run ended early" in capsys.readouterr().out
    result = json.loads(next(run.glob("eval-*.json")).read_text())
    assert "the run ended early" in result["remarks"][0]
    assert main(["train", "--resume", "--out", str(run), "--quiet"]) == 0
    assert main(["eval", str(run), "--tasks", "10", "--quiet"]) == 0
    assert "ended early" not in capsys.readouterr().out


def test_eval_tells_that_a_run_diverged(tmp_path, capsys):
    """Steps of 1,000 diverge after the first checkpoint, which is kept."""
    run = tmp_path / "run"
    words = ["--out", str(run), "--quiet", "--iterations", "50", "--inner-lr", "1000"]
    assert main(["train", "sine-maml", "--meta-batch", "3", *words]) == 1
    told = capsys.readouterr().err.removeprefix("minimeta: ").strip()
    assert "meta-step" in told
    assert main(["eval", str(run), "--tasks", "10", "--steps", "1", "--quiet"]) == 0
    assert f"the run ended early, because it diverged: {told}" in capsys.readouterr().out


@pytest.mark.parametrize("told", [{}, {"told": None}, {"told": 1}])
def test_a_row_of_a_divergence_that_lacks_its_error_is_told(tmp_path, capsys, told):
    run = tmp_path / "run"
    _unfinished(run)
    row = {"iteration": 10, "event": "diverged"} | told
    with open(run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(row) + "\n")
    assert main(["eval", str(run), "--tasks", "10", "--quiet"]) == 1
    assert "metrics.jsonl is damaged after 2 rows: " in capsys.readouterr().err


def test_a_preset_with_more_iterations_than_the_run_is_told_how_to_extend(tmp_path, capsys):
    run = str(tmp_path / "run")
    words = ["--epsilon", "0.1", "--epsilon-final", "0.1", "--quiet", "--out", run]
    assert main(["train", "sine", "--iterations", "20", *words]) == 0
    capsys.readouterr()
    assert main(["train", "sine", "--resume", *words]) == 1
    assert "iterations is 20 in the run, 30000 here; --iterations 30000" in capsys.readouterr().err
    assert main(["train", "sine", "--resume", "--iterations", "30", *words]) == 0


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


def test_the_help_of_train_tells_that_a_run_can_be_extended(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--resume --iterations N extends a run whose outer step size is constant" in told
    assert "with more --iterations, extend the run" in told


def test_importing_the_package_loads_neither_matplotlib_nor_cupy_nor_hypothesis():
    heavy = ("matplotlib", "cupy", "hypothesis", "pooch")
    code = f"import sys, minimeta; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
