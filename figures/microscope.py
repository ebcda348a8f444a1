"""MAML's direction compared with FOMAML's, Reptile's and its own Taylor series.

The script trains MAML. At logarithmically spaced meta-steps it computes all
directions at MAML's phi, in float64, on one fixed probe meta-batch, and
compares each with MAML's (minimeta/theory/directions.py). At the first and the
last phi it repeats this for other inner step sizes alpha. Sine waves have five
seeds and Omniglot has one. Everything takes about five minutes on one core. Set
MINIMETA_DATA to the folder of Omniglot, as for ``minimeta train``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from style import DOUBLE, plt, save
from tqdm import tqdm

import minimeta as mm
from minimeta.runs.experiment import Experiment
from minimeta.runs.presets import PRESETS
from minimeta.runs.settings import Settings
from minimeta.theory import taylor
from minimeta.theory.directions import measure
from minimeta.training.meta_training import MetaTraining

FIT = 1e-4  # slopes against alpha are fitted up to this alpha
PROBE = 3  # stream of random numbers under seed 0; training and evaluation use 0 to 2
STYLES = {
    "fomaml": dict(label="FOMAML", color="tab:blue", marker="x", linestyle="--"),
    "reptile": dict(label="Reptile", color="tab:red", marker="^", linestyle=":"),
    "taylor1": dict(label="Taylor, first order", color="black", marker="o", linestyle="-"),
    "taylor2": dict(label="Taylor, second order", color="tab:green", marker="s", linestyle="-."),
}
SHARE = dict(
    label=r"$\|$MAML $-$ FOMAML$\|$", color="0.55", marker="", linestyle="-", linewidth=2.2
)
NAMES = ("maml", *STYLES)


@dataclass(frozen=True)
class Study:
    """A training from each of ``seeds``, with ``looks`` at its directions.

    The looks expand the series to ``order``. At the first and the last phi, the
    directions are also computed for each of ``alphas``, with the series to
    second order. The probe has ``tasks`` tasks.
    """

    name: str
    settings: Settings
    seeds: tuple[int, ...]
    tasks: int
    looks: int
    order: int
    alphas: tuple[float, ...]

    def steps(self) -> list[int]:
        """The meta-steps of the looks: 0, then logarithmically spaced."""
        return [
            0,
            *np.unique(
                np.geomspace(1, self.settings.training.iterations, self.looks - 1)
                .round()
                .astype(int)
            ).tolist(),
        ]


SINE = PRESETS["sine-maml"].settings.changed(
    iterations=10_000,
    meta_batch=10,
    k=6,
    shots=50,
    tail_shots=10,
    inner_lr=0.01,
    epsilon=0.005,
    epsilon_final=0.0,
    activation="tanh",
    phase=PRESETS["sine"].settings.task.phase,
)
OMNIGLOT = PRESETS["omniglot-5way-maml"].settings.changed(
    iterations=300,
    meta_batch=4,
    k=6,
    inner_lr=0.1,
    reduction="mean",
)
STUDIES = (
    Study("sine", SINE, (0, 1, 2, 3, 4), 200, 40, 2, tuple(np.logspace(-5, -1.5, 22))),
    Study("Omniglot", OMNIGLOT, (0,), 12, 12, 1, tuple(np.logspace(-5, -0.5, 13))),
)


def compute(studies: Sequence[Study] = STUDIES) -> dict[str, Any]:
    """All results of each study."""
    trainings = [
        [Experiment(each.settings.changed(seed=seed), workers=1).training for seed in each.seeds]
        for each in studies
    ]
    return {
        "studies": [watched(study, each) for study, each in zip(studies, trainings, strict=True)]
    }


def watched(study: Study, trainings: Sequence[MetaTraining]) -> dict[str, Any]:
    """The looks of a study.

    ``looks[seed][meta-step]`` are at the training's own alpha;
    ``ends[seed][first or last phi][alpha]`` at all alphas.
    """
    started, first = time.monotonic(), trainings[0]
    probe = first.tasks.sample(
        np.random.default_rng([0, PROBE]), study.tasks, first.schedule, np.float64
    )
    own, looks, ends = (study.settings.algorithm.rule.lr,), [], []
    for training in trainings:
        phis = visited(training, study.steps())
        looks.append([look(training.objective, phi, probe, own, study.order)[0] for phi in phis])
        ends.append(
            [look(training.objective, phi, probe, study.alphas, 2) for phi in (phis[0], phis[-1])]
        )
    shown = {
        "name": study.name,
        "settings": study.settings.flags(),
        "seeds": study.seeds,
        "probe_tasks": study.tasks,
    }
    return shown | {
        "steps": study.steps(),
        "alphas": [_rounded(alpha) for alpha in study.alphas],
        "looks": looks,
        "ends": ends,
        "seconds": round(time.monotonic() - started),
    }


def visited(training: MetaTraining, steps: Sequence[int]) -> list[np.ndarray]:
    """phi after each number of meta-steps, in float64."""
    state, phis = training.start(), []
    with training.stepper() as step:
        for i in tqdm(range(steps[-1] + 1), desc="training", unit="step", disable=None):
            if i in steps:
                phis.append(state.meta.astype(np.float64))
            if i < steps[-1]:
                state, _ = step(state)
    return phis


def look(
    objective: mm.Objective,
    phi: np.ndarray,
    probe: mm.Minibatches,
    alphas: Sequence[float],
    order: int,
) -> list[dict[str, Any]]:
    """The results of ``mm.compare_directions`` at each alpha.

    One expansion serves all orders.
    """
    terms = taylor.expand(objective, phi, probe, order).maml.terms
    series = [taylor.Series(terms[: n + 1]) for n in range(1, order + 1)]
    found = []
    for alpha in alphas:
        maml, fomaml, reptile = taylor.gradients(objective, phi, probe, alpha)
        stacked = np.stack(
            [maml, fomaml, reptile / len(probe), *(each(alpha) for each in series)], axis=1
        )
        of_mean, of_each = measure(stacked.mean(axis=0)), measure(stacked)
        found.append(
            {
                "apart": _named(of_mean.apart[0]),
                "norm": _named(of_mean.norms),
                "second_order": _rounded(of_mean.second_order),
                "task_cosine": _named(of_each.cosines[:, 0].mean(axis=0)),
                "task_spread": _named(of_each.cosines[:, 0].std(axis=0)),
                "task_second_order": _rounded(np.median(of_each.second_order)),
            }
        )
    return found


def _named(values: np.ndarray) -> dict[str, float]:
    return {name: _rounded(value) for name, value in zip(NAMES, values, strict=False)}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw a row per study against the meta-step, and a row against alpha."""
    studies = result["studies"]
    figure, axes = plt.subplots(len(studies) + 1, 3, figsize=(DOUBLE, 2.0 * (len(studies) + 1)))
    for row, study in zip(axes, studies, strict=False):
        draw_training(row, study)
    last = studies[-1]
    for axis, (study, end) in zip(
        axes[-1], ((studies[0], 0), (studies[0], -1), (last, -1)), strict=True
    ):
        draw_alphas(axis, study, end)
    for letter, axis in zip("abcdefghi", axes.flat, strict=False):
        axis.set_title(f"({letter}) {axis.get_title()}", fontsize=8.5)
        axis.minorticks_off()
    shown = dict(zip(*reversed(axes[0, 2].get_legend_handles_labels()), strict=True))
    shown |= dict(zip(*reversed(axes[-1, 0].get_legend_handles_labels()), strict=True))
    figure.legend(shown.values(), shown, loc="upper center", bbox_to_anchor=(0.5, 0.02), ncols=3)
    figure.tight_layout(w_pad=0.6, h_pad=0.9)
    return save(figure, path)


