"""Coefficients of expected updates, beside the paper's (equations 33-41).

An expected update of MAML, FOMAML or Reptile is c1 AvgGrad - c2 alpha
AvgGradInner + O(alpha^2). Each update is computed exactly, at several alpha, as
the mean over all sequences of k of a task's two mini-batches.
``taylor.recover_coefficients`` fits c1 and c2 to these updates.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from command import run
from style import DOUBLE, plt, save

import minimeta as mm
from minimeta.theory import taylor

SEED, TASKS, MINIBATCHES, EXAMPLES = 0, 3, 2, 5
KS = range(2, 9)
ALPHAS = np.linspace(0.00125, 0.01, 8)
STYLES = {
    "maml": dict(
        label="MAML", color="black", marker="o", linestyle="-", markersize=7, markerfacecolor="none"
    ),
    "fomaml": dict(
        label="FOMAML",
        color="tab:blue",
        marker="x",
        linestyle="--",
        markersize=5,
        markerfacecolor="none",
    ),
    "reptile": dict(
        label="Reptile",
        color="tab:red",
        marker="^",
        linestyle=":",
        markersize=5,
        markerfacecolor="none",
    ),
}
PREDICTED = {"c1": ("1", "1", "k"), "c2": ("2(k-1)", "k-1", "k(k-1)/2")}


def compute() -> dict[str, Any]:
    """c1 and c2, recovered and predicted, for each algorithm and k."""
    rng = np.random.default_rng(SEED)
    objective = mm.Objective(mm.mlp([2, 8, 8, 2], "tanh"), mm.MeanSquaredError())
    phi = objective.init(rng, np.float64)
    minibatches = mm.Minibatches(*rng.standard_normal((2, MINIBATCHES, TASKS, EXAMPLES, 2)))
    averages = (
        taylor.avg_grad(objective, phi, minibatches),
        taylor.avg_grad_inner(objective, phi, minibatches),
    )
    rows = []
    for k in KS:
        every = taylor.sequences(minibatches, k)
        measured = [taylor.gradients(objective, phi, every, alpha) for alpha in ALPHAS]
        for name in STYLES:
            updates = [mm.mean(getattr(each, name)) for each in measured]
            recovered, predicted = (
                taylor.recover_coefficients(ALPHAS, updates, *averages),
                taylor.coefficients(name, k),
            )
            rows.append(
                {
                    "algorithm": name,
                    "k": k,
                    "recovered": recovered._asdict(),
                    "predicted": predicted._asdict(),
                }
            )
    settings = {
        "tasks": TASKS,
        "minibatches": MINIBATCHES,
        "examples": EXAMPLES,
        "dtype": "float64",
    }
    return {"seed": SEED, "settings": settings, "alphas": ALPHAS.tolist(), "rows": rows}


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """c1 and c2 against k: markers are recovered, lines are the paper's."""
    figure, axes = plt.subplots(1, 2, figsize=(DOUBLE, 2.6))
    for axis, (which, formulas) in zip(axes, PREDICTED.items(), strict=True):
        for (name, style), formula in zip(STYLES.items(), formulas, strict=True):
            rows = [row for row in result["rows"] if row["algorithm"] == name]
            ks = [row["k"] for row in rows]
            axis.plot(
                ks,
                [row["predicted"][which] for row in rows],
                **{**style, "label": None, "marker": "none"},
            )
            axis.plot(
                ks,
                [row["recovered"][which] for row in rows],
                **{**style, "label": None, "linestyle": "none"},
            )
            axis.plot([], [], **{**style, "label": f"{style['label']}: ${formula}$"})
        axis.set_xlabel("mini-batches a task, $k$")
        axis.set_ylabel(f"$c_{which[1]}$")
        axis.set_ylim(0)
        axis.legend(loc="upper left")
    axes[0].set_title("(a) coefficient of AvgGrad")
    axes[1].set_title(r"(b) coefficient of $-\alpha$ AvgGradInner")
    figure.tight_layout(w_pad=2)
    return save(figure, path)


def largest_errors(result: dict[str, Any]) -> dict[str, float]:
    """max |recovered - predicted| over all k, by algorithm and coefficient."""
    return {
        f"{style['label']} {which}": max(
            abs(row["recovered"][which] - row["predicted"][which])
            for row in result["rows"]
            if row["algorithm"] == name
        )
        for name, style in STYLES.items()
        for which in PREDICTED
    }


if __name__ == "__main__":
    for what, error in largest_errors(run("coefficients", __doc__, compute, draw)).items():
        print(f"{what:12} at most {error:.1e} from the paper's")
