"""Figure 3 of the Reptile paper: which inner gradients should be summed?

The task is 5-way 5-shot Omniglot. Inner SGD has steps of 0.003 on mini-batches
of 25 images that do not overlap (5 training shots for each). There are 40,000
meta-steps of one task, and epsilon falls linearly to 0. g_i is the inner
gradient at the i-th mini-batch. g_1 is joint training, the last gradient is
FOMAML, the sum of all is Reptile, and their mean is Reptile with epsilon / k.
The figure shows the test accuracy on unseen characters during training, after 5
inner steps on 25 images, with each test image predicted alone.

As in the authors' program, the loss of a mini-batch is the sum over its images.
On the mean, the step would be 25 times 0.003.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import markdown_tables
import numpy as np
from command import Sweep, examples_scored, run_sweep, scaled, scored, told_scored
from style import SINGLE, plt, save

from minimeta.runs.experiment import Experiment, evaluate
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.runs.sweep import Finished, Job, Work
from minimeta.training.evaluation import Evaluation, Progress
from minimeta.training.meta_training import MetaState

META_STEPS = 40_000
LOOKS = (
    0.0125,
    0.025,
    0.05,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
)  # fractions of the meta-steps, denser where the curves rise
TASKS, TASKS_AT_END, QUERIES = 60, 1000, 3

_BASE = PRESETS["omniglot-5way"].settings.changed(
    meta_batch=1,
    inner="sgd",
    inner_lr=0.003,
    reduction="sum",
    size=25,
    eval_shots=5,
    eval_steps=5,
    eval_size=25,
)
# Pairs compared on the same tasks.
COMPARED = (
    ("g2", "g1"),
    ("g3", "g2"),
    ("g4", "g3"),
    ("sum2", "g2"),
    ("sum3", "sum2"),
    ("sum4", "sum3"),
    ("sum4", "sum2"),
    ("mean2", "g2"),
    ("mean4", "mean2"),
)
MEANS = {2: 0.125, 3: 0.08325, 4: 0.0625}  # the paper's epsilons


def _curve(algorithm: str, k: int, epsilon: float) -> Settings:
    update = {"fomaml_update": "step"} if algorithm == "fomaml" else {}
    return _BASE.changed(algorithm=algorithm, k=k, shots=5 * k, epsilon=epsilon, **update)


CURVES: dict[str, tuple[str, Settings]] = (
    {"g1": ("$g_1$", _curve("reptile", 1, 0.25))}
    | {f"g{k}": (f"$g_{k}$", _curve("fomaml", k, 0.25)) for k in (2, 3, 4)}
    | {
        f"sum{k}": (
            "$" + " + ".join(f"g_{i}" for i in range(1, k + 1)) + "$",
            _curve("reptile", k, 0.25),
        )
        for k in (2, 3, 4)
    }
    | {
        f"mean{k}": (
            f"$\\frac{{1}}{{{k}}}(" + " + ".join(f"g_{i}" for i in range(1, k + 1)) + ")$",
            _curve("reptile", k, eps),
        )
        for k, eps in MEANS.items()
    }
)


def counts(budget: float, tasks: int | None = None) -> tuple[int, int]:
    """The tasks to score at a look and at the end."""
    at_end = tasks or scored(TASKS_AT_END, budget)
    return min(at_end, scored(TASKS, budget, least=10)), at_end


def jobs(budget: float, tasks: int | None = None) -> list[Job]:
    """A run for each curve, with its looks."""
    steps, (at_look, at_end) = scaled(META_STEPS, budget), counts(budget, tasks)
    looks = tuple(sorted({scaled(steps, look) for look in LOOKS}))
    by = {"tasks": at_look, "tasks_at_end": at_end, "queries": QUERIES}
    return [
        Job(
            name,
            settings.changed(iterations=steps),
            looks,
            by,
            Work(at_look, at_end, work_of(settings)),
        )
        for name, (_, settings) in CURVES.items()
    ]


def work_of(settings: Settings) -> int:
    """The work of ``measure`` for each task."""
    return examples_scored(settings, replace(settings.evaluation, queries=QUERIES), ("inductive",))


def measure(
    experiment: Experiment,
    state: MetaState,
    tasks: int,
    queries: int,
    tasks_at_end: int | None = None,
    progress: Progress = iter,
) -> dict[str, Any]:
    """Accuracy in % with its interval.

    At the end of the run, also the number of correct images of each task.
    """
    settings = experiment.settings
    ended = state.iteration == settings.training.iterations
    count = tasks_at_end or tasks if ended else tasks
    scoring = replace(settings.evaluation, queries=queries)
    how = {"count": count, "modes": ("inductive",), "progress": progress}
    scores = evaluate(experiment, state, scoring, **how).inductive
    right = np.rint(scores.values * settings.task.ways * queries).astype(int).tolist()
    return {"mean": 100 * float(scores.mean), "interval95": 100 * float(scores.interval)} | (
        {"right": right} if ended else {}
    )


def difference(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Accuracy of one less the other's on the same tasks, percentage points."""
    percent = 100 / (_BASE.task.ways * QUERIES)
    by_task = Evaluation(percent * np.subtract(one["right"], other["right"]))
    return {"mean": float(by_task.mean), "interval95": float(by_task.interval)}


