"""Draw speed.json: the peers' times by minimeta's, and MAML's memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "figures"))

from style import DOUBLE, plt, save

COLORS = {
    "minimeta": "black",
    "JAX": "tab:blue",
    "JAX, checkpoint": "tab:cyan",
    "PyTorch": "tab:red",
    "torch.func": "tab:orange",
    "torch.compile": "tab:brown",
    "TorchOpt": "tab:green",
    "higher": "tab:purple",
}
Row = dict[str, Any]


def draw(results: dict[str, Any], path: Path) -> list[Path]:
    """Draw times beside memory, as PNG and PDF in the place of ``path``."""
    times = {name: case for name, case in results["cases"].items() if case["kind"] != "memory"}
    memories = {name: case for name, case in results["cases"].items() if case["kind"] == "memory"}
    bars = sum(len(_fastest(case)) + 1 for case in times.values())
    figure, axes = plt.subplots(
        1,
        2,
        figsize=(1.6 * DOUBLE, max(3.0, 0.19 * bars)),
        width_ratios=(2, 1),
        layout="constrained",
    )
    _draw_times(axes[0], times, results["aims"])
    _draw_memory(axes[1], memories)
    return save(figure, path)


def _fastest(case: dict[str, Any]) -> list[Row]:
    """For each peer, the row with the largest ratio of our time to theirs."""
    best: dict[str, Row] = {}
    for row in case["entries"][1:]:
        found = best.get(_label(row))
        if "ratio" in row and (found is None or row["ratio"]["median"] > found["ratio"]["median"]):
            best[_label(row)] = row
    return list(best.values())


def _label(row: Row) -> str:
    """The name under which a row competes.

    Each of our variants has its own name. Of each peer only the fastest is
    drawn. TorchOpt under vmap counts as torch.func.
    """
    told = row["peer"] == "minimeta" or (row["peer"], row["variant"]) == ("TorchOpt", "vmap")
    return f"{row['peer']}, {row['variant']}" if told else row["peer"]


def _draw_times(axis: Any, cases: dict[str, Any], aims: list[dict[str, Any]]) -> None:
    """Draw a bar per peer: time divided by ours, with quartiles and aim."""
    height, places, labels = 0, [], []
    for name, case in cases.items():
        ours = case["entries"][0]["milliseconds"]["median"]
        axis.text(
            1.0,
            height,
            f" {case['title']}: {_time(ours)}",
            va="center",
            ha="left",
            fontsize=8,
            weight="bold",
        )
        for row in _fastest(case):
            height += 1
            places.append(height)
            labels.append(_label(row))
            _draw_bar(axis, height, row)
            for aim in aims:
                if (
                    aim["case"] == name
                    and row["peer"] in aim["peers"]
                    and aim["variant"] in (None, row["variant"])
                ):
                    axis.plot(
                        [1 / aim["at_most"]] * 2,
                        [height - 0.45, height + 0.45],
                        color="black",
                        linewidth=1.8,
                        zorder=1,
                    )
        height += 1
    axis.axvline(1, color="black", linewidth=0.6)
    axis.set_xscale("log")
    axis.set_ylim(height, -1)
    axis.set_yticks(places, labels, fontsize=7)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("time by minimeta's, float32; a tick: our aim, a line at 1: minimeta")
    axis.set_title("(a) time")


def _draw_bar(axis: Any, height: float, row: Row) -> None:
    low, high = (1 / row["ratio"]["quartiles"][i] for i in (1, 0))
    ratio = 1 / row["ratio"]["median"]
    axis.barh(height, ratio - 1, left=1, height=0.75, color=COLORS[row["peer"]], alpha=0.75)
    axis.plot([low, high], [height, height], color="black", linewidth=0.8)
    place = max(ratio, high, 1)
    label = f" {ratio:.2g}, {_time(row['milliseconds']['median'])}"
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    axis.text(1.03 * place, height, label, va="center", fontsize=6.5, bbox=box, zorder=2)


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1e3:.3g} s"


def _draw_memory(axis: Any, cases: dict[str, Any]) -> None:
    """Draw bytes against inner steps, a line for each variant of each peer."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for name, case in cases.items():
        for row in case["entries"]:
            if "bytes" in row:
                lines.setdefault((row["peer"], row["variant"]), []).append(
                    (int(name.split("-")[1]), row["bytes"] / 2**20)
                )
    shapes: dict[str, int] = {}
    for (peer, variant), points in lines.items():
        number = shapes[peer] = shapes.get(peer, -1) + 1
        label = variant.removeprefix("map,scan,").removesuffix(",checkpoint")
        style = dict(
            color=COLORS[peer],
            marker="os^Dv"[number],
            linestyle=("-", "--", ":", "-.", "-")[number],
        )
        axis.plot(*zip(*points, strict=True), label=f"{peer}, {label}", markersize=3.5, **style)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("inner steps")
    axis.set_ylabel("MiB added by one MAML gradient")
    axis.set_title("(b) memory")
    if lines:
        axis.legend(fontsize=7)
