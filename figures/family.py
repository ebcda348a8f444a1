"""The family compared: every algorithm on sine waves and 5-way 1-shot Omniglot.

Joint training is included. On sine waves every run trains the MAML paper's
network on the same number of tasks, with K = 5, 10 and 20 points to adapt on
and K points to score on, and with five seeds. Each run then adapts to the same
600 unseen waves by 0 to 10 inner steps on K points. On Omniglot all runs make
the same number of meta-steps on the same number of tasks, with one seed. A
stopped sweep continues, and never recomputes a finished run.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import markdown_tables
import numpy as np
from command import Sweep, examples_scored, run_sweep, scaled, scored, told_scored
from style import DOUBLE, plt, save

from minimeta.errors import DivergenceError
from minimeta.runs.experiment import Experiment, evaluate
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.runs.sweep import Finished, Job, Work
from minimeta.runs.task_settings import SineSettings
from minimeta.training.evaluation import Progress
from minimeta.training.meta_training import MetaState

SHOTS, SEEDS, WAVES, STEPS = (5, 10, 20), 5, 600, 10
TASKS = 1000  # unseen Omniglot tasks
COST = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "family_cost.json"

LABELS = {
    "joint": "joint training",
    "reptile": "Reptile",
    "reptile-agreement": "Reptile, agreement",
    "fomaml": "FOMAML",
    "maml": "MAML",
    "maml-agreement": "MAML, agreement",
    "meta-sgd": "Meta-SGD",
    "anil": "ANIL",
    "cavia": "CAVIA",
    "imaml": "iMAML",
    "taml": "TAML, Theil",
    "taml-entropy": "TAML, entropy",
    "adml": "ADML",
}

_SINE = PRESETS["sine-maml"].settings.changed(
    iterations=20_000, meta_batch=10, epsilon_final=0.0, eval_steps=STEPS
)
_REPTILE = dict(algorithm="reptile", k=10, tail="shared")
# Changes of each algorithm on sine waves. Algorithms that need only one inner
# step make one, as in their papers.
ON_SINE: dict[str, dict[str, Any]] = {
    "joint": dict(_REPTILE, k=1),
    "reptile": _REPTILE,
    "reptile-agreement": dict(_REPTILE, combine="agreement"),
    "fomaml": dict(algorithm="fomaml"),
    "maml": dict(),
    "maml-agreement": dict(combine="agreement"),
    # The step sizes are learned for one step; more steps diverge on some waves.
    "meta-sgd": dict(algorithm="meta-sgd", eval_steps=1),
    "anil": dict(algorithm="anil"),
    "cavia": dict(algorithm="cavia", context=5, inner_lr=1.0),
    # Sixteen steps, as in the paper. No tried step size of SGD was stable,
    # because nothing bounds the curvature at phi. Adam is stable on 5 and 10
    # points, and on 20 points with some seeds; with lambda = 10 it was worse.
    "imaml": dict(
        algorithm="imaml",
        k=17,
        regularization=100.0,
        inner="adam",
        inner_lr=0.003,
        inner_beta1=0.9,
        carry_inner_state=False,
    ),
    "taml": dict(algorithm="taml"),
    "adml": dict(algorithm="adml"),
}

_OMNIGLOT = dict(iterations=2_000, meta_batch=8, reduction="mean")
_OMNIGLOT_MAML = PRESETS["omniglot-5way-maml"].settings.changed(**_OMNIGLOT)
_OMNIGLOT_REPTILE = PRESETS["omniglot-5way"].settings.changed(**_OMNIGLOT)
ON_OMNIGLOT: dict[str, Settings] = {
    "joint": _OMNIGLOT_REPTILE.changed(k=1),
    "reptile": _OMNIGLOT_REPTILE,
    "reptile-agreement": _OMNIGLOT_REPTILE.changed(combine="agreement"),
    "fomaml": _OMNIGLOT_MAML.changed(algorithm="fomaml"),
    "maml": _OMNIGLOT_MAML,
    "maml-agreement": _OMNIGLOT_MAML.changed(combine="agreement"),
    "meta-sgd": _OMNIGLOT_MAML.changed(algorithm="meta-sgd"),
    "anil": _OMNIGLOT_MAML.changed(algorithm="anil"),
    "cavia": _OMNIGLOT_MAML.changed(algorithm="cavia", context=100, inner_lr=10.0),
    "imaml": _OMNIGLOT_MAML.changed(
        algorithm="imaml",
        k=6,
        regularization=2.0,
        inner="adam",
        inner_lr=0.003,
        inner_beta1=0.9,
        carry_inner_state=False,
        eval_steps=5,
    ),
    "taml": _OMNIGLOT_MAML.changed(algorithm="taml"),
    "taml-entropy": _OMNIGLOT_MAML.changed(algorithm="taml-entropy"),
    "adml": _OMNIGLOT_MAML.changed(algorithm="adml"),
}

# Pairs whose errors are subtracted, wave by wave and seed by seed.
COMPARED = (("meta-sgd", "maml"), ("maml-agreement", "maml"), ("reptile-agreement", "reptile"))


def sine_settings(name: str, shots: int, budget: float = 1.0) -> Settings:
    """An algorithm's settings on sine waves, at a fraction of the budget."""
    changes = ON_SINE[name]
    if changes.get("algorithm") == "reptile":
        # Reptile steps on all points; the others cut them into support and
        # query.
        points = dict(shots=2 * shots, size=2 * shots if name == "joint" else shots)
    else:
        points = dict(shots=shots, tail_shots=shots, size=shots)
    iterations = scaled(_SINE.training.iterations, budget)
    return _SINE.changed(
        iterations=iterations, eval_shots=shots, eval_size=shots, **(points | changes)
    )


