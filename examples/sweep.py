"""Train several runs side by side, and collect their results.

    python examples/sweep.py

The same call continues a sweep that was interrupted. Finished runs are read
from their folders.
"""

from pathlib import Path

import minimeta as mm
from minimeta.runs.experiment import evaluate
from minimeta.runs.sweep import Job, sweep


def measure(experiment, state, waves):
    """The result of one run: a JSON object. The run's own process calls it."""
    errors = evaluate(experiment, state, count=waves)
    return {"error": float(errors.mean[1]), "interval": float(errors.interval[1])}


def main(runs: Path = Path("runs/examples"), iterations: int = 2000, processes: int | None = None):
    base = mm.presets()["sine-maml"].settings
    jobs = [
        Job(
            f"lr-{inner_lr}-seed-{seed}",
            base.changed(inner_lr=inner_lr, seed=seed, iterations=iterations),
            by={"waves": 200},
        )
        for inner_lr in (0.001, 0.01, 0.03)
        for seed in (0, 1)
    ]
    finished = sweep(jobs, runs / "sweep", measure, processes=processes, progress=True)
    for name, run in finished.items():
        result = run.result
        print(f"{name:20} error after one step {result['error']:.3f} +- {result['interval']:.3f}")
    return finished


if __name__ == "__main__":  # the processes of a sweep import this file
    main()
