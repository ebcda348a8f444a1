"""The command line: it parses arguments, calls functions, prints results."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import MISSING, replace
from itertools import chain, count
from pathlib import Path
from textwrap import wrap
from types import NoneType
from typing import Any

from .algorithms import ADML
from .arguments import LARGEST, Parser, not_among, not_negative, refuse_huge, whole_number
from .arrays.backend import DEVICES, device_module
from .errors import MinimetaError, SettingsError, VectorsError, one_line, reason_of, shown
from .fields import Field, Owner, every_flag, kinds_of, reader, written
from .files import write_new
from .runs.bars import of_evaluation
from .runs.experiment import Experiment, evaluate
from .runs.first_edition import refuse_moved
from .runs.folder import RunFolder
from .runs.presets import PRESETS
from .runs.provenance import provenance
from .runs.settings import Settings
from .runs.task_settings import SineSettings
from .runs.train import (
    Saving,
    differing,
    open_run,
    settings_in,
    told_differences,
    train,
)
from .testing import conformance_vectors as vectors
from .training.evaluation import Accuracy, Evaluation, Mode
from .training.meta_training import MetaState
from .version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``minimeta`` and return its exit status.

    ``arguments`` are by default those of the process. 0: done. 1: a failed
    check, a MinimetaError, or a refusal of the system (a full disk, no memory),
    reported in one line. 2: arguments that cannot be parsed. 130: interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options) or 0
    except MinimetaError as error:
        print(f"minimeta: {error}", file=sys.stderr)
        return 1
    except (OSError, MemoryError) as error:
        print(f"minimeta: {_told_refusal(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"minimeta: {str(error) or 'stopped'}", file=sys.stderr)
        return 130


def _told_refusal(error: OSError | MemoryError) -> str:
    """A refusal of the system in words."""
    if isinstance(error, MemoryError):
        return one_line(error) or "out of memory"
    return one_line(f"{error.filename}: " if error.filename else "") + reason_of(error)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that stand on the command line."""
    return {flag: getattr(options, flag) for flag in options.flags if hasattr(options, flag)}


def _train(options: argparse.Namespace) -> None:
    given = _given(options)
    out = Path(options.out) if options.out else Path("runs") / (options.preset or "")
    if options.preset is None and not (options.resume and options.out):
        raise SettingsError(
            f"give a preset ({', '.join(PRESETS)}), or continue a run with --resume --out RUN"
        )
    if options.resume:
        settings = _resumed_settings(RunFolder(out), options.preset, given)
    else:
        settings = PRESETS[options.preset].settings.changed(**given)
    if options.show:
        print(json.dumps(settings.to_dict(), indent=2, allow_nan=False))
        return
    started = time.monotonic()
    xp = device_module(options.device)
    state = train(
        Experiment(settings, options.data, xp, options.workers),
        out,
        resume=options.resume,
        saving=Saving(options.log_every, options.checkpoint_seconds),
        progress=False if options.quiet else None,
    )
    took = time.monotonic() - started
    print(f"{state.iteration} meta-steps done in {took:.1f} s: {out} (minimeta eval {out})")
    if told := _told_loss(RunFolder(out), settings):
        print(told)


def _told_loss(folder: RunFolder, settings: Settings) -> str:
    """The loss in the last line of a run's metrics, and which loss it is.

    Empty where the metrics hold no loss.
    """
    rows = [row for row in folder.metrics() if "loss" in row]
    if not rows:
        return ""
    first = rows[-2]["iteration"] + 1 if len(rows) > 1 else 1
    name = _title(settings)
    both = ", clean and adversarial added" if isinstance(settings.algorithm, ADML) else ""
    steps = f"average of meta-steps {first} to {rows[-1]['iteration']}"
    return f"training loss {rows[-1]['loss']:.4g} ({name}{both}; {steps})"


def _title(settings: Settings) -> str:
    """The loss in words."""
    return getattr(getattr(settings.objective(), "loss", None), "title", "loss")


