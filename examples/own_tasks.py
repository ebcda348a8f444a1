"""Meta-learn a task distribution of your own, with a network of your own.

    python examples/own_tasks.py

A task is a damped oscillation: y = exp(-a t) cos(w t), with its own a and w.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minimeta as mm


class Oscillations(mm.ExampleTasks):
    """Damped oscillations with a ~ U[0.1, 1] and w ~ U[2, 6]."""

    inputs = (0.0, 3.0)  # the range of x

    def examples(self, rng, tasks, count):
        """x and y, each (tasks, count, 1)."""
        damping = rng.uniform(0.1, 1.0, (tasks, 1, 1))
        frequency = rng.uniform(2.0, 6.0, (tasks, 1, 1))
        t = rng.uniform(0.0, 3.0, (tasks, count, 1))
        return t, np.exp(-damping * t) * np.cos(frequency * t)


def main(runs: Path = Path("runs/examples"), out: Path = Path("out"), iterations: int = 5000):
    tasks = Oscillations()
    network = mm.mlp([1, 64, 64, 1], activation="tanh")
    learner = mm.train(
        "sine-maml",  # the settings of a preset, of which some are changed
        runs / "oscillations",
        tasks=tasks,
        network=network,
        inner_lr=0.05,
        iterations=iterations,
        resume=True,
    )
    errors = mm.evaluate(learner, tasks, count=200, steps=10)
    print("error after 0, 1, .. 10 steps:", errors)

    t = np.linspace(0, 3, 200)
    (x, y), _ = tasks.episode(np.random.default_rng(7), tasks=3, shots=10, queries=1)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.5), layout="constrained", sharey=True)
    for axis, points, values in zip(axes, x, y, strict=True):
        axis.plot(points, values, "k^", label="10 examples")
        for steps in (0, 10):
            learner.fit(points, values, steps=steps)
            axis.plot(t, learner.predict(t), label=f"inner steps: {steps}")
        axis.set(xlabel="t", ylabel="y")
    axes[1].legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "own_tasks.png", dpi=120)
    print("written:", out / "own_tasks.png")


if __name__ == "__main__":
    main()