def counts(budget: float, tasks: int | None = None) -> tuple[int, int]:
    """The unseen waves and the unseen Omniglot tasks to score a run on."""
    return tasks or scored(WAVES, budget), tasks or scored(TASKS, budget)


def jobs(budget: float = 1.0, tasks: int | None = None) -> list[Job]:
    """All runs."""
    waves, images = counts(budget, tasks)
    sine = [
        _job(
            f"sine-{shots}-{name}-{seed}",
            sine_settings(name, shots, budget).changed(seed=seed),
            waves=waves,
        )
        for shots in SHOTS
        for name in ON_SINE
        for seed in range(SEEDS)
    ]
    omniglot = [
        _job(
            f"omniglot-{name}",
            settings.changed(iterations=scaled(settings.training.iterations, budget)),
            tasks=images,
        )
        for name, settings in ON_OMNIGLOT.items()
    ]
    return sine + omniglot


def _job(name: str, settings: Settings, **by: int) -> Job:
    """A run, measured by a number of waves or tasks."""
    (count,) = by.values()
    work = Work(at_end=count, examples=examples_scored(settings, settings.evaluation))
    return Job(name, settings, by=by, work=work)


# One finished run.


def measure(
    experiment: Experiment, state: MetaState, progress: Progress = iter, **count: int
) -> dict[str, Any]:
    """A run's errors on unseen waves, or its accuracies on unseen tasks."""
    on_sine = isinstance(experiment.settings.task, SineSettings)
    return (_sine_errors if on_sine else _accuracies)(experiment, state, progress, **count)


def _sine_errors(
    experiment: Experiment, state: MetaState, progress: Progress, waves: int
) -> dict[str, Any]:
    own, beyond = experiment.settings.evaluation, None

    def errors(steps: int) -> np.ndarray:
        scoring = replace(own, steps=steps)
        return evaluate(experiment, state, scoring, count=waves, progress=progress).values

    if own.steps < STEPS:
        try:
            errors(STEPS)
        except DivergenceError as error:
            beyond = str(error)
    return {"errors": errors(own.steps).astype(np.float32).round(5).tolist(), "beyond": beyond}


def _accuracies(
    experiment: Experiment, state: MetaState, progress: Progress, tasks: int
) -> dict[str, Any]:
    scores = evaluate(experiment, state, count=tasks, progress=progress)._asdict()
    return {
        mode: {"mean": 100 * float(score.mean), "interval95": 100 * float(score.interval)}
        for mode, score in scores.items()
    }


# All runs.