def draw_training(row, study: dict[str, Any]) -> None:
    """Draw cosines of means, cosines in a task and norms of a study."""
    steps, alpha = study["steps"], study["settings"]["inner_lr"]
    row[2].set_yscale("log")
    for name in study["looks"][0][0]["norm"]:
        if name == "maml":
            continue
        draw_curve(
            row[0], steps, [[1 - at["apart"][name] for at in run] for run in study["looks"]], name
        )
        draw_curve(
            row[1], steps, [[at["task_cosine"][name] for at in run] for run in study["looks"]], name
        )
        draw_curve(
            row[2],
            steps,
            [[at["norm"][name] / at["norm"]["maml"] for at in run] for run in study["looks"]],
            name,
        )
    row[2].plot(
        steps,
        np.median([[at["second_order"] for at in run] for run in study["looks"]], axis=0),
        **SHARE,
        zorder=1,
    )
    for axis, what in zip(
        row, ("cosine of means", "cosine in a task", "norm / MAML's"), strict=True
    ):
        axis.set_xscale("symlog", linthresh=1, linscale=0.5)
        axis.set_xlim(-0.1, steps[-1] * 1.15)
        axis.set_xlabel("meta-step")
        axis.set_title(f"{study['name']}: {what}")
    for axis in row[:2]:
        axis.axhline(0, color="0.7", linewidth=0.6, zorder=0)
        axis.set_ylim(-0.45, 1.02)
    row[0].set_ylabel(rf"$\alpha = {alpha:g}$, $k = {study['settings']['k']}$")
    row[2].axhline(1, color="0.7", linewidth=0.6, zorder=0)