def _resumed_settings(folder: RunFolder, preset: str | None, given: dict[str, Any]) -> Settings:
    """The settings to continue with.

    A preset and flags that are given must agree with the run. ``iterations``
    may be larger, which ``train`` accepts where the run can be extended.
    """
    settings = settings_in(folder.config_path, folder.config())
    wanted = (PRESETS[preset].settings if preset else settings).changed(**given).flags()
    there = settings.flags()
    other = differing(there, wanted)
    if other == ["iterations"] and given.get("iterations", 0) > there["iterations"]:
        return settings.changed(iterations=given["iterations"])
    if other:
        raise SettingsError(told_differences(folder, other, there, wanted))
    return settings


def _eval(options: argparse.Namespace) -> None:
    run = Path(options.run_folder)
    _check_json(options.json)
    experiment, state = open_run(run, options.data, device_module(options.device), options.workers)
    settings = experiment.settings.changed(**_given(options))
    experiment = replace(experiment, settings=settings)
    facts = RunFolder(run).facts()
    print(f"{run} after {state.iteration} of {settings.training.iterations} meta-steps:")
    for remark in (remarks := _remarks(run, experiment, state)):
        print(remark)
    result = {"meta_steps": state.iteration, "tasks": options.tasks, "eval_seed": options.eval_seed}
    result |= _scores(options, experiment, state)
    result |= {
        "remarks": remarks,
        "settings": settings.to_dict(),
        "provenance": provenance(experiment.xp.__name__),
        "training": facts,
    }
    named = run / f"eval-{settings.evaluation.shots}shot-{options.tasks}tasks.json"
    text = json.dumps(result, indent=2, allow_nan=False) + "\n"
    print(f"written to {_written(Path(options.json) if options.json else named, text)}")


def _check_json(file: str | None) -> None:
    """Raise a SettingsError if ``file`` cannot be a new file."""
    if file and (Path(file).exists() or not Path(file).absolute().parent.is_dir()):
        raise SettingsError(
            f"--json needs a new file in an existing folder, got {file}: name another file"
        )


def _scores(
    options: argparse.Namespace, experiment: Experiment, state: MetaState
) -> dict[str, Any]:
    """Score the learner of ``state``; print the results and return them."""
    started = time.monotonic()
    scores = evaluate(
        experiment,
        state,
        count=options.tasks,
        modes=_MODES[options.transduction],
        seed=options.eval_seed,
        progress=of_evaluation(False if options.quiet else None),
    )
    tell = _told_accuracy if isinstance(scores, Accuracy) else _told_errors
    results = tell(scores, experiment, options.tasks)
    return {"results": results, "seconds": round(time.monotonic() - started, 1)}


def _remarks(run: Path, experiment: Experiment, state: MetaState) -> list[str]:
    """Sentences about a run that ended early."""
    if state.iteration >= experiment.settings.training.iterations:
        return []
    last = [{}, *RunFolder(run).metrics()][-1]
    if last.get("event") == "diverged":
        return [f"the run ended early, because it diverged: {last['told']}"]
    return [f"the run ended early: minimeta train --resume --out {run} continues it"]


_MODES: dict[str, tuple[Mode, ...]] = {
    "both": ("transductive", "inductive"),
    "yes": ("transductive",),
    "no": ("inductive",),
}


def _written(path: Path, text: str) -> Path:
    """Write ``text`` to a new file, and return the path of the file.

    The file is the first of ``path``, ``path-2``, ``path-3``, ... that does not
    exist. So no result is ever overwritten, not even by another process.
    """
    candidates = chain([path], (path.with_stem(f"{path.stem}-{number}") for number in count(2)))
    while True:
        each = next(candidates)
        with suppress(FileExistsError):
            write_new(each, lambda file: file.write(text.encode()))
            return each


def _told_errors(errors: Evaluation, experiment: Experiment, tasks: int) -> list[dict[str, Any]]:
    """Print and return the errors after some numbers of inner steps."""
    scoring, rows = experiment.settings.evaluation, []
    title = _title(experiment.settings)
    tasks_are = "waves" if isinstance(experiment.settings.task, SineSettings) else "tasks"
    print(
        f"{title} over {tasks} unseen {tasks_are} with {scoring.shots} points each, "
        "after n inner steps (95% interval)"
    )
    for step in sorted({0, 1, 2, 5, 10, 20, scoring.steps}):
        if step <= scoring.steps:
            mean, interval = float(errors.mean[step]), float(errors.interval[step])
            print(f"  n = {step:3d}   {mean:8.4f} +- {interval:.4f}")
            rows.append({"step": step, "mean": mean, "interval95": interval})
    return rows


