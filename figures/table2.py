"""Table 2 of the Reptile paper: 5-way and 20-way accuracy on Omniglot.

Reptile has its paper's settings. It is trained once for both numbers of shots,
and scored on one image per class. MAML and FOMAML have the settings of MAML's
paper, with inner steps on the mean. They are trained for each number of shots,
and scored on as many images as they adapt on. ``TABLE`` holds each run's
default fraction of its paper's meta-steps, and its number of unseen tasks.
"""

from __future__ import annotations

from accuracy_table import Cell, Table, Trained, accuracies
from command import Sweep, run_sweep

from minimeta.runs.presets import PRESETS


def _maml(algorithm: str, ways: int, shots: int, fraction: float, tasks: int) -> Trained:
    images = ways * shots  # every mini-batch holds all images to adapt on
    settings = PRESETS[f"omniglot-{ways}way-maml"].settings.changed(
        algorithm=algorithm,
        shots=shots,
        tail_shots=shots,
        size=images,
        eval_shots=shots,
        eval_size=images,
    )
    return Trained(
        settings, fraction, tasks, {shots: images}, queries=shots, modes=("transductive",)
    )


def _cells(algorithm: str, mode: str, *published: str) -> tuple[Cell, ...]:
    """Cells for 5-way 1-shot and 5-shot, then 20-way 1-shot and 5-shot."""
    cells = []
    for printed, (ways, shots) in zip(published, ((5, 1), (5, 5), (20, 1), (20, 5)), strict=True):
        run = f"{algorithm}-{ways}way" + ("" if algorithm == "reptile" else f"-{shots}shot")
        cells.append(Cell(printed, run, shots, mode))
    return tuple(cells)


TABLE = Table(
    runs={
        "reptile-5way": Trained(PRESETS["omniglot-5way"].settings, 1.0, 10_000, {1: 5, 5: 5}),
        "reptile-20way": Trained(PRESETS["omniglot-20way"].settings, 0.01, 1000, {1: 10, 5: 10}),
    }
    | {
        f"{algorithm}-{ways}way-{shots}shot": _maml(
            algorithm, ways, shots, fraction, 2000 if ways == 5 else 1000
        )
        for algorithm in ("fomaml", "maml")
        for ways, shots, fraction in ((5, 1, 0.05), (5, 5, 0.02), (20, 1, 0.01), (20, 5, 0.0025))
    },
    columns=("5-way 1-shot", "5-way 5-shot", "20-way 1-shot", "20-way 5-shot"),
    rows={
        "MAML, transduction": _cells(
            "maml", "transductive", "98.7 ± 0.4", "99.9 ± 0.1", "95.8 ± 0.3", "98.9 ± 0.2"
        ),
        "FOMAML, transduction": _cells(
            "fomaml", "transductive", "98.3 ± 0.5", "99.2 ± 0.2", "89.4 ± 0.5", "97.9 ± 0.1"
        ),
        "Reptile": _cells(
            "reptile", "inductive", "95.39 ± 0.09", "98.90 ± 0.10", "88.14 ± 0.15", "96.65 ± 0.33"
        ),
        "Reptile, transduction": _cells(
            "reptile",
            "transductive",
            "97.68 ± 0.04",
            "99.48 ± 0.06",
            "89.43 ± 0.14",
            "97.12 ± 0.32",
        ),
    },
)
jobs = TABLE.jobs


if __name__ == "__main__":
    run_sweep(Sweep("table2", __doc__, jobs, accuracies, TABLE.summary, TABLE.write, budget=None))