def summary(
    finished: dict[str, Finished], budget: float, tasks: int | None = None
) -> dict[str, Any]:
    """Accuracy of every curve at each look, and differences at the end."""
    curves, (at_look, at_end) = {}, counts(budget, tasks)
    for name, (label, settings) in CURVES.items():
        steps = scaled(META_STEPS, budget)
        points = {**finished[name].looks, steps: without_tasks(finished[name].result)}
        hours = round(finished[name].training["seconds"] / 3600, 2)
        curves[name] = {
            "label": label,
            "accuracy": list(points.items()),
            "hours": hours,
            "settings": settings.changed(iterations=steps).flags(),
        }
    differences = [
        {"of": one, "less": other} | difference(finished[one].result, finished[other].result)
        for one, other in COMPARED
    ]
    return {
        "tasks": at_look,
        "tasks_at_end": at_end,
        "queries": QUERIES,
        "curves": curves,
        "differences": differences,
    }


def without_tasks(scored: dict[str, Any]) -> dict[str, float]:
    """The result of ``measure`` without the numbers of single tasks."""
    return {key: value for key, value in scored.items() if key != "right"}


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw the figure, and write the table.

    Colour and marker show the last gradient. Dotted lines are single gradients,
    solid lines sums and dashed lines means. The scale is logarithmic in the
    error: on a linear scale, the nine curves that learn could not be told
    apart.
    """
    figure, axis = plt.subplots(figsize=(1.5 * SINGLE, 3.3))
    colours = {"1": "black", "2": "tab:orange", "3": "tab:green", "4": "tab:blue"}
    styles, marks = {"g": ":", "sum": "-", "mean": "--"}, {"1": "o", "2": "^", "3": "s", "4": "D"}
    for name, curve in result["curves"].items():
        steps, values = zip(
            *((step, each["mean"]) for step, each in curve["accuracy"]), strict=True
        )
        label = f"{curve['label']}   {values[-1]:.1f} %"
        axis.plot(
            steps,
            values,
            linestyle=styles[name[:-1]],
            marker=marks[name[-1]],
            markersize=3,
            color=colours[name[-1]],
            label=label,
        )
    if remark := told_scored(result["tasks_at_end"], TASKS_AT_END):
        axis.set_title(remark, fontsize=8)
    axis.set_xlabel("meta-step")
    axis.set_ylabel("test accuracy, % (log scale of the error)")
    axis.set_yscale(
        "function", functions=(lambda percent: -np.log(100 - percent), lambda y: 100 - np.exp(-y))
    )
    axis.set_yticks((25, 50, 70, 80, 85, 90, 92, 94, 96, 97))
    axis.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="gradient, accuracy at the end")
    path.with_suffix(".md").write_text(table(result))
    return [*save(figure, path), path.with_suffix(".md")]


def table(result: dict[str, Any]) -> str:
    """Accuracy at the end, and differences on the same tasks, as Markdown."""
    curves, rows = result["curves"], {}
    for curve in curves.values():
        settings, at_end = curve["settings"], said(curve["accuracy"][-1][1])
        rows[curve["label"]] = [
            at_end,
            f"{settings['epsilon']:g}",
            f"{settings['iterations']:,}",
            f"{curve['hours']:.2f}",
        ]
    differences = {
        f"{curves[each['of']]['label']} less {curves[each['less']]['label']}": [said(each, "+")]
        for each in result["differences"]
    }
    head = ["accuracy at the end, %", "epsilon", "meta-steps", "hours of training"]
    compared = markdown_tables.table(
        "on the same tasks", ["difference, percentage points"], differences
    )
    remark = told_scored(result["tasks_at_end"], TASKS_AT_END)
    tables = [
        markdown_tables.table("gradient", head, rows),
        compared,
        *markdown_tables.note(remark),
    ]
    return "\n".join(tables)


def said(scored: dict[str, Any], sign: str = "") -> str:
    """A mean and its interval."""
    return f"{scored['mean']:{sign}.2f} ± {scored['interval95']:.2f}"


if __name__ == "__main__":
    run_sweep(Sweep("fig3", __doc__, jobs, measure, summary, draw))
