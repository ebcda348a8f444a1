"""The command lines that figure scripts share: of those that compute at once, and of those that are a sweep of runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from minimeta.errors import MinimetaError, SettingsError, SweepError
from minimeta.experiment import build
from minimeta.files import write_atomically
from minimeta.provenance import provenance
from minimeta.sweep import Finished, Job, Measure, sweep


def run(
    name: str, description: str, compute: Callable[[], dict[str, Any]], draw: Callable[[dict[str, Any], Path], list[Path]]
) -> dict[str, Any]:
    """Compute to ``<out>/<name>.json``, with what produced it, and draw from that file; what was drawn.

    ``--draw-only`` draws again from the file that is there.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help=f"folder for {name}.json, .png and .pdf (default: out)"
    )
    parser.add_argument("--draw-only", action="store_true", help=f"draw again from {name}.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.json"
    if not options.draw_only:
        text = json.dumps(compute() | {"provenance": provenance()}) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))
    result = json.loads(path.read_text())
    print("written:", *(str(each) for each in [path, *draw(result, path)]))
    return result


class Sweep(NamedTuple):
    """A figure or table made of runs. ``jobs(budget)``: the runs at a fraction of the full number of meta-steps;
    ``summary(finished, budget)``: what is kept of them, in a JSON file; ``draw(summary, path)``: the files made of that.
    ``budget``: where none is asked for; None leaves it to ``jobs``."""

    name: str
    description: str
    jobs: Callable[[Any], list[Job]]
    measure: Measure
    summary: Callable[[dict[str, Finished], Any], dict[str, Any]]
    draw: Callable[[dict[str, Any], Path], list[Path]]
    budget: float | None = 1.0


def run_sweep(figure: Sweep) -> None:
    """The command line of a sweep: what is wrong is told in one line, but for errors that are no one's settings or data."""
    options = _options(figure)
    try:
        path = options.out / f"{figure.name}.json"
        options.out.mkdir(parents=True, exist_ok=True)
        if not options.draw_only:
            _compute(figure, options, path)
        elif not path.exists():
            raise SettingsError(f"there is no {path} to draw from: leave --draw-only out to compute it")
        print("written:", *map(str, [path, *figure.draw(json.loads(path.read_text()), path)]))
    except KeyboardInterrupt as stopped:
        print(f"{figure.name}: {stopped}", file=sys.stderr)
        raise SystemExit(130) from None
    except MinimetaError as error:
        if isinstance(error, SweepError) and error.__cause__ is not None:
            raise  # its traceback is wanted
        raise SystemExit(f"{figure.name}: {error}") from None


def _options(figure: Sweep) -> argparse.Namespace:
    name = figure.name
    parser = argparse.ArgumentParser(description=figure.description.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help=f"folder for {name}.json and what is drawn (default: out)"
    )
    parser.add_argument("--runs", type=Path, help=f"folder of the runs (default: runs/{name}, or runs/{name}-BUDGET)")
    parser.add_argument("--data", metavar="DIR", help="where the images are (default: MINIMETA_DATA)")
    parser.add_argument(
        "--budget",
        type=_positive,
        default=figure.budget,
        help="fraction of the paper's number of meta-steps (default: " + ("1)" if figure.budget else "each run's own)"),
    )
    parser.add_argument("--processes", type=int, help="runs at once (default: one a core)")
    parser.add_argument("--scheduler", metavar="tcp://HOST:PORT", help="a Dask scheduler, instead of processes here")
    parser.add_argument("--draw-only", action="store_true", help=f"draw again from {name}.json")
    return parser.parse_args()


def _positive(word: str) -> float:
    value = float(word)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {word}")
    return value


def _compute(figure: Sweep, options: argparse.Namespace, path: Path) -> None:
    """Make the runs that are missing, and write what is kept of all with what produced it."""
    budget = options.budget
    runs = options.runs or Path("runs") / (figure.name if budget == figure.budget else f"{figure.name}-{budget:g}")
    jobs = figure.jobs(budget)
    missing = [job for job in jobs if not (runs / job.name / "result.json").exists()]
    for job in {job.settings.task: job for job in missing}.values():
        build(job.settings, options.data)  # data that are missing are told once, and not by every job
    finished = sweep(
        jobs, runs, figure.measure, data=options.data, processes=options.processes, scheduler=options.scheduler,
        progress=True,
    )  # fmt: skip
    facts = {"budget": budget, "trained_by": trained_by(finished), "provenance": provenance()}
    text = json.dumps(figure.summary(finished, budget) | facts) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def trained_by(finished: dict[str, Finished]) -> dict[str, Any]:
    """Hours of training of all runs together, and all commits, versions and machines that they were made by and on."""
    trainings = [each.training for each in finished.values()]
    made = [one for each in trainings for one in each["made_by"]]
    return {"hours": round(sum(each["seconds"] for each in trainings) / 3600, 2)} | {
        name: sorted({str(each[name]) for each in made}) for name in made[0]
    }


def scaled(iterations: int, budget: float) -> int:
    """A number of meta-steps at a fraction of the budget, at least one."""
    return max(1, round(budget * iterations))
