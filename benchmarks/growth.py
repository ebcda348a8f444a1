"""Growth of a meta-step's time and memory with the size of its work.

    python benchmarks/growth.py [--out DIR] [--draw]

The work grows with tasks, inner steps, images in a mini-batch, filters and
threads. Reptile and MAML (second order) go through inner SGD, on the Omniglot
network, in float32, on random images drawn beforehand. One setting varies at a
time; the others are those of its ``Sweep``. Every measurement has its own
process. Time is the median of several steps. Memory is the peak by which the
process grows in its first step; it is read from /proc/self, so it needs Linux.
A thread goes through its tasks in chunks whose activations fit a cache, so
memory grows more slowly than work.

The notes above a panel are exponents p of b x^p, fitted through all values.
With an asterisk (MAML's memory against k) they are those of c + b k^p, since
for small k the activations at one point outweigh the iterates. For threads they
are the speedup and the growth of memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ours import Fixed
from peers.timing import resident, resident_after_reset

from minimeta import (
    MAML,
    SGD,
    Minibatches,
    MinibatchSchedule,
    Objective,
    Reptile,
    SoftmaxCrossEntropy,
    omniglot_convnet,
)
from minimeta.files import write_atomically
from minimeta.runs.provenance import provenance
from minimeta.training.meta_training import MetaTraining

HERE = Path(__file__).resolve().parent
WAYS, STEPS = 5, 5


@dataclass(frozen=True)
class Case:
    """The settings of one measurement."""

    algorithm: str = "reptile"
    store: str = "points"
    tasks: int = 5
    k: int = 5
    size: int = 10
    filters: int = 64
    workers: int = 1


@dataclass(frozen=True)
class Sweep:
    """``setting`` takes each of ``values``; the others are as in ``base``."""

    setting: str
    label: str
    values: tuple[int, ...]
    base: Case = Case()
    methods: tuple[str, ...] = ("Reptile", "MAML")


METHODS = {
    "Reptile": dict(algorithm="reptile"),
    "MAML": dict(algorithm="maml"),
    "iterates": dict(algorithm="maml", store="iterates"),
    "checkpoints": dict(algorithm="maml", store="checkpoints"),
}
SWEEPS = (
    Sweep("tasks", "tasks $T$", (1, 2, 4, 8, 16)),
    # Few images and many steps, so that the iterates need more memory than the
    # activations at one step.
    Sweep("k", "inner steps $k$", (4, 8, 16, 32, 64, 128), Case(tasks=1, size=5), tuple(METHODS)),
    Sweep("size", "images $N$", (4, 8, 16, 32, 64)),
    Sweep("filters", "filters", (8, 16, 32, 64, 128)),
    Sweep("workers", "threads", (1, 2, 4), Case(tasks=8)),
)
# Okabe and Ito's colours, which colour-blind readers tell apart.
STYLES = {
    "Reptile": dict(color="black", marker="o", linestyle="-"),
    "MAML": dict(color="#0072B2", marker="s", linestyle="--"),
    "iterates": dict(color="#D55E00", marker="^", linestyle="-."),
    "checkpoints": dict(color="#009E73", marker="D", linestyle=":"),
}
NAMES = {
    "Reptile": "Reptile",
    "MAML": "MAML, points",
    "iterates": "MAML, iterates",
    "checkpoints": "MAML, checkpoints",
}
SMALL = 7  # points, the least that is legible in print
QUANTITIES = {"seconds": ("time", "ms", 1e-3), "bytes": ("memory", "MiB", 2**20)}


# One measurement, in this process.


def meta_training(case: Case) -> MetaTraining:
    """A function that makes a meta-step of ``case.k`` inner steps.

    MAML has one more mini-batch, on which it scores.
    """
    rng = np.random.default_rng(0)
    lead = (case.k + (case.algorithm == "maml"), case.tasks, case.size)
    minibatches = Minibatches(
        rng.random((*lead, 28, 28, 1), dtype=np.float32), rng.integers(0, WAYS, lead)
    )
    rule = SGD(1e-3)
    return MetaTraining(
        Objective(omniglot_convnet(WAYS, case.filters), SoftmaxCrossEntropy()),
        MAML(rule, case.store) if case.algorithm == "maml" else Reptile(rule),
        Fixed(minibatches),
        MinibatchSchedule(lead[0], case.size),
        SGD(1e-3),
        STEPS + 1,
        1e-3,
        case.tasks,
        workers=case.workers,
    )


def measure(case: Case, steps: int = STEPS) -> dict[str, float]:
    """Median seconds of a meta-step, and the bytes that the first one adds."""
    warm_up(case)
    training = meta_training(case)
    state, times = training.start(), []
    with training.stepper() as step:
        before = resident_after_reset()
        for _ in range(steps + 1):
            started = time.perf_counter()
            state, _ = step(state)
            times.append(time.perf_counter() - started)
            if len(times) == 1:
                grown = resident("VmHWM") - before
    return {"seconds": float(np.median(times[1:])), "bytes": grown}


def warm_up(case: Case) -> None:
    """Do one-time allocations: lazy imports and buffers of BLAS."""
    tiny = meta_training(replace(case, tasks=1, k=1, size=2, filters=2))
    with tiny.stepper() as step:
        step(tiny.start())
        square = np.ones((1024, 1024), np.float32)
        square @ square


# All of them.


def measured_apart(case: Case) -> dict[str, float]:
    """``measure`` in a fresh process."""
    command = [sys.executable, __file__, "--measure", json.dumps(asdict(case))]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def compute() -> dict[str, Any]:
    """Every curve: values, time and memory at each value, and growth."""
    curves = []
    for sweep in SWEEPS:
        for method in sweep.methods:
            base = replace(sweep.base, **METHODS[method])
            points = [
                measured_apart(replace(base, **{sweep.setting: value})) for value in sweep.values
            ]
            settings = {
                name: value for name, value in asdict(base).items() if name != sweep.setting
            }
            curve = {
                "setting": sweep.setting,
                "method": method,
                "fixed": settings,
                "values": sweep.values,
            }
            for quantity in QUANTITIES:
                curve[quantity] = [point[quantity] for point in points]
            curves.append(curve | {"growth": growth(curve)})
            print(sweep.setting, method, curves[-1]["growth"], flush=True)
    return {"provenance": provenance(), "steps": STEPS, "curves": curves}


def growth(curve: dict[str, Any]) -> dict[str, Any]:
    """The numbers in the legend of a curve."""
    values, seconds, taken = (curve[name] for name in ("values", *QUANTITIES))
    if curve["setting"] == "workers":
        return {
            "speedup": round(seconds[0] / min(seconds), 3),
            "memory_ratio": round(max(taken) / taken[0], 3),
        }
    found: dict[str, Any] = {name: round(exponent(values, curve[name]), 3) for name in QUANTITIES}
    if curve["setting"] == "k" and curve["fixed"]["algorithm"] == "maml":
        constant, power = above_constant(values, taken)
        found["bytes_above_constant"] = {"constant": round(constant), "exponent": round(power, 3)}
    return found


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of y = b x^p, by least squares on the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def above_constant(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """a and p of y = a + b x^p, with a, b >= 0.

    The fit minimises the squared relative errors. It is linear for each p on a
    grid.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    best = np.inf, 0.0, 0.0
    for p in np.arange(0.05, 3, 0.005):
        columns = np.stack([1 / y, x**p / y], axis=1)
        a, b = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)[0]
        if a < 0:
            a, b = 0.0, columns[:, 1].sum() / (columns[:, 1] ** 2).sum()
        error = ((columns @ (a, b) - 1) ** 2).sum() if b >= 0 else np.inf
        best = min(best, (error, float(a), float(p)))
    return best[1:]


