"""Figure 2 of the Reptile paper: alternating moves towards two manifolds.

W1 and W2 are the solution manifolds of two tasks (Section 5.2), here circles.
The loss of a task is half the squared distance to its circle. Reptile's inner
steps go towards the nearest point of W1, then of W2, and so on. With a step
size epsilon that falls like 1 / i, the iterates converge to the point of least
mean squared distance. Between two disjoint circles, this point is the middle of
their gap.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from command import run
from style import SINGLE, plt, save

import minimeta as mm

CENTRES, RADII = np.array([[0.9, 2.9], [1.6, -2.3]]), np.array([2.1, 1.7])
START, INNER_STEPS, ALPHA, MOVES = np.array([-2.9, 0.2]), 5, 0.2, 200
EPSILON, HALVED_AFTER = 0.8, 10  # epsilon_i = EPSILON / (1 + i / HALVED_AFTER)
ARROWS = 8  # number of moves drawn as arrows; later moves are too short


def compute() -> dict[str, Any]:
    """The iterates of Reptile on the two tasks in turn, and the optimum."""
    objective, algorithm = mm.Sphere(2), mm.Reptile(mm.SGD(ALPHA))
    phi, iterates = START, [START]
    for move in range(MOVES):
        task = slice(move % 2, move % 2 + 1)
        minibatches = [(CENTRES[task, None], RADII[task, None])] * INNER_STEPS
        epsilon = EPSILON / (1 + move / HALVED_AFTER)
        phi = phi - epsilon * mm.mean(algorithm.direction(objective, phi, minibatches)[0])
        iterates.append(phi)
    best = optimum()
    settings = {
        "inner_steps": INNER_STEPS,
        "alpha": ALPHA,
        "epsilon": EPSILON,
        "halved_after": HALVED_AFTER,
        "moves": MOVES,
    }
    return {
        "seed": None,  # nothing is random
        "settings": settings,
        "circles": {"centres": CENTRES.tolist(), "radii": RADII.tolist()},
        "iterates": np.array(iterates).tolist(),
        "optimum": best.tolist(),
        "distance": [float(np.linalg.norm(each - best)) for each in iterates],
    }


def optimum() -> np.ndarray:
    """The middle of the gap between the circles."""
    between = CENTRES[1] - CENTRES[0]
    gap = np.linalg.norm(between) - RADII.sum()
    return CENTRES[0] + (RADII[0] + gap / 2) * between / np.linalg.norm(between)


def nearest(phi: np.ndarray, circles: dict[str, Any]) -> np.ndarray:
    """phi's nearest point on each circle, ``(2, 2)``."""
    offset = phi - np.array(circles["centres"])
    return phi - offset * (1 - np.array(circles["radii"]) / np.linalg.norm(offset, axis=1))[:, None]


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Both manifolds, the iterates, and the point they converge to."""
    figure, axis = plt.subplots(figsize=(SINGLE, 2.5))
    angles = np.linspace(0, 2 * np.pi, 721)
    for centre, radius in zip(*result["circles"].values(), strict=True):
        axis.plot(
            centre[0] + radius * np.cos(angles),
            centre[1] + radius * np.sin(angles),
            color="black",
            linewidth=1.6,
        )
    iterates, best = np.array(result["iterates"]), np.array(result["optimum"])
    axis.plot(
        *nearest(best, result["circles"]).T,
        color="0.45",
        linestyle=":",
        marker=".",
        markersize=5,
        linewidth=1,
    )
    axis.plot(*iterates[ARROWS:].T, color="tab:blue", linewidth=0.8)
    for start, end in pairwise(iterates[: ARROWS + 1]):
        arrow = dict(
            arrowstyle="-|>",
            color="tab:blue",
            linewidth=0.8,
            shrinkA=0,
            shrinkB=0,
            mutation_scale=7,
        )
        axis.annotate("", end, xytext=start, arrowprops=arrow)
    axis.plot(*iterates[0], "o", color="tab:blue", markersize=4)
    axis.plot(*best, "*", color="black", markersize=8, zorder=5)
    for text, at, offset in (
        (r"$\phi_0$", iterates[0], (-7, 6)),
        (r"$\phi_1$", iterates[1], (0, 5)),
        (r"$\phi_2$", iterates[2], (-3, -11)),
        (r"$\hat\phi$", best, (7, -3)),
        (r"$\mathcal{W}_1$", (2.4, 1.3), (4, -5)),
        (r"$\mathcal{W}_2$", (2.8, -1.1), (4, 0)),
    ):
        axis.annotate(text, at, xytext=offset, textcoords="offset points")
    axis.set_aspect("equal")
    axis.set_xlim(-3.2, 3.4)
    axis.set_ylim(-2.0, 2.2)
    axis.set_axis_off()
    figure.tight_layout(pad=0)
    return save(figure, path)


if __name__ == "__main__":
    drawn = run("fig2", __doc__, compute, draw)
    first, last = drawn["distance"][0], drawn["distance"][-1]
    print(f"distance to the optimum: {first:.3f} at the start, {last:.1e} after {MOVES} moves")
