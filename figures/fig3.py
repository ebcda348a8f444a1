"""Figure 3 of the Reptile paper: which sum of inner gradients should the outer step follow?

5-way 5-shot Omniglot. Inner SGD of step 0.003 on mini-batches of 25 images that do not overlap (5 training shots for each),
one task a meta-step, 40,000 meta-steps, epsilon falling linearly to 0. g_i is the inner gradient at the i-th mini-batch: g_1
is joint training, the last of them FOMAML, the sum of all of them Reptile, and their mean Reptile with epsilon / k. Test
accuracy on unseen characters during training, after 5 inner steps on 25 images, test images predicted together.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from command import Sweep, run_sweep, scaled
from style import SINGLE, plt, save

from minimeta.evaluation import accuracy
from minimeta.experiment import PRESETS, Settings
from minimeta.run import open_run
from minimeta.sweep import Finished, Job

META_STEPS, LOOKS = 40_000, 20
TASKS, TASKS_AT_END, QUERIES = 100, 1000, 15

_BASE = replace(
    PRESETS["omniglot-5way"][1], meta_batch=1, inner="sgd", inner_lr=0.003, size=25, eval_shots=5, eval_steps=5, eval_size=25
)
MEANS = {2: 0.125, 3: 0.08325, 4: 0.0625}  # the paper's epsilons


def _curve(algorithm: str, k: int, epsilon: float) -> Settings:
    return replace(_BASE, algorithm=algorithm, k=k, shots=5 * k, epsilon=epsilon)


CURVES: dict[str, tuple[str, Settings]] = (
    {"g1": ("$g_1$", _curve("reptile", 1, 0.25))}
    | {f"g{k}": (f"$g_{k}$", _curve("fomaml", k, 0.25)) for k in (2, 3, 4)}
    | {f"sum{k}": ("$" + " + ".join(f"g_{i}" for i in range(1, k + 1)) + "$", _curve("reptile", k, 0.25)) for k in (2, 3, 4)}
    | {
        f"mean{k}": (
            f"$\\frac{{1}}{{{k}}}(" + " + ".join(f"g_{i}" for i in range(1, k + 1)) + ")$",
            _curve("reptile", k, eps),
        )
        for k, eps in MEANS.items()
    }
)


def jobs(budget: float) -> list[Job]:
    """A run for each curve, looked at LOOKS times."""
    steps = scaled(META_STEPS, budget)
    looks = tuple(sorted({scaled(steps, look / LOOKS) for look in range(1, LOOKS)}))
    return [Job(name, replace(settings, iterations=steps), looks) for name, (_, settings) in CURVES.items()]


def measure(path: Path, data: str | None) -> dict[str, float]:
    """Accuracy in % on unseen tasks, the same ones at each look; more of them at the end."""
    experiment, state = open_run(path, data, workers=1)
    training, settings = experiment.training, experiment.settings
    scores = accuracy(
        training.objective, training.algorithm, state.meta, experiment.test_tasks, shots=settings.eval_shots,
        count=TASKS_AT_END if state.iteration == settings.iterations else TASKS, queries=QUERIES, workers=1,
        adaptation=experiment.adaptation, transductive=(True,), inner_state=state.inner,
    )[True]  # fmt: skip
    return {"mean": 100 * float(scores.mean), "interval95": 100 * float(scores.interval)}


def summary(finished: dict[str, Finished], budget: float) -> dict[str, Any]:
    """Accuracy against the meta-step of every curve."""
    curves = {}
    for name, (label, settings) in CURVES.items():
        steps = scaled(META_STEPS, budget)
        points = {**finished[name].looks, steps: finished[name].result}
        settings = replace(settings, iterations=steps)
        curves[name] = {"label": label, "accuracy": list(points.items()), "settings": settings.to_dict()}
    return {"tasks": TASKS, "tasks_at_end": TASKS_AT_END, "queries": QUERIES, "curves": curves}


def draw(result: dict[str, Any], path: Path) -> list[Path]:
    """Colour tells the last gradient; dotted one alone, full a sum, dashed a mean."""
    figure, axis = plt.subplots(figsize=(1.5 * SINGLE, 3.3))
    colours = {"1": "black", "2": "tab:orange", "3": "tab:green", "4": "tab:blue"}
    styles = {"g": (":", "o"), "sum": ("-", None), "mean": ("--", "s")}
    for name, curve in result["curves"].items():
        line, mark = styles[name[:-1]]
        steps, values = zip(*((step, each["mean"]) for step, each in curve["accuracy"]), strict=True)
        label = f"{curve['label']}   {values[-1]:.1f} %"
        axis.plot(steps, values, linestyle=line, marker=mark, markersize=2.5, color=colours[name[-1]], label=label)
    axis.set_xlabel("meta-step")
    axis.set_ylabel("test accuracy, %")
    axis.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="gradient, accuracy at the end")
    return save(figure, path)


if __name__ == "__main__":
    run_sweep(Sweep("fig3", __doc__, jobs, measure, summary, draw))