def summary(
    finished: dict[str, Finished], budget: float, tasks: int | None = None
) -> dict[str, Any]:
    """Everything the figure and the table show."""
    made = {job.name: job.settings.flags() for job in jobs(budget, tasks)}
    settings = {
        "sine": {name: made[f"sine-{SHOTS[0]}-{name}-0"] for name in ON_SINE},
        "omniglot": {name: made[f"omniglot-{name}"] for name in ON_OMNIGLOT},
    }
    omniglot = {name: finished[f"omniglot-{name}"].result for name in ON_OMNIGLOT}
    waves, images = counts(budget, tasks)
    facts = {"seeds": SEEDS, "waves": waves, "tasks": images}
    return facts | {"sine": sine_summary(finished), "omniglot": omniglot, "settings": settings}


def sine_summary(finished: dict[str, Finished]) -> dict[str, Any]:
    """Mean error after each step, by number of points and by algorithm.

    The first algorithm of each pair in COMPARED also has its difference.
    """
    summary: dict[str, Any] = {}
    for shots in SHOTS:
        runs = {
            name: [finished[f"sine-{shots}-{name}-{seed}"].result for seed in range(SEEDS)]
            for name in ON_SINE
        }
        errors = {name: np.array([run["errors"] for run in each]) for name, each in runs.items()}
        rows = {
            name: _rows(errors[name]) | {"beyond": [run["beyond"] for run in runs[name]]}
            for name in ON_SINE
        }
        for name, than in COMPARED:
            steps = min(errors[name].shape[2], errors[than].shape[2])
            rows[name]["difference"] = {"than": than} | _rows(
                errors[name][..., :steps] - errors[than][..., :steps]
            )
        summary[str(shots)] = rows
    return summary


def _rows(values: np.ndarray) -> dict[str, list[float]]:
    return {
        "mean": values.mean(axis=(0, 1)).round(5).tolist(),
        "interval95": interval(values).round(5).tolist(),
    }


_STUDENT = {
    2: 12.706,
    3: 4.303,
    4: 3.182,
    5: 2.776,
    6: 2.571,
    7: 2.447,
    8: 2.365,
    9: 2.306,
    10: 2.262,
}


def interval(values: np.ndarray) -> np.ndarray:
    """Half the width of the 95% interval of the mean of ``values``.

    ``values`` have the shape ``(seeds, waves, ...)``. Seeds and waves vary
    independently, so their squared standard errors add. Over the few seeds,
    Student's t with seeds - 1 degrees of freedom replaces 1.96. The interaction
    of seeds and waves is counted twice, so the interval is too wide rather than
    too narrow.
    """
    seeds, waves = values.shape[:2]
    of_seeds = _STUDENT[seeds] ** 2 * values.mean(axis=1).var(axis=0, ddof=1) / seeds
    of_waves = 1.96**2 * values.mean(axis=0).var(axis=0, ddof=1) / waves
    return np.sqrt(of_seeds + of_waves)


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw a panel per algorithm: error against inner steps.

    The curves of joint training are drawn behind.
    """
    figure, axes = plt.subplots(3, 4, figsize=(DOUBLE, 5.2), sharex=True, sharey=True)
    for axis, name in zip(axes.flat, ON_SINE, strict=True):
        for shots, shade, mark in zip(
            SHOTS, plt.get_cmap("Blues")((0.45, 0.7, 1.0)), "os^", strict=True
        ):
            joint, row = result["sine"][str(shots)]["joint"], result["sine"][str(shots)][name]
            axis.plot(joint["mean"], color="0.75", linestyle=(0, (1, 1)), linewidth=0.9, zorder=1)
            mean, half = np.array(row["mean"]), np.array(row["interval95"])
            known = half < mean  # a logarithmic scale cannot show other intervals
            axis.fill_between(
                range(len(mean)),
                mean - half,
                mean + half,
                where=known,
                color=shade,
                alpha=0.25,
                lw=0,
            )
            axis.plot(
                mean, color=shade, marker=mark, markersize=3, label=f"{shots} points", zorder=3
            )
        axis.set_title(LABELS[name], fontsize=9)
        axis.set_yscale("log")
        axis.set_xticks([0, 1, 5, 10])
    axes[0, 0].set_ylim(0.008, 40)
    if remark := told_scored(result["waves"], WAVES, "unseen waves"):
        figure.suptitle(remark, fontsize=8)
    figure.supxlabel("inner steps", fontsize=9, y=0.055)
    figure.supylabel("mean squared error on unseen waves", fontsize=9, x=0.015)
    handles, labels = axes[0, 1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=3)
    figure.tight_layout(rect=(0, 0.035, 1, 1), w_pad=0.4)
    return save(figure, path)


def draw_and_tabulate(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw the figure, and write the table if the costs were measured."""
    written = draw(result, path)
    if not COST.exists():
        print(f"no table: there is no {COST}, run benchmarks/family_cost.py")
        return written
    path.with_suffix(".md").write_text(table(result, json.loads(COST.read_text())))
    return [*written, path.with_suffix(".md")]


