"""Train MAML on sine waves, and plot its loss and one adaptation.

    python examples/train_and_plot.py

The run is in runs/examples/sine, and the picture in out/train_and_plot.png.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import minimeta as mm


def main(runs: Path = Path("runs/examples"), out: Path = Path("out"), iterations: int = 5000):
    # resume=True continues an interrupted run, and returns a finished one.
    learner = mm.train("sine-maml", runs / "sine", iterations=iterations, resume=True)
    metrics = mm.metrics(runs / "sine")

    rng = np.random.default_rng(0)
    (x, y), (grid, wave) = mm.Sinusoid().episode(rng, tasks=1, shots=10, queries=200)
    x, y, grid, wave = x[0], y[0], grid[0], wave[0]  # the one task

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.semilogy(metrics["iteration"], metrics["loss"], color="0.6", label="every 10 meta-steps")
    if len(metrics["loss"]) >= 50:
        smooth = np.convolve(metrics["loss"], np.full(50, 1 / 50), mode="valid")
        left.semilogy(metrics["iteration"][25:-24], smooth, label="mean of 50 around it")
    left.set(xlabel="meta-step", ylabel="mean squared error after adaptation")
    left.legend()
    right.plot(grid, wave, color="black", label="unseen wave")
    for steps in (0, 1, 10):
        learner.fit(x, y, steps=steps)
        right.plot(grid, learner.predict(grid), label=f"inner steps: {steps}")
    right.plot(x, y, "k^", label="10 points of the wave")
    right.set(xlabel="x", ylabel="y")
    right.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / "train_and_plot.png", dpi=120)
    print("written:", out / "train_and_plot.png")


if __name__ == "__main__":
    main()