# The figure.


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw time above and memory below, a column per varied setting."""
    sys.path.append(str(HERE.parent / "figures"))
    from matplotlib.ticker import FuncFormatter, NullLocator
    from style import DOUBLE, plt, save

    figure, axes = plt.subplots(
        2,
        len(SWEEPS),
        figsize=(DOUBLE, 4.2),
        sharex="col",
        sharey="row",
        layout="constrained",
    )
    letters = iter("abcdefghij")
    for row, quantity in zip(axes, QUANTITIES, strict=True):
        for axis, sweep in zip(row, SWEEPS, strict=True):
            curves = [curve for curve in result["curves"] if curve["setting"] == sweep.setting]
            draw_panel(axis, curves, quantity, next(letters))
        what, unit, _ = QUANTITIES[quantity]
        row[0].set_ylabel(f"{what} of a meta-step, {unit}")
        row[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        row[0].yaxis.set_minor_locator(NullLocator())
    for axis, sweep in zip(axes[1], SWEEPS, strict=True):
        axis.set_xlabel(sweep.label)
        axis.set_xticks(sweep.values, [str(value) for value in sweep.values])
        axis.minorticks_off()
    named: dict[str, Any] = {}
    for axis in axes[0]:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(
        named.values(), named.keys(), loc="outside upper center", ncols=len(named), handlelength=3
    )
    return save(figure, path)


def draw_panel(axis, curves: list[dict[str, Any]], quantity: str, letter: str) -> None:
    """Draw curves, with their growth above the panel."""
    unit = QUANTITIES[quantity][2]
    marks = []
    for curve in curves:
        style = STYLES[curve["method"]] | dict(markersize=3.5, markerfacecolor="white")
        values = np.array(curve[quantity]) / unit
        axis.loglog(curve["values"], values, label=NAMES[curve["method"]], **style)
        marks += axis.plot([], [], **(style | dict(linestyle="none")))
    axis.legend(
        marks,
        [said(curve, quantity) for curve in curves],
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        fontsize=SMALL,
        handlelength=0.8,
        handletextpad=0.2,
        columnspacing=0.6,
        labelspacing=0.1,
        borderaxespad=0,
        borderpad=0.2,
    )
    axis.text(0.04, 0.98, f"({letter})", transform=axis.transAxes, va="top")
    axis.tick_params(labelsize=SMALL)


def said(curve: dict[str, Any], quantity: str) -> str:
    """A curve's growth as a short text."""
    found = curve["growth"]
    if curve["setting"] == "workers":
        return f"{found['speedup' if quantity == 'seconds' else 'memory_ratio']:.2f}×"
    if quantity == "bytes" and "bytes_above_constant" in found:
        return f"{found['bytes_above_constant']['exponent']:.2f}*"
    return f"{found[quantity]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", help="folder (default: benchmarks/results)"
    )
    parser.add_argument("--draw", action="store_true", help="only redraw from growth.json")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        print(json.dumps(measure(Case(**json.loads(options.measure)))))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "growth.json"
    if not options.draw:
        text = json.dumps(compute(), indent=1) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))
    print("written:", *(str(each) for each in [path, *draw(json.loads(path.read_text()), path)]))


if __name__ == "__main__":
    main()