def _told_accuracy(scores: Accuracy, experiment: Experiment, tasks: int) -> list[dict[str, Any]]:
    """Print and return the accuracies with and without transduction."""
    task, shots, rows = experiment.settings.task, experiment.settings.evaluation.shots, []
    print(
        f"{task.classes()}{shots}-shot accuracy over {tasks} unseen tasks, "
        f"95% interval{task.remark(experiment.test_tasks)}"
    )
    for mode, score in scores._asdict().items():
        if score is not None:
            mean, interval = 100 * float(score.mean), 100 * float(score.interval)
            word = "with" if mode == "transductive" else "without"
            print(f"  {word:7} transduction   {mean:6.2f}% +- {interval:.2f}")
            transduction = mode == "transductive"
            rows.append({"transduction": transduction, "accuracy": mean, "interval95": interval})
    return rows


def _data(options: argparse.Namespace) -> None:
    from .tasks.mini_imagenet import find_mini_imagenet
    from .tasks.omniglot import download_omniglot

    get = {"omniglot": download_omniglot, "mini-imagenet": find_mini_imagenet}[options.dataset]
    for path, remark in get(options.data):
        print(f"{path}: {remark}")


_ITEM = 40  # columns of an item, so that a row has 80


def _check(options: argparse.Namespace) -> int:
    from .testing.self_check import run_checks

    section, rows = None, []
    for row in run_checks(device_module(options.device), options.dtype, options.deep):
        if row.section != section:
            section = row.section
            print(f"\n{section:{_ITEM + 2}}  {'measured':>14}   expected")
        verdict = "ok" if row.holds else "WRONG"
        *before, item = wrap(row.item, _ITEM, subsequent_indent="  ")
        for part in before:
            print(f"  {part}")
        print(f"  {item:{_ITEM}}  {row.measured:>14}   {row.expected:12}  {verdict}", flush=True)
        rows.append(row)
    wrong = sum(not row.holds for row in rows)
    told = f"{wrong} of {len(rows)} checks failed" if wrong else f"all {len(rows)} checks hold"
    print(f"\n{told}, in {options.dtype}")
    return 1 if wrong else 0


def _vectors(options: argparse.Namespace) -> None:
    if options.verify is None:
        if options.tolerance is not None:
            raise SettingsError(
                "--tolerance belongs to --verify: add --verify RESULTS, or omit --tolerance"
            )
        count, size = vectors.write(Path(options.folder))
        written = f"{count} problems, {size / 1e6:.1f} MB: {options.folder}"
        print(f"{written} (--verify RESULTS grades results)")
        return
    tolerance = vectors.TOLERANCE if options.tolerance is None else options.tolerance
    grades = vectors.grade(Path(options.folder), Path(options.verify), tolerance)
    print(vectors.report(grades, tolerance))
    failed = sum(each.status == "fail" for each in grades)
    if failed:
        raise VectorsError(f"{failed} of {len(grades)} results fail: {options.verify}")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="minimeta",
        usage="minimeta COMMAND ... (minimeta --help lists the commands)",
        description="Gradient-based meta-learning, every derivative derived by hand.",
        epilog="begin with: minimeta train sine",
    )
    parser.add_argument("--version", action="version", version=f"minimeta {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", prog="minimeta")
    _add_train(commands)
    _add_eval(commands)
    _add_check(commands)
    _add_data(commands)
    _add_vectors(commands)
    return parser


