"""What tables of few-shot accuracy share: runs at stated budgets, scored as their papers do, beside published numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import markdown_tables
from command import scaled

from minimeta.runs.experiment import Experiment, evaluate
from minimeta.runs.settings import Settings
from minimeta.runs.sweep import Finished, Job
from minimeta.training.evaluation import Mode
from minimeta.training.meta_training import MetaState


class Trained(NamedTuple):
    """A run: settings at all of its paper's meta-steps; the fraction of them that is made where no other is asked for; how
    it is scored: on ``tasks`` unseen tasks of ``queries`` images a class, by number of shots in inner mini-batches of so
    many images; in ``modes``, transductive and inductive."""

    settings: Settings
    fraction: float
    tasks: int
    eval_sizes: Mapping[int, int]
    queries: int = 1
    modes: tuple[Mode, ...] = ("transductive", "inductive")


class Cell(NamedTuple):
    """A published accuracy in % with its interval, as printed; and the run, shots and mode that answer it."""

    published: str
    run: str
    shots: int
    mode: str


class Table(NamedTuple):
    """``rows``: by name, a cell for each of ``columns``; ``of_a_class``: how many images of each class the paper has, where
    runs may be made from fewer."""

    runs: Mapping[str, Trained]
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Cell, ...]]
    of_a_class: int | None = None

    def jobs(self, budget: float | None) -> list[Job]:
        """Every run at a fraction of its paper's meta-steps: ``budget``, or where that is None its own."""
        jobs = []
        for name, run in self.runs.items():
            iterations = scaled(
                run.settings.training.iterations, run.fraction if budget is None else budget
            )
            by = {
                "tasks": run.tasks,
                "queries": run.queries,
                "sizes": dict(run.eval_sizes),
                "modes": run.modes,
            }
            jobs.append(Job(name, run.settings.changed(iterations=iterations), by=by))
        return jobs

    def summary(self, finished: dict[str, Finished], budget: float | None) -> dict[str, Any]:
        """Every run: its accuracies, budget, time, memory and images."""
        runs = {}
        for job in self.jobs(budget):
            made, run = finished[job.name], self.runs[job.name]
            runs[job.name] = {
                "accuracy": made.result,
                "meta_steps": job.settings.training.iterations,
                "of": run.settings.training.iterations,
                "tasks": run.tasks,
                "queries": run.queries,
                "hours": round(made.training["seconds"] / 3600, 2),
                "peak_memory": made.training["peak_memory"],
                "images": made.training.get("images"),
                "settings": job.settings.flags(),
            }
        return {"runs": runs}

    def markdown(self, result: dict[str, Any]) -> str:
        """Published and measured side by side, with the part of the meta-steps where it is not all of them; and the runs."""
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
        """What our rows must say of the images."""
        if self.of_a_class is None:
            return ""
        (images,) = {run["images"]["a_class"] for run in result["runs"].values()}
        return (
            ""
            if images == self.of_a_class
            else f", on {images} of {self.of_a_class} images of each class"
        )

    def write(self, result: dict[str, Any], path: Path) -> list[Path]:
        """``markdown`` beside the results."""
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
) -> dict[str, Any]:
    """The scores of a finished run: accuracies in % with intervals, by number of shots and mode."""
    result = {}
    for shots, size in sizes.items():
        scoring = replace(
            experiment.settings.evaluation, shots=int(shots), size=size, queries=queries
        )
        scores = evaluate(experiment, state, scoring, count=tasks, modes=modes)
        result[str(shots)] = {
            mode: [100 * float(score.mean), 100 * float(score.interval)]
            for mode, score in scores._asdict().items()
            if score is not None
        }
    return result