def draw_alphas(axis, study: dict[str, Any], end: int) -> None:
    """Draw 1 - cosine of means against alpha, at one end of a study.

    A vertical line marks the alpha of the training.
    """
    runs, steps = [run[end] for run in study["ends"]], study["steps"]
    axis.set_xscale("log")
    axis.set_yscale("log")
    for name in STYLES:
        draw_curve(axis, study["alphas"], [[at["apart"][name] for at in run] for run in runs], name)
    label = r"$\alpha$ of the training"
    axis.axvline(
        study["settings"]["inner_lr"], 0.38, color="0.4", linewidth=0.7, zorder=0, label=label
    )  # above the slopes
    fitted = [(name, slope) for name, slope in slopes(study, end).items() if name != "reptile"]
    for row, (name, slope) in enumerate(reversed(fitted)):
        at = dict(transform=axis.transAxes, ha="right", fontsize=7.5, color=STYLES[name]["color"])
        axis.text(0.98, 0.05 + 0.11 * row, f"slope {slope:.2f}", **at)
    axis.set_ylim(1e-16, 8)
    axis.set_yticks([1e-15, 1e-10, 1e-5, 1])
    axis.set_xlabel(r"inner step size $\alpha$")
    axis.set_title(f"{study['name']}: 1 $-$ cosine, meta-step {steps[end]:,}")


def slopes(study: dict[str, Any], end: int) -> dict[str, float]:
    """Slopes of log(1 - cosine) over log(alpha), for alpha up to ``FIT``."""
    alphas = np.array(study["alphas"])
    small = alphas <= FIT * 1.001  # include FIT itself despite rounding
    apart = {
        name: np.median([[at["apart"][name] for at in run[end]] for run in study["ends"]], axis=0)
        for name in STYLES
    }
    return {
        name: float(np.polyfit(np.log(alphas[small]), np.log(each[small]), 1)[0])
        for name, each in apart.items()
    }


def draw_curve(axis, x: Sequence[float], runs: Sequence[Sequence[float]], name: str) -> None:
    """Draw the median and the range over seeds.

    Linear axes omit the range of the series, which would cover everything.
    """
    runs = np.array(runs)
    axis.plot(
        x,
        np.median(runs, axis=0),
        **STYLES[name],
        markersize=3.5,
        markevery=max(1, len(x) // 8),
        mfc="white",
    )
    if len(runs) > 1 and (name in ("fomaml", "reptile") or axis.get_yscale() == "log"):
        axis.fill_between(
            x,
            runs.min(axis=0),
            runs.max(axis=0),
            color=STYLES[name]["color"],
            alpha=0.13,
            linewidth=0,
        )


if __name__ == "__main__":
    for each in run("microscope", __doc__, compute, draw)["studies"]:
        for at in (0, -1):
            cosines = {
                name: [run[at]["task_cosine"].get(name) for run in each["looks"]] for name in STYLES
            }
            where = f"{each['name']}, meta-step {each['steps'][at]}"
            print(f"{where}: cosines with MAML in a task {cosines}")
