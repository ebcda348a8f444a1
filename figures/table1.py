"""Table 1 of the Reptile paper: 5-way accuracy on mini-ImageNet.

Reptile has its paper's settings. It is trained once for both numbers of shots,
and scored on one image per class. MAML and FOMAML have the settings of MAML's
paper: 5 inner steps of 0.01, 10 in evaluation; 15 images per class to score on
in training, as many as shots in evaluation; 4 tasks per meta-step for 1-shot, 2
for 5-shot. ``TABLE`` holds each run's default fraction of its paper's
meta-steps, and its number of unseen tasks. ``PART`` accepts fewer than the 600
images of each class; the table states how many there were.
"""

from __future__ import annotations

from accuracy_table import Cell, Table, Trained, accuracies
from command import Sweep, run_sweep

from minimeta.runs.presets import PRESETS

PART = True
_REPTILE = PRESETS["mini-imagenet-1shot"].settings.changed(part=PART)
_MAML = _REPTILE.changed(
    algorithm="maml",
    iterations=60_000,
    k=6,
    inner="sgd",
    inner_lr=0.01,
    tail="separate",
    tail_shots=15,
    outer="adam",
    epsilon=0.001,
    epsilon_final=0.001,
    eval_steps=10,
)


def _maml(algorithm: str, shots: int, tasks_a_step: int, fraction: float, tasks: int) -> Trained:
    images = 5 * shots  # every mini-batch holds all images to adapt on
    settings = _MAML.changed(
        algorithm=algorithm,
        inner_lr=_MAML.algorithm.rule.lr / shots,
        meta_batch=tasks_a_step,
        shots=shots,
        size=images,
        eval_shots=shots,
        eval_size=images,
    )
    return Trained(
        settings, fraction, tasks, {shots: images}, queries=shots, modes=("transductive",)
    )


def _cells(algorithm: str, mode: str, *published: str) -> tuple[Cell, ...]:
    """Cells for 1-shot and 5-shot."""
    return tuple(
        Cell(
            printed,
            algorithm if algorithm == "reptile" else f"{algorithm}-{shots}shot",
            shots,
            mode,
        )
        for printed, shots in zip(published, (1, 5), strict=True)
    )


TABLE = Table(
    runs={"reptile": Trained(_REPTILE, 0.01, 300, {1: 5, 5: 15})}
    | {
        f"{algorithm}-{shots}shot": _maml(algorithm, shots, tasks_a_step, fraction, tasks)
        for algorithm, fraction in (("fomaml", 0.005), ("maml", 0.001))
        for shots, tasks_a_step, tasks in ((1, 4, 600), (5, 2, 300))
    },
    columns=("5-way 1-shot", "5-way 5-shot"),
    rows={
        "MAML, transduction": _cells("maml", "transductive", "48.70 ± 1.84", "63.11 ± 0.92"),
        "FOMAML, transduction": _cells("fomaml", "transductive", "48.07 ± 1.75", "63.15 ± 0.91"),
        "Reptile": _cells("reptile", "inductive", "47.07 ± 0.26", "62.74 ± 0.37"),
        "Reptile, transduction": _cells("reptile", "transductive", "49.97 ± 0.32", "65.99 ± 0.58"),
    },
    of_a_class=600,
)
jobs = TABLE.jobs


if __name__ == "__main__":
    run_sweep(Sweep("table1", __doc__, jobs, accuracies, TABLE.summary, TABLE.write, budget=None))
