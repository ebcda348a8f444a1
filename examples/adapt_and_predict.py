"""Load a trained learner, adapt it to a task of your own, and predict.

    python examples/adapt_and_predict.py

The learner is trained first, if runs/examples/sine holds no run yet. Loading it
needs neither a data set nor the preset.
"""

from pathlib import Path

import numpy as np

import minimeta as mm


def main(runs: Path = Path("runs/examples"), out: Path = Path("out"), iterations: int = 5000):
    if not (runs / "sine").exists():
        mm.train("sine-maml", runs / "sine", iterations=iterations)
    learner = mm.load(runs / "sine")

    # One task: a few points of a function that the learner has never seen.
    x = np.array([-4.0, -2.5, -1.0, 0.5, 2.0, 3.5])
    y = 3 * np.sin(x + 0.5)
    learner.fit(x, y, steps=10)
    path = learner.path()
    for step, loss in enumerate(path.loss):
        print(f"after {step:2d} steps: loss {loss:.4f}")
    print("prediction at 1.0:", learner.predict([1.0])[0], "wanted:", 3 * np.sin(1.5))

    # Many tasks at once: a leading task axis, x (T, N, 1) and y (T, N, 1).
    phases = np.array([0.0, 1.0, 2.0])[:, None, None]
    many = np.tile(x[:, None], (3, 1, 1))
    learner.fit(many, np.sin(many + phases))
    print("three tasks:", learner.predict(many).shape, learner.phi_.shape)

    # A file holds the whole learner: send it to someone who has minimeta alone.
    out.mkdir(parents=True, exist_ok=True)
    file = out / "sine_learner.npz"
    file.unlink(missing_ok=True)  # save never replaces a file
    learner.save(file)
    again = mm.load(file).fit(x, y, steps=10)
    print("the same from the file:", again.predict([1.0])[0])


if __name__ == "__main__":
    main()
