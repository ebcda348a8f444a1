"""Compare two algorithms on the same unseen tasks, in pairs.

    python examples/compare_algorithms.py

The difference of two errors is taken task by task. Its interval is narrower
than that of either error, because both algorithms meet the same hard tasks.
"""

from pathlib import Path

import minimeta as mm


def main(runs: Path = Path("runs/examples"), iterations: int = 5000, count: int = 500):
    errors = {}
    for name in ("maml", "fomaml"):
        folder = runs / f"compare-{name}"
        mm.train("sine-maml", folder, algorithm=name, iterations=iterations, resume=True)
        errors[name] = mm.evaluate(folder, count=count, seed=1, steps=5)

    difference = errors["fomaml"] - errors["maml"]
    print(f"mean squared error on {count} unseen waves, with 95% intervals")
    print("steps        MAML           FOMAML       FOMAML - MAML")
    for step in range(6):
        cells = [
            f"{each.mean[step]:6.3f} +- {each.interval[step]:.3f}"
            for each in (errors["maml"], errors["fomaml"], difference)
        ]
        print(f"{step:5d}", *cells, sep="   ")
    print("The intervals are over tasks: another seed of training may differ by more.")
    return errors, difference


if __name__ == "__main__":
    main()
