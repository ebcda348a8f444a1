"""Times one meta-step at the papers' settings: sine MAML and Omniglot Reptile. Prints, and writes meta_step.json.

The median over many steps, tasks drawn anew for each; Omniglot's images are replaced by random ones of the same shape,
which take the same time.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minimeta import FewShotImages, Objective, SoftmaxCrossEntropy, host, omniglot_convnet
from minimeta.experiment import PRESETS, algorithm_of, build, schedule_of
from minimeta.files import write_atomically
from minimeta.inner import SGD
from minimeta.meta_training import MetaTraining
from minimeta.provenance import provenance


def omniglot() -> MetaTraining:
    """The preset omniglot-5way on random images."""
    settings = PRESETS["omniglot-5way"][1]
    images = np.random.default_rng(0).integers(0, 2, (100, 20, 28, 28, 1), dtype=np.uint8)
    return MetaTraining(
        Objective(omniglot_convnet(5), SoftmaxCrossEntropy()), algorithm_of(settings), FewShotImages(images, 5),
        schedule_of(settings), SGD(1.0), settings.iterations, meta_batch=settings.meta_batch,
    )  # fmt: skip


def timed(training: MetaTraining, steps: int) -> dict[str, float]:
    """Milliseconds a meta-step: median and quartiles over ``steps`` after a warm-up."""
    state, times = training.start(), []
    with training.stepper() as step:
        for i in range(steps + 5):
            started = time.perf_counter()
            state, _ = step(state)
            if i >= 5:
                times.append(1e3 * (time.perf_counter() - started))
    low, median, high = np.percentile(times, [25, 50, 75])
    return {
        "median_ms": round(float(median), 3),
        "quartiles_ms": [round(float(low), 3), round(float(high), 3)],
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/meta_step.json"), help="default: out/meta_step.json")
    options = parser.parse_args()
    results: dict[str, Any] = {"provenance": provenance(), "meta_steps": {}}
    cases = {
        "sine MAML, 25 tasks, 1 inner step, 10 shots, float32": (build(PRESETS["sine-maml"][1]).training, [1], 2000),
        "Omniglot Reptile, 5 tasks, 5 inner Adam steps, 10 images, float32": (omniglot(), [1, host.available_cores()], 100),
    }
    for name, (training, threads, steps) in cases.items():
        for count in sorted(set(threads)):
            result = timed(replace(training, workers=count), steps)
            results["meta_steps"][f"{name}, {count} thread{'s' * (count > 1)}"] = result
            print(f"{name}, {count} thread{'s' * (count > 1)}: {result['median_ms']} ms, quartiles {result['quartiles_ms']}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, lambda file: file.write((json.dumps(results, indent=2) + "\n").encode()))


if __name__ == "__main__":
    main()
