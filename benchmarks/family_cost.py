"""Time and memory of every algorithm's meta-step. Writes family_cost.json.

    python benchmarks/family_cost.py [--data DIR] [--out DIR]

The settings are those of figures/family.py. All algorithms take turns in one
process, in several rounds of about a second each. A time is the median over
rounds, with the default number of threads. Memory is the peak by which a fresh
process grows in its first meta-step; it is read from /proc/self, so it needs
Linux. The gradient-agreement combiner is timed alone, on the directions of such
a meta-step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from peers.timing import resident, resident_after_reset

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "figures"))
from family import ON_OMNIGLOT, ON_SINE, sine_settings  # noqa: E402

from minimeta import gradient_agreement, mean  # noqa: E402
from minimeta.files import write_atomically  # noqa: E402
from minimeta.runs.experiment import Experiment  # noqa: E402
from minimeta.runs.provenance import provenance  # noqa: E402
from minimeta.runs.settings import Settings  # noqa: E402

POINTS, ROUNDS = 10, 7
SETTINGS: dict[str, dict[str, Settings]] = {
    "sine": {name: sine_settings(name, POINTS) for name in ON_SINE},
    "omniglot": ON_OMNIGLOT,
}


def stepper(stack: ExitStack, settings: Settings, data: str | None) -> Callable[[], None]:
    """A function that makes the next meta-step; ``stack`` keeps its threads."""
    training = Experiment(settings, data).training
    step, state = stack.enter_context(training.stepper()), training.start()

    def following() -> None:
        nonlocal state
        state, _ = step(state)

    return following


def seconds(step: Callable[[], None], least: float) -> float:
    """Seconds of one step, averaged over steps that take ``least`` seconds."""
    steps, started = 0, time.perf_counter()
    while not steps or time.perf_counter() - started < least:
        step()
        steps += 1
    return (time.perf_counter() - started) / steps


def times(task: str, data: str | None) -> dict[str, dict[str, float]]:
    """Median seconds and quartiles of meta-steps and combiners."""
    with ExitStack() as stack:
        steps = {name: stepper(stack, settings, data) for name, settings in SETTINGS[task].items()}
        for name, (combine, directions) in combiners(task, data).items():
            steps[name] = lambda combine=combine, directions=directions: combine(directions)
        for step in steps.values():  # warm up: the first steps fill caches
            seconds(step, 0.3)
        measured: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(ROUNDS):
            for name, step in steps.items():
                measured[name].append(seconds(step, 1.0))
    return {name: _quartiles(each) for name, each in measured.items()}


def combiners(task: str, data: str | None) -> dict[str, tuple[Callable, np.ndarray]]:
    """The two combiners, with the directions of MAML's first meta-batch."""
    training = Experiment(SETTINGS[task]["maml"], data).training
    outcome = training.algorithm.direction(
        training.objective, training.start().meta, training.sample(0)
    )
    return {
        f"combiner {each.__name__}": (each, outcome.direction)
        for each in (mean, gradient_agreement)
    }


def _quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return {"seconds": middle, "low": low, "high": high}


def grown(settings: Settings, data: str | None) -> int:
    """Peak bytes by which this process grows in a first meta-step."""
    with ExitStack() as stack:
        square = np.ones((1024, 1024), np.float32)
        square @ square  # BLAS allocates its buffers once, not in every meta-step
        step = stepper(stack, settings, data)
        before = resident_after_reset()
        step()
        return resident("VmHWM") - before


def grown_apart(task: str, name: str, data: str | None) -> int:
    """``grown`` in a fresh process."""
    words = [sys.executable, __file__, "--grown", task, name, *(["--data", data] if data else [])]
    return int(subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "results",
        help="folder for family_cost.json (default: results)",
    )
    parser.add_argument("--data", metavar="DIR", help="folder of Omniglot (default: MINIMETA_DATA)")
    parser.add_argument(
        "--grown",
        nargs=2,
        metavar=("TASK", "ALGORITHM"),
        help="only print the memory of this algorithm",
    )
    options = parser.parse_args()
    if options.grown:
        task, name = options.grown
        print(grown(SETTINGS[task][name], options.data))
        return
    result: dict[str, Any] = {"rounds": ROUNDS, "points": POINTS, "provenance": provenance()}
    for task, settings in SETTINGS.items():
        result[task] = times(task, options.data)
        for name in settings:
            result[task][name]["bytes"] = grown_apart(task, name, options.data)
        for name, row in result[task].items():
            memory = f"{row['bytes'] / 2**20:8.1f} MiB" if "bytes" in row else ""
            print(f"{task:10}{name:30}{1e3 * row['seconds']:10.4f} ms {memory}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomically(
        options.out / "family_cost.json",
        lambda file: file.write((json.dumps(result, indent=1) + "\n").encode()),
    )


if __name__ == "__main__":
    main()
