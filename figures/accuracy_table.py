"""Tables of few-shot accuracy: published numbers beside our runs.

The runs have stated budgets and are scored as in their papers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import markdown_tables
from command import examples_scored, scaled, scored

from minimeta.runs.experiment import Experiment, evaluate
from minimeta.runs.settings import Settings
from minimeta.runs.sweep import Finished, Job, Work
from minimeta.training.evaluation import Mode, Progress, Scoring
from minimeta.training.meta_training import MetaState


class Trained(NamedTuple):
    """A run and its scoring.

    ``settings`` have all of the paper's meta-steps. ``fraction`` is the default
    fraction of them. The run is scored on ``tasks`` unseen tasks with
    ``queries`` images per class, in ``modes``. ``eval_sizes`` maps each number
    of shots to the size of the inner mini-batches.
    """

    settings: Settings
    fraction: float
    tasks: int
    eval_sizes: Mapping[int, int]
    queries: int = 1
    modes: tuple[Mode, ...] = ("transductive", "inductive")


class Cell(NamedTuple):
    """A published accuracy as printed, and the run, shots and mode to compare.

    The accuracy is in %, with its interval.
    """

    published: str
    run: str
    shots: int
    mode: str


class Table(NamedTuple):
    """A table of published and measured accuracies.

    ``rows`` maps each name to a cell for each of ``columns``. ``of_a_class`` is
    the paper's number of images per class; None where runs always have all
    images.
    """

    runs: Mapping[str, Trained]
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Cell, ...]]
    of_a_class: int | None = None

    def tasks(self, run: Trained, budget: float | None, tasks: int | None = None) -> int:
        """The number of tasks to score a run on.

        The run's own number belongs to its own fraction of the meta-steps.
        """
        return tasks or (run.tasks if budget is None else scored(run.tasks, budget / run.fraction))

    def jobs(self, budget: float | None, tasks: int | None = None) -> list[Job]:
        """Every run at the fraction ``budget`` of its paper's meta-steps.

        With None, every run has its own fraction.
        """
        jobs = []
        for name, run in self.runs.items():
            iterations = scaled(
                run.settings.training.iterations, run.fraction if budget is None else budget
            )
            by = {
                "tasks": self.tasks(run, budget, tasks),
                "queries": run.queries,
                "sizes": dict(run.eval_sizes),
                "modes": run.modes,
            }
            each = [
                examples_scored(run.settings, scoring, run.modes)
                for scoring in _scorings(run.settings, run.eval_sizes, run.queries).values()
            ]
            work = Work(at_end=len(each) * by["tasks"], examples=sum(each) / len(each))
            jobs.append(Job(name, run.settings.changed(iterations=iterations), by=by, work=work))
        return jobs

    def summary(
        self, finished: dict[str, Finished], budget: float | None, tasks: int | None = None
    ) -> dict[str, Any]:
        """The accuracies, budget, time, memory and images of every run."""
        runs = {}
        for job in self.jobs(budget, tasks):
            made, run = finished[job.name], self.runs[job.name]
            runs[job.name] = {
                "accuracy": made.result,
                "meta_steps": job.settings.training.iterations,
                "of": run.settings.training.iterations,
                "tasks": job.by["tasks"],
                "queries": run.queries,
                "hours": round(made.training["seconds"] / 3600, 2),
                "peak_memory": made.training["peak_memory"],
                "images": made.training.get("images"),
                "settings": job.settings.flags(),
            }
        return {"runs": runs}

    def markdown(self, result: dict[str, Any]) -> str:
        """Tables of published and measured accuracies, and of the runs.

        A measured accuracy states the fraction of the meta-steps if it is below
        1.
        """
        rows, ours = {}, f"minimeta{self._part(result)}"
        for name, cells in self.rows.items():
            rows[f"{name}: paper"] = [cell.published for cell in cells]
            rows[f"{name}: {ours}"] = [_measured(result["runs"][cell.run], cell) for cell in cells]
        runs = {name: _cost(run) for name, run in result["runs"].items()}
        head = [
            "meta-steps",
            "paper's meta-steps",
            "unseen tasks",
            "test images a class",
            "hours of training",
        ]
        return (
            markdown_tables.table("accuracy, %", self.columns, rows)
            + "\n"
            + markdown_tables.table("run", head, runs)
        )

    def _part(self, result: dict[str, Any]) -> str:
        """A remark on the images in the names of our rows."""
        if self.of_a_class is None:
            return ""
        (images,) = {run["images"]["a_class"] for run in result["runs"].values()}
        return (
            ""
            if images == self.of_a_class
            else f", on {images} of {self.of_a_class} images of each class"
        )

    def write(self, result: dict[str, Any], path: Path) -> list[Path]:
        """Write ``markdown`` beside the results."""
        path.with_suffix(".md").write_text(self.markdown(result))
        return [path.with_suffix(".md")]


def _measured(run: dict[str, Any], cell: Cell) -> str:
    mean, half = run["accuracy"][str(cell.shots)][cell.mode]
    part = run["meta_steps"] / run["of"]
    return f"{mean:.2f} ± {half:.2f}" + ("" if part == 1 else f" ({100 * part:g}% of the steps)")


def _cost(run: dict[str, Any]) -> list[str]:
    counts = [f"{run[name]:,}" for name in ("meta_steps", "of", "tasks", "queries")]
    return [*counts, f"{run['hours']:.2f}"]


def accuracies(
    experiment: Experiment,
    state: MetaState,
    *,
    tasks: int,
    queries: int,
    sizes: Mapping[int, int],
    modes: tuple[Mode, ...],
    progress: Progress = iter,
) -> dict[str, Any]:
    """Accuracies of a finished run in %, with intervals, by shots and mode."""
    result = {}
    for shots, scoring in _scorings(experiment.settings, sizes, queries).items():
        how = {"count": tasks, "modes": modes, "progress": progress}
        scores = evaluate(experiment, state, scoring, **how)
        result[str(shots)] = {
            mode: [100 * float(score.mean), 100 * float(score.interval)]
            for mode, score in scores._asdict().items()
            if score is not None
        }
    return result


def _scorings(settings: Settings, sizes: Mapping[int, int], queries: int) -> dict[int, Scoring]:
    """How a run is scored, for each number of shots."""
    return {
        shots: replace(settings.evaluation, shots=int(shots), size=size, queries=queries)
        for shots, size in sizes.items()
    }
