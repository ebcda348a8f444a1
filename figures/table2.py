"""Table 2 of the Reptile paper: accuracy on Omniglot, 5-way and 20-way, 1-shot and 5-shot.

Reptile with its paper's settings, MAML and FOMAML with MAML's. ``BUDGETS`` says what part of its paper's meta-steps each run
makes here, and how many unseen tasks it is scored on; both stand beside every number in the table.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from command import Sweep, run_sweep, scaled

from minimeta.evaluation import Adaptation, accuracy
from minimeta.experiment import PRESETS, Settings
from minimeta.run import open_run
from minimeta.sweep import Finished, Job

SHOTS, WAYS = (1, 5), (5, 20)


class Budget(NamedTuple):
    """Fraction of the paper's meta-steps, and number of unseen tasks."""

    fraction: float
    tasks: int


# Reptile is trained once for both numbers of shots; MAML for each.
BUDGETS = {
    "reptile-5way": Budget(1.0, 10_000),
    "reptile-20way": Budget(0.02, 1000),
    "fomaml-5way-1shot": Budget(0.05, 2000),
    "fomaml-5way-5shot": Budget(0.02, 2000),
    "fomaml-20way-1shot": Budget(0.01, 1000),
    "fomaml-20way-5shot": Budget(0.005, 1000),
    "maml-5way-1shot": Budget(0.05, 2000),
    "maml-5way-5shot": Budget(0.02, 2000),
    "maml-20way-1shot": Budget(0.01, 1000),
    "maml-20way-5shot": Budget(0.005, 1000),
}

# The paper's table: accuracy in %, and its 95% interval.
PAPER = {
    ("MAML, transduction", 5, 1): (98.7, 0.4), ("MAML, transduction", 5, 5): (99.9, 0.1),
    ("MAML, transduction", 20, 1): (95.8, 0.3), ("MAML, transduction", 20, 5): (98.9, 0.2),
    ("FOMAML, transduction", 5, 1): (98.3, 0.5), ("FOMAML, transduction", 5, 5): (99.2, 0.2),
    ("FOMAML, transduction", 20, 1): (89.4, 0.5), ("FOMAML, transduction", 20, 5): (97.9, 0.1),
    ("Reptile", 5, 1): (95.39, 0.09), ("Reptile", 5, 5): (98.90, 0.10),
    ("Reptile", 20, 1): (88.14, 0.15), ("Reptile", 20, 5): (96.65, 0.33),
    ("Reptile, transduction", 5, 1): (97.68, 0.04), ("Reptile, transduction", 5, 5): (99.48, 0.06),
    ("Reptile, transduction", 20, 1): (89.43, 0.14), ("Reptile, transduction", 20, 5): (97.12, 0.32),
}  # fmt: skip
ROWS = tuple(dict.fromkeys(row for row, _, _ in PAPER))


def settings_of(name: str) -> Settings:
    """A run's settings, at the whole of its paper's meta-steps."""
    algorithm, ways, *rest = name.split("-")
    if algorithm == "reptile":
        return PRESETS[f"omniglot-{ways}"][1]
    shots = int(rest[0].removesuffix("shot"))
    settings = PRESETS[f"omniglot-{ways}-maml"][1]
    images = settings.ways * shots  # every mini-batch is all that there is to adapt on
    update = dict(algorithm="fomaml", fomaml_update="gradient") if algorithm == "fomaml" else {}
    return replace(settings, shots=shots, size=images, eval_shots=shots, eval_size=images, **update)


def jobs(budget: float) -> list[Job]:
    """A run for each row and column that are trained apart."""
    full = {name: settings_of(name) for name in BUDGETS}
    return [
        Job(name, replace(each, iterations=scaled(each.iterations, budget * BUDGETS[name].fraction)))
        for name, each in full.items()
    ]


def measure(path: Path, data: str | None) -> dict[str, Any]:
    """Accuracies in %: by number of shots, with transduction and without."""
    experiment, state = open_run(path, data, workers=1)
    training, settings = experiment.training, experiment.settings
    shots_of = SHOTS if settings.algorithm == "reptile" else (settings.eval_shots,)
    adaptation = Adaptation(settings.eval_steps, settings.eval_size)
    result = {}
    for shots in shots_of:
        scores = accuracy(
            training.objective, training.algorithm, state.meta, experiment.test_tasks, count=BUDGETS[path.name].tasks,
            shots=shots, adaptation=adaptation, inner_state=state.inner, workers=1,
        )  # fmt: skip
        result[str(shots)] = {
            mode: [100 * float(scores[together].mean), 100 * float(scores[together].interval)]
            for mode, together in (("transductive", True), ("inductive", False))
        }
    return result


def summary(finished: dict[str, Finished], budget: float) -> dict[str, Any]:
    """Every run: its accuracies, budget, time and memory."""
    runs = {}
    for job in jobs(budget):
        made = finished[job.name]
        full = settings_of(job.name).iterations
        runs[job.name] = {
            "accuracy": made.result, "meta_steps": job.settings.iterations, "of": full, "tasks": BUDGETS[job.name].tasks,
            "hours": round(made.training["seconds"] / 3600, 2), "peak_memory": made.training["peak_memory"],
            "settings": job.settings.to_dict(),
        }  # fmt: skip
    return {"runs": runs}


def table(result: dict[str, Any]) -> str:
    """Published and measured side by side, as Markdown."""
    head = [f"{ways}-way {shots}-shot" for ways in WAYS for shots in SHOTS]
    lines = ["| | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for row in ROWS:
        paper = [PAPER[row, ways, shots] for ways in WAYS for shots in SHOTS]
        lines.append(f"| {row}: paper | " + " | ".join(f"{mean:g} ± {half:g}" for mean, half in paper) + " |")
        lines.append(
            "| minimeta | " + " | ".join(_cell(result, row, ways, shots) for ways in WAYS for shots in SHOTS) + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(result: dict[str, Any], row: str, ways: int, shots: int) -> str:
    """Accuracy, interval, and the part of the paper's meta-steps where it is not all of them."""
    algorithm, _, transduction = row.lower().partition(", ")
    run = result["runs"][f"{algorithm}-{ways}way" + ("" if algorithm == "reptile" else f"-{shots}shot")]
    mean, half = run["accuracy"][str(shots)]["transductive" if transduction else "inductive"]
    part = run["meta_steps"] / run["of"]
    return f"{mean:.2f} ± {half:.2f}" + ("" if part == 1 else f" ({100 * part:g}% of the steps)")


def write_table(result: dict[str, Any], path: Path) -> list[Path]:
    """The table beside the results."""
    path.with_suffix(".md").write_text(table(result))
    return [path.with_suffix(".md")]


if __name__ == "__main__":
    run_sweep(Sweep("table2", __doc__, jobs, measure, summary, write_table))