def _add_check(commands: Any) -> None:
    parser = commands.add_parser(
        "check",
        help="check the mathematics on this machine",
        usage="minimeta check [options]",
        description="Check every derivative against the complex step. Check the slopes of the "
        "Taylor remainders and the coefficients of the expected updates. Errors are relative; a "
        "layer, network or algorithm shows its largest error. The exit status is 1 if any check "
        "fails.",
    )
    parser.add_argument(
        "--device", choices=DEVICES, help="device (default: MINIMETA_DEVICE, else cpu)"
    )
    parser.add_argument(
        "--dtype",
        choices=["float64", "float32"],
        default="float64",
        help="float32 compares directions with float64, to the precision of float32 "
        "(default: float64)",
    )
    parser.add_argument(
        "--deep", action="store_true", help="thirty times as many inputs, and every k from 2 to 8"
    )
    parser.set_defaults(run=_check)


def _add_data(commands: Any) -> None:
    parser = commands.add_parser(
        "data",
        help="download a dataset",
        usage="minimeta data {omniglot,mini-imagenet} [--data DIR]",
        description="Download Omniglot and verify its checksums. mini-ImageNet has no official "
        "download: print where its files are, or which files to get and where to put them.",
    )
    parser.add_argument("dataset", choices=["omniglot", "mini-imagenet"])
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="folder of the dataset (default: MINIMETA_DATA, else the user's cache folder)",
    )
    parser.set_defaults(run=_data)


def _add_train(commands: Any) -> None:
    presets = "\n".join(f"  {name:22}{preset.text}" for name, preset in PRESETS.items())
    parser = commands.add_parser(
        "train",
        help="meta-train from a preset",
        usage="minimeta train PRESET [--out RUN] [--resume] [options and settings]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Meta-train. Each preset holds the settings of a paper. Every setting is also "
        "a flag.\n\npresets:\n" + presets,
        epilog="examples:\n"
        "  minimeta train sine\n"
        "  minimeta train omniglot-5way --data DIR --iterations 20000 --out runs/mine\n"
        "  minimeta train --resume --data DIR --out runs/mine\n"
        "a run keeps the settings that it was started with; --resume --iterations N extends a run\n"
        "whose outer step size is constant (--epsilon-final equals --epsilon)",
    )
    _add_train_flags(parser)
    _add_machine_flags(parser)
    group = parser.add_argument_group(
        "settings",
        "a flag that is not given has the preset's value (--show prints all values);\n"
        "in parentheses: the value in the preset sine",
    )
    known = _flags()
    for owners in known.values():
        _add_setting(group, owners)
    parser.set_defaults(run=_train, flags=list(known))


def _add_train_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "preset",
        nargs="?",
        choices=list(PRESETS),
        metavar="PRESET",
        help="one of the presets above",
    )
    parser.add_argument("--show", action="store_true", help="print the settings as JSON and exit")
    parser.add_argument("--out", metavar="RUN", help="run folder (default: runs/PRESET)")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue from the checkpoint in the run folder; with more --iterations, extend the "
        "run",
    )
    parser.add_argument(
        "--log-every",
        type=whole_number(1),
        default=10,
        metavar="N",
        help="meta-steps per line of metrics (default: 10)",
    )
    parser.add_argument(
        "--checkpoint-seconds",
        type=not_negative,
        default=10.0,
        metavar="S",
        help="seconds between checkpoints (default: 10)",
    )


def _flags() -> dict[str, list[Owner]]:
    """The settings that a command line can give.

    It gives neither a network nor tasks of the user's own.
    """
    return {
        flag: owners
        for flag, owners in every_flag(Settings).items()
        if kinds_of(owners[0].field.hint)[:1] != [dict]
        and any(("task", "own") not in owner.under for owner in owners)
    }


def _add_setting(group: Any, owners: list[Owner], word: str | None = None) -> None:
    """Add the flag of a setting. ``word``, if given, replaces its name."""
    field = owners[0].field
    option = "--" + (word or field.flag).replace("_", "-")
    shown = f"{field.help} ({_default(field)})".replace("%", "%%")
    how: dict[str, Any] = {"dest": field.flag, "default": argparse.SUPPRESS, "help": shown}
    if kinds_of(field.hint) == [bool]:
        group.add_argument(option, action=argparse.BooleanOptionalAction, **how)
    elif words := tuple(field.registry or field.choices):
        group.add_argument(
            option, type=_word(field, words), metavar="{" + ",".join(words) + "}", **how
        )
    else:
        letter = {int: "N", float: "X"}.get(kinds_of(field.hint)[0], "N,N")
        group.add_argument(option, type=_reader(field), metavar=letter, **how)


