"""minimeta as a worker of benchmarks/speed.py, through its public functions.

peers/timing.py defines workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
from cases import CASES, Case
from peers import timing
from peers.timing import Arrays, Program, Settings

from minimeta import MAML, Minibatches, Reptile
from minimeta.algorithms import Algorithm
from minimeta.arrays import threads as host_threads
from minimeta.training.meta_training import MetaState, MetaTraining

ONE_THREAD = "one thread"
# speed.py starts the worker of this variant, and of each that ends so, with
# MINIMETA_FAST=0.
WITHOUT_FAST = "without fast"
BOTH, GRADIENT, PRODUCT = (
    "gradient and product",
    "gradient alone",
    "product alone, at a known gradient",
)


@dataclass(frozen=True, eq=False)
class Fixed:
    """A distribution of tasks that always returns the same tasks."""

    minibatches: Minibatches

    def sample(self, rng, tasks, schedule, dtype, xp) -> Minibatches:
        """The mini-batches."""
        return self.minibatches


def build(stack: ExitStack, settings: Settings, arrays: Arrays, variant: str) -> Program:
    """The program of a case; ``stack`` keeps its threads."""
    case, k = CASES[settings["name"]], settings["k"]
    batches = Minibatches(
        [arrays[f"x_{i + 1}"] for i in range(k)], [arrays[f"y_{i + 1}"] for i in range(k)]
    )
    return BUILDERS[case.kind](stack, case, batches, arrays, variant)


def training_of(case: Case, batches: Minibatches, dtype: Any, workers: int | None) -> MetaTraining:
    """Meta-training on fixed mini-batches, with a constant outer step size."""
    algorithm: Algorithm = Reptile(case.rule) if case.kind == "reptile" else MAML(case.rule)
    return MetaTraining(
        case.objective(),
        algorithm,
        Fixed(batches),
        case.schedule,
        case.outer,
        1,
        case.outer.lr,
        case.tasks,
        carry_inner_state=False,
        dtype=dtype,
        workers=workers,
    )


def meta_step(
    stack: ExitStack, case: Case, batches: Minibatches, arrays: Arrays, variant: str
) -> Program:
    training = training_of(case, batches, arrays["phi"].dtype, 1 if variant == ONE_THREAD else None)
    step = stack.enter_context(training.stepper())

    def results(state: tuple[MetaState, np.ndarray]) -> Arrays:
        meta, losses = state
        found = {"phi": meta.meta, "loss": losses}
        if (
            case.kind == "maml"
        ):  # after one step Adam's first moment is the direction times 1 - beta1
            found["direction"] = meta.outer.m / (1 - case.outer.beta1)
        return found

    return Program(
        lambda: (MetaState(0, arrays["phi"], None, None), None),
        lambda state: step(state[0]),
        results,
    )


def threads_used(case: Case) -> int:
    """The number of threads of the default variant of a case that is timed."""
    if case.kind == "hvp":
        return 1
    if case.kind == "evaluation":
        return min(case.tasks, host_threads.available_cores())
    training = training_of(case, case.minibatches(), np.float32, None)
    return training.workers or training._default_workers()


def extra() -> tuple[str, ...]:
    """The package of the extra ``fast``, if it is installed and not switched
    off."""
    found = find_spec("numba") is not None and os.environ.get("MINIMETA_FAST") != "0"
    return ("numba",) if found else ()


def evaluation(
    stack: ExitStack, case: Case, batches: Minibatches, arrays: Arrays, variant: str
) -> Program:
    threads = 1 if variant == ONE_THREAD else host_threads.available_cores()
    starmap = stack.enter_context(host_threads.workers(threads))
    objective, algorithm = case.objective(), Reptile(case.rule)

    def predictions(start: int, stop: int) -> np.ndarray:
        own = batches.of_tasks(start, stop)
        return objective.network.forward(
            algorithm.adapt(objective, arrays["phi"], own[:-1]), own[-1][0]
        )

    chunks = host_threads.even_chunks(case.tasks, threads)
    return computing(lambda: {"prediction": np.concatenate(starmap(predictions, chunks))})


def product(
    stack: ExitStack, case: Case, batches: Minibatches, arrays: Arrays, variant: str
) -> Program:
    stack.enter_context(
        host_threads.workers(1)
    )  # as in training: the threads have tasks of their own
    objective = case.objective()
    if variant == GRADIENT:
        return computing(lambda: {"grad": objective.at(arrays["phi"], batches[0]).grad})
    if variant == PRODUCT:
        point = objective.at(arrays["phi"], batches[0])
        return computing(lambda: {"hvp": point.hvp(arrays["v"])})

    def both() -> Arrays:
        point = objective.at(arrays["phi"], batches[0])
        return {"grad": point.grad, "hvp": point.hvp(arrays["v"])}

    return computing(both)


def gradient(
    stack: ExitStack, case: Case, batches: Minibatches, arrays: Arrays, variant: str
) -> Program:
    stack.enter_context(host_threads.workers(1))
    store = variant.removesuffix(f", {WITHOUT_FAST}")
    objective, algorithm = case.objective(), MAML(case.rule, store=store)
    return computing(lambda: {"maml": algorithm.direction(objective, arrays["phi"], batches)[0]})


def computing(compute: Callable[[], Arrays]) -> Program:
    """A program whose steps are all the same."""
    return Program(lambda: None, lambda state: compute(), lambda state: state)


BUILDERS: dict[str, Callable[..., Program]] = {
    "maml": meta_step,
    "reptile": meta_step,
    "evaluation": evaluation,
    "hvp": product,
    "memory": gradient,
}

if __name__ == "__main__":
    with ExitStack() as stack:
        timing.serve(
            lambda settings, arrays, variant: build(stack, settings, arrays, variant),
            ("numpy", *extra()),
        )
