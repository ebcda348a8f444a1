"""Taylor remainders of MAML, FOMAML and Reptile against alpha.

The relative remainder is |g - series(alpha)| / |g at alpha = 0|, with norms
over all parameters of two tasks. At order n it falls like alpha^(n+1)
(equations 9-27 of the Reptile paper, and one order further), down to float64
rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from command import run
from style import DOUBLE, plt, save

import minimeta as mm
from minimeta.theory import taylor

SEED, TASKS, MINIBATCHES, EXAMPLES = 0, 2, 4, 10
ALPHAS = np.logspace(-6.5, -1, 45)
FIT = (1e-5, 1e-3)  # range of the fit: above rounding, below the next order
ORDERS = {1: "first order", 2: "second order"}
ALGORITHMS = {"maml": "MAML", "fomaml": "FOMAML", "reptile": "Reptile"}
STYLES = {
    1: dict(color="black", marker="o", linestyle="-"),
    2: dict(color="tab:blue", marker="s", linestyle="--"),
}
ROUNDING = float(np.finfo(np.float64).eps)


def problems(rng: np.random.Generator) -> dict[str, tuple[mm.Objective, mm.Minibatches]]:
    """Two smooth networks, each with k mini-batches of random data per task."""
    lead = (MINIBATCHES, TASKS, EXAMPLES)
    mlp = mm.Objective(mm.mlp([4, 16, 16, 2], "tanh"), mm.MeanSquaredError())
    stack = mm.layers.Conv2D(1, 4, stride=2), mm.layers.BatchNorm(4), mm.layers.Tanh()
    network = mm.Network((8, 8, 1), (*stack, mm.layers.Flatten(), mm.layers.Dense(64, 5)))
    convolution = mm.Objective(network, mm.SoftmaxCrossEntropy())
    return {
        "tanh MLP": (
            mlp,
            mm.Minibatches(rng.standard_normal((*lead, 4)), rng.standard_normal((*lead, 2))),
        ),
        "conv. + batch norm": (
            convolution,
            mm.Minibatches(rng.standard_normal((*lead, 8, 8, 1)), rng.integers(0, 5, lead)),
        ),
    }


def compute() -> dict[str, Any]:
    """Remainders and fitted slopes by network, algorithm and order."""
    rng = np.random.default_rng(SEED)
    panels = []
    for network, (objective, minibatches) in problems(rng).items():
        phi = objective.init(rng, np.float64)
        measured = [taylor.gradients(objective, phi, minibatches, alpha) for alpha in ALPHAS]
        for order in ORDERS:
            predicted = taylor.expand(objective, phi, minibatches, order)
            for name in ALGORITHMS:
                left = remainders([getattr(g, name) for g in measured], getattr(predicted, name))
                panels.append(
                    {
                        "network": network,
                        "algorithm": name,
                        "order": order,
                        "slope": slope(left),
                        "remainders": left.tolist(),
                    }
                )
    settings = {
        "k": MINIBATCHES,
        "tasks": TASKS,
        "examples": EXAMPLES,
        "dtype": "float64",
        "fit": FIT,
    }
    return {"seed": SEED, "settings": settings, "alphas": ALPHAS.tolist(), "panels": panels}


def remainders(measured: list[np.ndarray], series: taylor.Series) -> np.ndarray:
    """|g - series(alpha)| / |g at alpha = 0| for each alpha."""
    left = [np.linalg.norm(g - series(alpha)) for g, alpha in zip(measured, ALPHAS, strict=True)]
    return np.array(left) / np.linalg.norm(series.terms[0])


def slope(left: np.ndarray) -> float:
    """Slope of log(remainder) against log(alpha), over the range ``FIT``."""
    # Include both ends despite rounding.
    first, last = np.searchsorted(ALPHAS, np.array(FIT) * (0.999, 1.001))
    clean = slice(first, last)
    return float(np.polyfit(np.log(ALPHAS[clean]), np.log(left[clean]), 1)[0])


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw a panel for each network and algorithm, with both orders."""
    networks = list(dict.fromkeys(panel["network"] for panel in result["panels"]))
    figure, axes = plt.subplots(
        len(networks), len(ALGORITHMS), figsize=(DOUBLE, 4.0), sharex=True, sharey=True
    )
    for row, network in zip(axes, networks, strict=True):
        for axis, (name, label) in zip(row, ALGORITHMS.items(), strict=True):
            curves = [
                each
                for each in result["panels"]
                if (each["network"], each["algorithm"]) == (network, name)
            ]
            draw_panel(axis, np.array(result["alphas"]), curves, result["settings"]["fit"])
            axis.set_title(f"{label}, {network}", fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel(r"inner step size $\alpha$")
    for axis in axes[:, 0]:
        axis.set_ylabel("relative remainder")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncols=4,
    )
    figure.tight_layout(w_pad=0.8, h_pad=0.8)
    return save(figure, path)


def draw_panel(axis, alphas: np.ndarray, curves: list[dict[str, Any]], fit: list[float]) -> None:
    """Draw the remainders with their slopes and the predicted slopes."""
    axis.axvspan(*fit, color="0.92", linewidth=0, zorder=0, label="range of the fit")
    for curve in curves:
        order, colour = curve["order"], STYLES[curve["order"]]["color"]
        axis.loglog(
            alphas,
            curve["remainders"],
            **STYLES[order],
            label=f"after {ORDERS[order]}",
            markersize=3.5,
            markevery=4,
            markerfacecolor="white",
        )
        draw_triangle(
            axis, float(np.interp(1e-3, alphas, curve["remainders"])), order + 1, above=order == 1
        )
        at, offset, side = 1e-4, *(((-2, 7), "right") if order == 1 else ((5, -15), "left"))
        axis.annotate(
            f"slope {curve['slope']:.2f}",
            (at, np.interp(at, alphas, curve["remainders"])),
            xytext=offset,
            textcoords="offset points",
            ha=side,
            fontsize=8,
            color=colour,
        )
    axis.axhline(
        ROUNDING, color="0.4", linestyle=":", linewidth=0.9, label="float64 rounding", zorder=1
    )
    axis.set_xticks([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1])
    axis.set_ylim(3e-17, 30)
    axis.set_yticks([1e-16, 1e-12, 1e-8, 1e-4, 1])
    axis.minorticks_off()


def draw_triangle(axis, height: float, slope: int, above: bool) -> None:
    """Draw a triangle of this slope beside the line through (1e-3, height).

    It is one decade wide, from alpha = 1e-3.
    """
    low, high = height * np.array([1, 10.0**slope]) * (20 if above else 1 / 20)
    corner = (1e-3, high) if above else (1e-2, low)
    axis.plot(
        *zip((1e-3, low), (1e-2, high), corner, (1e-3, low), strict=True),
        color="0.35",
        linewidth=0.7,
    )
    offset, side = ((-2, -3), "right") if above else ((2, -3), "left")
    at = corner[0], np.sqrt(low * high)
    axis.annotate(
        str(slope), at, xytext=offset, textcoords="offset points", ha=side, fontsize=8, color="0.2"
    )


if __name__ == "__main__":
    drawn = run("taylor_remainders", __doc__, compute, draw)
    for each in drawn["panels"]:
        algorithm, order = ALGORITHMS[each["algorithm"]], ORDERS[each["order"]]
        print(f"{each['network']:20}{algorithm:9}{order:14}slope {each['slope']:.4f}")
