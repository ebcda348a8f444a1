"""Draw speed.json: minimeta's time by the peers', and MAML's memory."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "figures"))

from matplotlib.legend import Legend
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from style import DOUBLE, plt, save

# Okabe and Ito's colours, which colour-blind readers tell apart.
STYLES = {
    "minimeta": dict(color="black", marker="o"),
    "JAX": dict(color="#0072B2", marker="s"),
    "JAX, checkpoint": dict(color="#56B4E9", marker="P"),
    "PyTorch": dict(color="#D55E00", marker="D"),
    "torch.func": dict(color="#E69F00", marker="^"),
    "torch.compile": dict(color="#CC79A7", marker="v"),
    "TorchOpt": dict(color="#009E73", marker="p"),
    "higher": dict(color="#F0E442", marker="*"),
}
WITHOUT_FAST, PRODUCTS = "minimeta, without fast", "matrix products at peak"
ORDER = (WITHOUT_FAST, *[name for name in STYLES if name != "minimeta"], PRODUCTS)
SMALL = 7  # points, the least that is legible in print
BAND = 0.8  # the part of a case's height that its marks take
Row = dict[str, Any]


def draw(results: dict[str, Any], path: Path) -> list[Path]:
    """Draw times beside memory, as PNG and PDF in the place of ``path``.

    Results may lack floors, variants, or either kind of case.
    """
    times = [case for case in results["cases"].values() if case["kind"] != "memory"]
    memories = {name: case for name, case in results["cases"].items() if case["kind"] == "memory"}
    figure = plt.figure(figsize=(DOUBLE, 5.8), layout="constrained")
    left, right = figure.add_gridspec(1, 2, width_ratios=(1.9, 1))
    legends, memory = right.subgridspec(2, 1, height_ratios=(1, 1.15)).subplots()
    time = figure.add_subplot(left)
    for axis in (time, memory):
        axis.tick_params(labelsize=SMALL)
    _draw_times(time, times)
    _draw_memory(memory, memories)
    legends.axis("off")
    handles, labels = time.get_legend_handles_labels()
    found = dict(zip(labels, handles, strict=True))
    _legend(
        legends,
        "upper left",
        "(a) best variant of each",
        {told: found[told] for told in ORDER if told in found},
    )
    lines, labels = memory.get_legend_handles_labels()
    _legend(legends, "lower left", "(b)", dict(zip(labels, lines, strict=True)))
    return save(figure, path)


def fastest(case: dict[str, Any]) -> dict[str, Row]:
    """For each peer, the row with the largest ratio of our time to theirs.

    Of our own variants, only the one without the extra ``fast`` is a peer.
    """
    best: dict[str, Row] = {}
    for row in case["entries"][1:]:
        told = f"minimeta, {row['variant']}" if row["peer"] == "minimeta" else row["peer"]
        if told not in ORDER or "ratio" not in row:
            continue
        if told not in best or row["ratio"]["median"] > best[told]["ratio"]["median"]:
            best[told] = row
    return {told: best[told] for told in ORDER if told in best}


def _draw_times(axis: Any, cases: list[dict[str, Any]]) -> None:
    """Draw a band per case: our time divided by each peer's, with quartiles."""
    for place, case in enumerate(cases):
        marks = {
            told: (row["ratio"]["median"], row["ratio"]["quartiles"])
            for told, row in fastest(case).items()
        }
        if "floor" in case:
            marks[PRODUCTS] = (case["floor"]["ratio"], [case["floor"]["ratio"]] * 2)
        for i, (told, mark) in enumerate(marks.items()):
            _draw_mark(axis, place + BAND * ((i + 0.5) / len(marks) - 0.5), told, *mark)
        if place % 2:
            axis.axhspan(place - 0.5, place + 0.5, color="0.95", linewidth=0, zorder=0)
    axis.axvline(1, color="black", linewidth=0.6, zorder=1)
    axis.set_xscale("log")
    _plain(axis.xaxis)
    axis.set_ylim(max(len(cases), 1) - 0.5, -0.5)
    axis.set_yticks(
        range(len(cases)), [_told(case) for case in cases], fontsize=SMALL, linespacing=1.1
    )
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("time of minimeta / time of the peer\n(left of 1: minimeta is faster)")
    axis.set_title("(a) time", loc="left")


def _draw_mark(axis: Any, height: float, told: str, ratio: float, quartiles: list[float]) -> None:
    low, high = quartiles
    # The text of a legend comes once, however many cases have the mark.
    known = axis.get_legend_handles_labels()[1]
    axis.errorbar(
        ratio,
        height,
        xerr=[[max(ratio - low, 0)], [max(high - ratio, 0)]],
        label="_" if told in known else told,
        **_mark(told),
    )


def _mark(told: str) -> dict[str, Any]:
    common = dict(linestyle="none", elinewidth=0.8, ecolor="0.3", zorder=3)
    if told == PRODUCTS:
        return common | dict(color="black", marker="|", markersize=8, markeredgewidth=1.5)
    edge = dict(markeredgecolor="black", markeredgewidth=0.4, markersize=5)
    if told == WITHOUT_FAST:
        return common | edge | dict(STYLES["minimeta"], markerfacecolor="white")
    return common | edge | STYLES[told]


def _legend(axis: Any, place: str, title: str, handles: dict[str, Any]) -> None:
    """Add a legend of a panel to an axis that holds legends alone."""
    if not handles:
        return
    legend = Legend(
        axis,
        handles.values(),
        handles.keys(),
        loc=place,
        title=title,
        title_fontsize=SMALL + 1,
        fontsize=SMALL,
        handlelength=2.6,
        labelspacing=0.3,
        borderpad=0,
        borderaxespad=0,
        alignment="left",
    )
    axis.add_artist(legend)


def _told(case: dict[str, Any]) -> str:
    """The case and our time, in lines that fit beside the axis."""
    ours = case["entries"][0]["milliseconds"]["median"]
    return "\n".join(
        [*textwrap.wrap(case["title"], 36, break_on_hyphens=False), f"minimeta: {_time(ours)}"]
    )


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1e3:.3g} s"


def _plain(axis: Any) -> None:
    """Ticks such as 0.03, 0.1, 0.3 on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1, 3), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _draw_memory(axis: Any, cases: dict[str, Any]) -> None:
    """Draw bytes against inner steps, a line for each variant of each peer."""
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for name, case in cases.items():
        for row in case["entries"]:
            if "bytes" in row and not row["variant"].endswith("without fast"):
                lines.setdefault((row["peer"], row["variant"]), []).append(
                    (int(name.split("-")[1]), row["bytes"] / 2**20)
                )
    shapes: dict[str, int] = {}
    for (peer, variant), points in lines.items():
        number = shapes[peer] = shapes.get(peer, -1) + 1
        axis.plot(
            *zip(*points, strict=True),
            label=f"{peer}, {variant}" if peer == "minimeta" else peer,
            color=STYLES[peer]["color"],
            marker="o^d"[number] if peer == "minimeta" else STYLES[peer]["marker"],
            markersize=4,
            markeredgecolor="black",
            markeredgewidth=0.4,
            linestyle=("-", "--", ":")[number],
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    for each in (axis.xaxis, axis.yaxis):
        _plain(each)
    axis.set_xlabel("inner steps")
    axis.set_ylabel("MiB added by a MAML gradient")
    axis.set_title("(b) memory", loc="left")