def _word(field: Field, words: Sequence[str]) -> Callable[[str], str]:
    """An argparse type: one of the words of a setting."""

    def value(word: str) -> str:
        try:
            refuse_moved({field.flag: word})
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if word not in words:
            raise argparse.ArgumentTypeError(not_among(words, word))
        return word

    return value


def _reader(field: Field) -> Callable[[str], Any]:
    """An argparse type: the value of a setting that is not a word."""
    read, kinds = reader(field), kinds_of(field.hint)
    told = {"int": "a whole number", "float": "a number", "numbers": "numbers such as 64,64"}
    wanted = told[read.__name__] + (" or none" if NoneType in kinds else "")

    def value(word: str) -> Any:
        try:
            given = read(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {shown(word)}") from None
        refuse_huge(given, None if field.flag == "seed" else LARGEST)
        return given

    return value


def _default(field: Field) -> str:
    """The value of a setting in the preset sine, as a word of the command line.

    A setting that sine does not read has the default of its class.
    """
    value = field.default
    if field.is_choice and value is not MISSING:
        value = field.registry.name_of(value)
    value = PRESETS["sine"].settings.flags().get(field.flag, written(value))
    if isinstance(value, list):
        return ",".join(map(str, value))
    return {MISSING: "must be given", None: "none"}.get(value, str(value))


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser(
        "eval",
        help="evaluate a run on unseen tasks",
        usage="minimeta eval RUN [options and settings]",
        description="Adapt a run's parameters to unseen tasks and score them: the accuracy, or "
        "the error after n inner steps. The result is printed, and written to a JSON file in the "
        "run folder.",
    )
    parser.add_argument("run_folder", metavar="RUN", help="the run folder")
    parser.add_argument(
        "--tasks", type=whole_number(2), default=1000, help="number of unseen tasks (default: 1000)"
    )
    known = every_flag(Settings)
    scoring = [flag for flag in known if flag.startswith("eval_")]
    group = parser.add_argument_group(
        "settings",
        "a flag that is not given has the value in the run; in parentheses: the value in the "
        "preset sine",
    )
    for flag in scoring:
        _add_setting(group, known[flag], flag.removeprefix("eval_"))
    _add_eval_flags(parser)
    _add_machine_flags(parser)
    parser.set_defaults(run=_eval, flags=scoring)


def _add_eval_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--transduction",
        choices=["both", "yes", "no"],
        default="both",
        help="yes: predict a task's test images in one batch; no: predict each test image alone, "
        "with the training images (default: both)",
    )
    parser.add_argument(
        "--eval-seed",
        type=whole_number(most=None),
        default=0,
        metavar="SEED",
        help="seed of the unseen tasks (default: 0)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="new file for the result (default: in the run folder)"
    )


def _add_vectors(commands: Any) -> None:
    parser = commands.add_parser(
        "vectors",
        help="write test vectors for other implementations, or grade their results",
        usage="minimeta vectors DIR [options]",
        description="Write small problems with exact float64 results (gradients, Hessian-vector "
        "products, directions of Reptile, FOMAML and MAML) as npz and JSON, for implementations in "
        "any language. With --verify, grade such results. docs/vectors.md specifies the format.",
    )
    parser.add_argument(
        "folder", metavar="DIR", help="folder to write the vectors to, or, with --verify, to read"
    )
    parser.add_argument(
        "--verify",
        metavar="RESULTS",
        help="grade the results in this folder: one npz per problem, with any of its results",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help=f"a result passes if max|got - want| / max|want| is at most X "
        f"(default: {vectors.TOLERANCE})",
    )
    parser.set_defaults(run=_vectors)


def _add_machine_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", metavar="DIR", help="folder of the images (default: MINIMETA_DATA)"
    )
    parser.add_argument(
        "--device", choices=DEVICES, help="device (default: MINIMETA_DEVICE, else cpu)"
    )
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        metavar="N",
        help="number of threads (default: depends on the work and the cores)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