def table(result: dict[str, Any], cost: dict[str, Any]) -> str:
    """Tables of errors, accuracies with ``cost``, and differences.

    ``cost`` is the time and memory that benchmarks/family_cost.py measured.
    """
    on_waves = told_scored(result["waves"], WAVES, "unseen waves")
    on_images = told_scored(result["tasks"], TASKS, "unseen Omniglot tasks")
    tables = [
        errors(result["sine"]),
        accuracies(result["omniglot"], cost),
        differences(result["sine"]),
    ]
    return "\n".join([*tables, *markdown_tables.note(on_waves), *markdown_tables.note(on_images)])


def errors(sine: dict[str, Any]) -> str:
    """Errors after one step and after ten, for each number of points."""
    head = [
        f"{step} step{'s' * (step > 1)}, {shots} points" for step in (1, STEPS) for shots in SHOTS
    ]
    rows = {
        LABELS[name]: [
            _cell(sine[str(shots)][name], step) for step in (1, STEPS) for shots in SHOTS
        ]
        for name in ON_SINE
    }
    return markdown_tables.table("error on sine waves", head, rows)


def accuracies(omniglot: dict[str, Any], cost: dict[str, Any]) -> str:
    """Accuracies on Omniglot, and the cost of a meta-step on both tasks."""
    head = [
        "transductive, %",
        "not transductive, %",
        "meta-step, ms",
        "memory, MiB",
        "sine meta-step, ms",
    ]
    rows = {}
    for name, scores in omniglot.items():
        here, sine = cost["omniglot"][name], cost["sine"].get(name)
        rows[LABELS[name]] = [
            *(
                f"{scores[mode]['mean']:.1f} ± {scores[mode]['interval95']:.1f}"
                for mode in ("transductive", "inductive")
            ),
            f"{1e3 * here['seconds']:.3g}",
            f"{here['bytes'] / 2**20:.0f}",
            f"{1e3 * sine['seconds']:.3g}" if sine else "needs classes",
        ]
    return markdown_tables.table("accuracy on Omniglot", head, rows)


def _cell(row: dict[str, Any], step: int) -> str:
    """An error, or the reason why there is none."""
    if step >= len(row["mean"]):
        return "diverges on some" if any(row["beyond"]) else "not made"
    return f"{row['mean'][step]:.3f} ± {row['interval95'][step]:.3f}"


def differences(sine: dict[str, Any]) -> str:
    """Differences of COMPARED after the first and the last common step."""
    table_rows = {}
    for name, than in COMPARED:
        rows = [sine[str(shots)][name]["difference"] for shots in SHOTS]
        for step in sorted({1, len(rows[0]["mean"]) - 1}):
            cells = [f"{row['mean'][step]:+.3f} ± {row['interval95'][step]:.3f}" for row in rows]
            when = f"after {step} step{'s' * (step > 1)}"
            table_rows[f"{LABELS[name]}, less {LABELS[than]}, {when}"] = cells
    return markdown_tables.table(
        "error less the other's, wave by wave", [f"{shots} points" for shots in SHOTS], table_rows
    )


if __name__ == "__main__":
    run_sweep(Sweep("family", __doc__, jobs, measure, summary, draw_and_tabulate))
