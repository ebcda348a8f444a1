"""Figure 4 of the Reptile paper: overlapping mini-batches.

The task is 5-way 5-shot Omniglot with the settings of Figure 3: inner SGD with
steps of 0.003 on the sum over a mini-batch's images, one task per meta-step.
Training has 20 images per class. The panels show the test accuracy at the end
against (a) the number of inner steps on mini-batches of 25 images, (b) the size
of the mini-batches at 4 inner steps, (c) epsilon at 4 inner steps on 50 images.

With cycling, Reptile and FOMAML cut their mini-batches from passes over the
same 100 images, so the fifth mini-batch of 25 begins a second pass. With
replacement, FOMAML draws each mini-batch independently. With a separate tail,
FOMAML draws its last mini-batch from 5 held-out images per class: always 25
images, which leaves 75 images for the inner steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fig3
import markdown_tables
from command import Sweep, run_sweep, scaled, scored, told_scored
from style import DOUBLE, plt, save

from minimeta.runs.settings import Settings
from minimeta.runs.sweep import Finished, Job, Work

META_STEPS, SHOTS, TAIL_SHOTS, TASKS = 40_000, 20, 5, 300
_BASE = fig3.CURVES["sum4"][1].changed(shots=SHOTS)
_FOMAML = dict(algorithm="fomaml", fomaml_update="step")

CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "reptile": ("Reptile, cycling", dict(algorithm="reptile")),
    "separate": (
        "FOMAML, separate tail",
        dict(_FOMAML, tail="separate", shots=SHOTS - TAIL_SHOTS, tail_shots=TAIL_SHOTS),
    ),
    "replacement": (
        "FOMAML, shared tail, replacement",
        dict(_FOMAML, order="replacement"),
    ),
    "cycle": ("FOMAML, shared tail, cycling", _FOMAML),
}
# Label, setting, its values, and other settings. Panel (c) has mini-batches of
# 50 images, since mini-batches of 25 would not overlap.
PANELS: dict[str, tuple[str, str, tuple[float, ...], dict[str, Any]]] = {
    "a": ("inner steps", "k", (2, 3, 4, 5, 6, 8, 10), {}),
    "b": ("images in a mini-batch", "size", (10, 25, 50, 75, 100), {}),
    "c": ("outer step size $\\epsilon$", "epsilon", (0.0625, 0.25, 1.0), dict(size=50)),
}
COMPARED = (("a", 5, 4), ("a", 10, 4), ("b", 50, 25), ("b", 100, 25))


def settings_of(panel: str, curve: str, value: float) -> Settings:
    """One point of one curve."""
    _, setting, _, fixed = PANELS[panel]
    return _BASE.changed(**(CURVES[curve][1] | fixed | {setting: value}))


def _points() -> dict[str, Settings]:
    """Name and settings of each run; panels share runs of equal settings."""
    named = {}
    for panel, (_, _, values, _) in PANELS.items():
        for curve in CURVES:
            for value in values:
                settings = settings_of(panel, curve, value)
                k, size, epsilon = (settings.flags()[name] for name in ("k", "size", "epsilon"))
                named[f"{curve}-k{k}-size{size}-epsilon{epsilon:g}"] = settings
    return named


def jobs(budget: float, tasks: int | None = None) -> list[Job]:
    """A run for each point."""
    steps, count = scaled(META_STEPS, budget), tasks or scored(TASKS, budget)
    by = {"tasks": count, "queries": fig3.QUERIES}
    return [
        Job(
            name,
            each.changed(iterations=steps),
            by=by,
            work=Work(at_end=count, examples=fig3.work_of(each)),
        )
        for name, each in _points().items()
    ]


def summary(
    finished: dict[str, Finished], budget: float, tasks: int | None = None
) -> dict[str, Any]:
    """Accuracy at each point of each panel, and differences."""
    names = {settings: name for name, settings in _points().items()}

    def result_of(panel: str, curve: str, value: float) -> dict[str, Any]:
        return finished[names[settings_of(panel, curve, value)]].result

    panels = {
        panel: {
            curve: [[value, fig3.without_tasks(result_of(panel, curve, value))] for value in values]
            for curve in CURVES
        }
        for panel, (_, _, values, _) in PANELS.items()
    }
    differences = [
        {"panel": panel, "of": one, "less": other}
        | {
            curve: fig3.difference(result_of(panel, curve, one), result_of(panel, curve, other))
            for curve in CURVES
        }
        for panel, one, other in COMPARED
    ]
    steps = scaled(META_STEPS, budget)
    settings = {
        curve: settings_of("a", curve, 4).changed(iterations=steps).flags() for curve in CURVES
    }
    return {
        "tasks": tasks or scored(TASKS, budget),
        "queries": fig3.QUERIES,
        "panels": panels,
        "differences": differences,
        "settings": settings,
    }


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Draw three panels with one scale of accuracy, and write the table."""
    styles = {
        "reptile": ("black", "-", "o"),
        "separate": ("tab:blue", "--", "s"),
        "replacement": ("tab:green", "-.", "D"),
        "cycle": ("tab:red", ":", "^"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(DOUBLE, 2.5), sharey=True)
    for axis, (panel, curves) in zip(axes, result["panels"].items(), strict=True):
        for curve, points in curves.items():
            colour, line, mark = styles[curve]
            values, scores = zip(*points, strict=True)
            means, halves = ([score[key] for score in scores] for key in ("mean", "interval95"))
            axis.errorbar(
                values,
                means,
                halves,
                color=colour,
                linestyle=line,
                marker=mark,
                markersize=3.5,
                elinewidth=0.6,
                label=CURVES[curve][0],
            )
        axis.set_title(f"({panel})")
        axis.set_xlabel(PANELS[panel][0])
    axes[2].set_xscale("log", base=2)
    axes[2].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0].set_ylabel("test accuracy, %")
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc="upper center",
        bbox_to_anchor=(0.5, 0.04),
        ncols=2,
    )
    if remark := told_scored(result["tasks"], TASKS):
        figure.suptitle(remark, fontsize=8)
    figure.tight_layout(w_pad=0.6)
    path.with_suffix(".md").write_text(table(result))
    return [*save(figure, path), path.with_suffix(".md")]


def table(result: dict[str, Any]) -> str:
    """A table for each panel, and one of differences, as Markdown."""
    tables = []
    for panel, curves in result["panels"].items():
        _, setting, values, _ = PANELS[panel]
        rows = {
            CURVES[curve][0]: [fig3.said(score) for _, score in points]
            for curve, points in curves.items()
        }
        tables.append(
            markdown_tables.table(
                f"({panel})", [f"{setting} = {value:g}" for value in values], rows
            )
        )
    differences = result["differences"]
    rows = {
        CURVES[curve][0]: [fig3.said(each[curve], "+") for each in differences] for curve in CURVES
    }
    head = [
        f"{PANELS[each['panel']][1]} = {each['of']} less {each['less']}" for each in differences
    ]
    tables.append(markdown_tables.table("on the same tasks", head, rows))
    return "\n".join([*tables, *markdown_tables.note(told_scored(result["tasks"], TASKS))])


if __name__ == "__main__":
    run_sweep(Sweep("fig4", __doc__, jobs, fig3.measure, summary, draw))
