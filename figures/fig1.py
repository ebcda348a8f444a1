"""Figure 1 of the Reptile paper: sine regression.

MAML and Reptile train from scratch on the same tasks: five inner SGD steps of
0.02, each on 10 of a task's 50 points. Each network then adapts to the same
unseen wave by 32 gradient steps on 10 points, and to 100 unseen waves for the
table.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import markdown_tables
import numpy as np
from command import run, scaled
from style import DOUBLE, plt, save
from tqdm import tqdm

from minimeta.runs.experiment import Experiment
from minimeta.runs.presets import PRESETS
from minimeta.tasks import Sinusoid, minibatches_of
from minimeta.training.evaluation import Scoring, adaptation_errors
from minimeta.training.learner import Learner
from minimeta.training.meta_training import MetaState, MetaTraining, checked_mean

SHOTS, STEPS, WAVES, WAVE_SEED = 10, 32, 100, 0
SHOWN = (0, 1, 5, 10, 32)  # inner steps in the table and in the legend

REPTILE = PRESETS["sine"].settings.changed(
    meta_batch=5,
    iterations=30_000,
    outer="adam",
    epsilon=0.001,
    grid=None,
    shots=50,
)
MAML = REPTILE.changed(
    algorithm="maml",
    meta_batch=10,
    iterations=10_000,
    epsilon=0.005,
    k=6,
    tail="separate",
    tail_shots=10,
)


def trained(name: str, training: MetaTraining) -> tuple[MetaState, float]:
    """The state after meta-training, and the seconds it took."""
    state, losses, started = training.start(), [], time.monotonic()
    with (
        training.stepper() as step,
        tqdm(total=training.iterations, desc=f"training {name}", unit="step", disable=None) as bar,
    ):
        while state.iteration < training.iterations:
            state, loss = step(state)
            losses.append(loss)
            if state.iteration % 100 == 0 or state.iteration == training.iterations:
                bar.set_postfix(
                    loss=f"{checked_mean(losses, state.iteration - len(losses) + 1):.3f}",
                    refresh=False,
                )
                bar.update(len(losses))
                losses = []
    return state, time.monotonic() - started


def compute(budget: float) -> dict[str, Any]:
    """All numbers to show; ``budget`` scales the number of meta-steps."""
    panels = []
    for name, settings in (("before training", None), ("MAML", MAML), ("Reptile", REPTILE)):
        full = settings or REPTILE
        made = full.changed(iterations=scaled(full.training.iterations, budget))
        experiment = Experiment(made)
        training = experiment.training
        state, seconds = trained(name, training) if settings else (training.start(), 0.0)
        panels.append(
            {
                "name": name,
                "settings": made.flags() if settings else None,
                "seconds": round(seconds, 1),
            }
            | _evaluated(experiment.learner(state))
        )
    return {"panels": panels}


def _evaluated(learner: Learner) -> dict[str, Any]:
    """Predictions on one unseen wave, and errors over many."""
    errors = adaptation_errors(learner, Sinusoid(), Scoring(SHOTS, STEPS, SHOTS), count=WAVES)
    rng = np.random.default_rng(WAVE_SEED)
    episode = Sinusoid().episode(rng, 1, SHOTS, 201, dtype=learner.meta.dtype)
    iterates = learner.iterates(minibatches_of(rng, episode.support, STEPS, SHOTS))
    (points_x, points_y), (x, y) = episode
    predicted = [learner.objective.predict(iterates[step], x)[0, :, 0] for step in SHOWN]
    return {
        "errors": [
            {
                "step": step,
                "mean": float(errors.mean[step]),
                "interval95": float(errors.interval[step]),
            }
            for step in SHOWN
        ],
        "wave": {
            "points": np.stack([points_x[0, :, 0], points_y[0, :, 0]]).round(4).tolist(),
            "x": x[0, :, 0].round(4).tolist(),
            "true": y[0, :, 0].round(4).tolist(),
            "after": {
                str(step): curve.round(4).tolist()
                for step, curve in zip(SHOWN, predicted, strict=True)
            },
        },
    }


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw the network on one wave in three panels, and write the table.

    Each panel shows the network before, during and after adaptation.
    """
    figure, axes = plt.subplots(1, 3, figsize=(DOUBLE, 2.3), sharey=True)
    shades = plt.get_cmap("Blues")(np.linspace(0.35, 1.0, len(SHOWN)))
    for letter, axis, panel in zip("abc", axes, result["panels"], strict=True):
        wave = panel["wave"]
        axis.plot(
            wave["x"],
            wave["true"],
            color="black",
            linestyle=(0, (1, 1.2)),
            label="true wave",
            zorder=3,
        )
        for step, shade in zip(SHOWN, shades, strict=True):
            style = {"linestyle": "--"} if step == 0 else {}
            label = "before adaptation" if step == 0 else f"after {step} step{'s' * (step > 1)}"
            axis.plot(wave["x"], wave["after"][str(step)], color=shade, label=label, **style)
        axis.plot(
            *wave["points"], "^", color="black", markersize=4, label="its 10 points", zorder=4
        )
        title = panel["name"] if panel["settings"] is None else f"after {panel['name']}"
        axis.set_title(f"({letter}) {title}")
        axis.set_xlabel("$x$")
        axis.set_xticks([-5, 0, 5])
    low, high = min(wave["true"]), max(wave["true"])
    axes[0].set_ylim(1.35 * low, 1.35 * high)
    axes[0].set_ylabel("$f(x)$")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.06), ncols=4)
    figure.tight_layout(w_pad=0.6)
    path.with_suffix(".md").write_text(table(result))
    return [*save(figure, path), path.with_suffix(".md")]


def table(result: dict[str, Any]) -> str:
    """Errors after adaptation, as Markdown."""
    rows = {}
    for panel in result["panels"]:
        steps = (
            f"{panel['settings']['iterations']:,} steps, {panel['seconds']:.0f} s"
            if panel["settings"]
            else "none"
        )
        rows[panel["name"]] = [
            *(f"{each['mean']:.3f} ± {each['interval95']:.3f}" for each in panel["errors"]),
            steps,
        ]
    head = [*(f"{step} step{'s' * (step != 1)}" for step in SHOWN), "meta-training"]
    return markdown_tables.table("mean squared error after", head, rows)


if __name__ == "__main__":
    drawn = run("fig1", __doc__, compute, draw, scales=True)
    print(f"\n{WAVES} unseen waves, {SHOTS} points each, 95% intervals:\n\n{table(drawn)}")
