"""The command lines of the figure scripts.

``run`` is for scripts that compute directly, ``run_sweep`` for sweeps of runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from minimeta.arguments import Parser, whole_number
from minimeta.errors import MinimetaError, SettingsError, SweepError
from minimeta.files import write_atomically
from minimeta.runs.experiment import Experiment
from minimeta.runs.provenance import provenance
from minimeta.runs.settings import Settings
from minimeta.runs.sweep import Finished, Job, Measure, sweep
from minimeta.runs.task_settings import SineSettings
from minimeta.training.evaluation import Mode, Scoring

POINTS = 100  # of a wave that an evaluation scores on by default


def run(
    name: str,
    description: str,
    compute: Callable[..., dict[str, Any]],
    draw: Callable[[dict[str, Any], Path], list[Path]],
    scales: bool = False,
) -> dict[str, Any]:
    """Compute, write ``<out>/<name>.json``, draw it, and return the result.

    ``--draw-only`` only redraws from the file. With ``scales``, ``compute`` is
    called with the ``--budget``.
    """
    parser = _parser(name, description)
    if scales:
        _add_budget(parser, 1.0)
    options = parser.parse_args()
    made = {"budget": options.budget} if scales else {}
    with _told(name):
        path = _place(options, name)
        if not options.draw_only:
            _write(path, made | compute(*made.values()) | {"provenance": provenance()})
        result = _stored(path)
        print("written:", *map(str, [path, *draw(result, path)]))
    return result


class Sweep(NamedTuple):
    """A figure or table made from runs.

    ``jobs(budget, tasks)`` gives the runs at a fraction of the full number of
    meta-steps, scored on ``tasks`` tasks (None: the figure's number, scaled).
    ``summary(finished, budget, tasks)`` gives their results as a JSON object.
    ``draw(summary, path)`` writes files from this object and returns their
    paths. ``budget`` is the default budget; with None, each job has its own.
    """

    name: str
    description: str
    jobs: Callable[[Any, int | None], list[Job]]
    measure: Measure
    summary: Callable[[dict[str, Finished], Any, int | None], dict[str, Any]]
    draw: Callable[[dict[str, Any], Path], list[Path]]
    budget: float | None = 1.0


def run_sweep(figure: Sweep) -> None:
    """The command line of a sweep."""
    options = _options(figure)
    with _told(figure.name):
        path = _place(options, figure.name)
        if not options.draw_only:
            _compute(figure, options, path)
        print("written:", *map(str, [path, *figure.draw(_stored(path), path)]))


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Exit with one line on errors in settings, data and files.

    Unexpected errors of a sweep are raised.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        told = f"stopped before {name} was drawn: run the same command again"
        print(f"{name}: {str(stopped) or told}", file=sys.stderr)
        raise SystemExit(130) from None
    except (MinimetaError, OSError) as error:
        if isinstance(error, SweepError) and error.__cause__ is not None:
            raise  # the traceback is needed
        raise SystemExit(f"{name}: {error}") from None


def _place(options: argparse.Namespace, name: str) -> Path:
    """The path of the result."""
    options.out.mkdir(parents=True, exist_ok=True)
    return options.out / f"{name}.json"


def _write(path: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _stored(path: Path) -> dict[str, Any]:
    """The result in a file."""
    if not path.exists():
        raise SettingsError(f"there is no {path} to draw from: omit --draw-only to compute it")
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise SettingsError(
            f"{path} is damaged ({error}): omit --draw-only to recompute it"
        ) from error


def _parser(name: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(description=description.splitlines()[0], usage="%(prog)s [options]")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        help=f"folder for {name}.json and the drawn files (default: out)",
    )
    parser.add_argument("--draw-only", action="store_true", help=f"only redraw from {name}.json")
    return parser


def _add_budget(parser: argparse.ArgumentParser, default: float | None) -> None:
    told = f"{default:g}" if default else "each run's own"
    parser.add_argument(
        "--budget",
        type=_positive,
        default=default,
        help=f"fraction of the paper's number of meta-steps (default: {told})",
    )


def _options(figure: Sweep) -> argparse.Namespace:
    name = figure.name
    parser = _parser(name, figure.description)
    _add_budget(parser, figure.budget)
    parser.add_argument(
        "--tasks",
        type=whole_number(2),
        metavar="N",
        help="number of tasks to score a finished run on (default: the figure's number times the "
        "budget, at least 50)",
    )
    parser.add_argument(
        "--runs",
        type=Path,
        help=f"folder of the runs (default: runs/{name}, with -BUDGET and -Ntasks where given)",
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of the images (default: MINIMETA_DATA)"
    )
    parser.add_argument(
        "--processes", type=whole_number(), help="concurrent runs (default: one per core)"
    )
    parser.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="Dask scheduler, replaces local processes"
    )
    return parser.parse_args()


def scored(tasks: int, budget: float, least: int = 50) -> int:
    """The number of tasks to score at a budget: a part of ``tasks``.

    It is at least ``least``, or all ``tasks``.
    """
    return min(tasks, max(least, round(budget * tasks)))


def told_scored(count: int, full: int, what: str = "unseen tasks") -> str:
    """A remark where scores come from another number of tasks than at the full
    budget."""
    return "" if count == full else f"scored on {count:,} {what}, at the full budget on {full:,}"


def examples_scored(
    settings: Settings,
    scoring: Scoring,
    modes: Sequence[Mode] = ("transductive", "inductive"),
) -> int:
    """The examples that pass through the network to score a task.

    A gradient counts as three passes. An image that is predicted alone passes
    with the images to adapt on.
    """
    adapting = 3 * scoring.steps * scoring.size
    if isinstance(settings.task, SineSettings):
        return adapting + (scoring.steps + 1) * (scoring.queries or POINTS)
    ways, asked = settings.task.ways, settings.task.ways * (scoring.queries or 1)
    passes = {"transductive": asked, "inductive": asked * (ways * scoring.shots + 1)}
    return adapting + sum(passes[mode] for mode in modes)


def _positive(word: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(word)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"must be a number above 0, got {word}")


def _compute(figure: Sweep, options: argparse.Namespace, path: Path) -> None:
    """Compute the missing runs, and write the summary of all runs."""
    budget, tasks, folder = options.budget, options.tasks, figure.name
    folder += "" if budget == figure.budget else f"-{budget:g}"
    folder += "" if tasks is None else f"-{tasks}tasks"
    runs = options.runs or Path("runs") / folder
    jobs = figure.jobs(budget, tasks)
    missing = [job for job in jobs if not (runs / job.name / "result.json").exists()]
    for job in {job.settings.task: job for job in missing}.values():
        # Missing data are reported once, not by every job.
        _ = Experiment(job.settings, options.data).train_tasks
    finished = sweep(
        jobs,
        runs,
        figure.measure,
        data=options.data,
        processes=options.processes,
        scheduler=options.scheduler,
        progress=None,
    )
    facts = {"budget": budget, "trained_by": trained_by(finished), "provenance": provenance()}
    _write(path, figure.summary(finished, budget, tasks) | facts)


def trained_by(finished: dict[str, Finished]) -> dict[str, Any]:
    """The total hours of training, and all commits, versions and machines.

    The commits that measured the runs are included if all are known.
    """
    trainings = [each.training for each in finished.values()]
    made = [one for each in trainings for one in each["made_by"]]
    names = dict.fromkeys(name for each in made for name in each)
    told = {name: sorted({str(each[name]) for each in made if name in each}) for name in names}
    measured = [each.measured_by for each in finished.values()]
    if None not in measured:
        told["measured"] = sorted({str(each["commit"]) for each in measured})
    return {"hours": round(sum(each["seconds"] for each in trainings) / 3600, 2)} | told


def scaled(iterations: int, budget: float) -> int:
    """The number of meta-steps at a budget, at least one."""
    return max(1, round(budget * iterations))
