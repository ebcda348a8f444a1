"""A breakdown of the time of a step. Writes breakdown.json.

A step of each kind runs once on arrays that record every ufunc (``Noting``).
Each ufunc is then timed alone, on warm and contiguous arrays of the same shapes
and order of axes, on one thread:

    products   the matrix products of the step
    passes     the other ufuncs, which are passes over memory: masks, quotients,
               sums over rows (written as products with ones)
    calls      the same step on arrays of a few numbers each: the time that
               Python and NumPy need to make the calls
    rest       the remainder: copies, strides (patches and their transpose),
               concatenation, allocation, cold caches

Calls are also part of the time of products and passes, so the four parts need
not add up to the step. Finally, two threads make the step at once, each on its
own arrays. The ratio of their time to that of one thread is 1 if the threads
never wait for Python's interpreter lock, which a thread needs between any two
operations.

A compiled kernel hides its operations, so all this is measured in a process
with the plain kernels, as without the extra ``fast``. The whole step and the
ratio of two threads to one are measured once more in a process with the kernels
that are chosen by default.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from floors import milliseconds, peak
from ours import extra

import minimeta as mm
from minimeta.arrays import threads
from minimeta.files import write_atomically
from minimeta.runs.provenance import provenance

HERE = Path(__file__).resolve().parent


class Noting(np.ndarray):
    """An array that records each operation on itself and on its results."""

    notes: ClassVar[list[tuple[np.ufunc, list[Any], bool]]] = []

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [each.view(np.ndarray) if isinstance(each, Noting) else each for each in inputs]
        into = (
            None
            if out is None
            else tuple(each.view(np.ndarray) if isinstance(each, Noting) else each for each in out)
        )
        if method == "__call__" and not options:
            Noting.notes.append((ufunc, [_form(each) for each in plain], into is not None))
        result = getattr(ufunc, method)(
            *plain, **options, **({} if into is None else {"out": into})
        )
        if out is not None:
            return out[0]
        return result.view(Noting) if isinstance(result, np.ndarray) else result


def _form(value: Any) -> Any:
    """Shape, strides and dtype of an array; a number unchanged."""
    return (value.shape, value.strides, value.dtype) if isinstance(value, np.ndarray) else value


def _like(form: Any, rng: np.random.Generator) -> Any:
    """An array of this form, filled with numbers near 1."""
    if not (isinstance(form, tuple) and len(form) == 3):
        return form
    shape, strides, dtype = form
    order = np.argsort([-abs(stride) for stride in strides], kind="stable")
    base = np.asarray(1 + 0.1 * rng.random([shape[i] for i in order])).astype(dtype)
    return base.transpose(np.argsort(order))


@dataclass(frozen=True)
class Step:
    """``make(small)`` returns the step, a function of phi, and phi.

    With ``small``, all arrays have only a few numbers.
    """

    title: str
    make: Callable[[bool], tuple[Callable[[np.ndarray], Any], np.ndarray]]


def maml(small: bool) -> tuple[Callable, np.ndarray]:
    rng = np.random.default_rng(0)
    tasks, width, size = (1, 1, 1) if small else (25, 40, 10)
    objective = mm.Objective(mm.mlp([1, width, width, 1]), mm.MeanSquaredError())
    schedule = mm.MinibatchSchedule(k=2, size=size, tail="separate")
    batches = mm.Sinusoid().sample(rng, tasks, schedule, np.float32)
    algorithm, phi = mm.MAML(mm.SGD(0.01)), objective.init(rng)
    return lambda phi: algorithm.direction(objective, phi, batches), phi


def adam_step(
    network: Callable[[int], mm.Network], filters: int, tasks: int
) -> Callable[[bool], tuple]:
    def make(small: bool) -> tuple[Callable, np.ndarray]:
        rng = np.random.default_rng(0)
        shape = (1, 1) if small else (tasks, 10)
        objective = mm.Objective(network(1 if small else filters), mm.SoftmaxCrossEntropy())
        images = objective.network.input_shape
        batch = (rng.random((*shape, *images), dtype=np.float32), rng.integers(0, 5, shape))
        phi, rule = np.tile(objective.init(rng), (shape[0], 1)), mm.Adam(0.001)
        _, state = rule.step(phi, objective.at(phi, batch).grad)
        return lambda phi: rule.step(phi, objective.at(phi, batch).grad, state), phi

    return make


STEPS = {
    "sine-maml": Step("sine MAML, 25 tasks, 1 inner step, 10 shots: directions", maml),
    "omniglot": Step(
        "Omniglot network, 3 tasks, 10 images: one inner Adam step",
        adam_step(lambda filters: mm.omniglot_convnet(5, filters), 64, 3),
    ),
    "omniglot-1": Step(
        "Omniglot network, 1 task, 10 images: one inner Adam step",
        adam_step(lambda filters: mm.omniglot_convnet(5, filters), 64, 1),
    ),
    "mini-imagenet": Step(
        "mini-ImageNet network, 1 task, 10 images: one inner Adam step",
        adam_step(lambda filters: mm.mini_imagenet_convnet(5, filters), 32, 1),
    ),
}


def replay(notes: list[tuple], rng: np.random.Generator) -> float:
    """Milliseconds of recorded operations, each alone, on warm arrays."""
    total, known = 0.0, {}
    for ufunc, forms, in_place in notes:
        key = (ufunc, in_place, repr(forms))
        if key not in known:
            arrays = [_like(form, rng) for form in forms]
            # Not into the operand itself, whose numbers would soon be infinite
            # or denormal.
            out = {"out": np.empty_like(ufunc(*arrays))} if in_place else {}
            known[key] = milliseconds(
                lambda ufunc=ufunc, arrays=arrays, out=out: ufunc(*arrays, **out), 0.02
            )
        total += known[key]
    return total


def _is_product(note: tuple) -> bool:
    """Whether an operation is a matrix product, and not a sum over rows."""
    ufunc, forms, _ = note
    return ufunc is np.matmul and forms[0][0][-2] > 1


def multiply_adds(notes: list[tuple]) -> int:
    """The number of multiply-adds of matrix products."""
    return sum(
        int(np.prod(np.broadcast_shapes(a[0][:-2], b[0][:-2]))) * a[0][-2] * a[0][-1] * b[0][-1]
        for _, (a, b), _ in notes
    )


def side_by_side(step: Step) -> float:
    """Time of two threads that each make the step, divided by that of one."""

    def several(_: int) -> None:
        function, phi = step.make(False)
        function(phi)
        ready.wait()
        for _ in range(count):
            function(phi)

    def seconds(threads: int) -> float:
        nonlocal ready
        ready = threading.Barrier(threads + 1)
        with ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(several, i) for i in range(threads)]
            ready.wait()
            started = time.perf_counter()
            for each in running:
                each.result()
            return time.perf_counter() - started

    function, phi = step.make(False)
    count = max(2, int(300 / milliseconds(lambda: function(phi))))
    ready = threading.Barrier(1)
    return statistics.median(seconds(2) / seconds(1) for _ in range(5))


def whole(step: Step) -> float:
    """Milliseconds of a step."""
    function, phi = step.make(False)
    return milliseconds(lambda: function(phi))


def broken_down(step: Step) -> dict[str, Any]:
    """The parts of a step, in milliseconds."""
    rng = np.random.default_rng(0)
    function, phi = step.make(False)
    Noting.notes = []
    function(phi.view(Noting))
    products = [note for note in Noting.notes if _is_product(note)]
    passes = [note for note in Noting.notes if not _is_product(note)]
    small, small_phi = step.make(True)
    parts = {
        "step": whole(step),
        "products": replay(products, rng),
        "passes": replay(passes, rng),
        "calls": milliseconds(lambda: small(small_phi)),
    }
    parts["rest"] = parts["step"] - parts["products"] - parts["passes"]
    return {
        "title": step.title,
        "milliseconds": {name: round(value, 4) for name, value in parts.items()},
        "matrix_products": len(products),
        "other_operations": len(passes),
        "multiply_adds": int(multiply_adds(products)),
        "two_threads_by_one": round(side_by_side(step), 3),
        "gigaflops_of_products": round(2 * multiply_adds(products) / parts["products"] / 1e6, 1),
    }


def plain() -> dict[str, Any]:
    """The breakdown, in this process, which must have the plain kernels."""
    found: dict[str, Any] = {"peak_gigaflops": round(peak(), 1), "steps": {}}
    with threads.workers(1):
        for name, step in STEPS.items():
            found["steps"][name] = broken_down(step)
            print(json.dumps(found["steps"][name], indent=1), file=sys.stderr)
    return found


def default() -> dict[str, Any]:
    """The whole steps, in this process, with its kernels."""
    kernels = ", ".join(f"{package} {version(package)}" for package in extra())
    found: dict[str, Any] = {"kernels": kernels or "NumPy", "steps": {}}
    with threads.workers(1):
        for name, step in STEPS.items():
            found["steps"][name] = {
                "milliseconds": round(whole(step), 4),
                "two_threads_by_one": round(side_by_side(step), 3),
            }
            print(name, found["steps"][name], file=sys.stderr)
    return found


MEASURES = {"plain": plain, "default": default}


def measured_apart(kernels: str) -> dict[str, Any]:
    """The measure with ``kernels`` in a fresh process."""
    environment = {name: value for name, value in os.environ.items() if name != "MINIMETA_FAST"}
    if kernels == "plain":
        environment["MINIMETA_FAST"] = "0"
    command = [sys.executable, __file__, "--kernels", kernels]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "results" / "breakdown.json",
        help="default: benchmarks/results",
    )
    parser.add_argument("--kernels", choices=MEASURES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kernels is not None:
        print(json.dumps(MEASURES[options.kernels]()))
        return
    results = {"provenance": provenance()} | measured_apart("plain")
    found = measured_apart("default")
    results["default_kernels"] = found["kernels"]
    for name, step in found["steps"].items():
        results["steps"][name]["default_kernels"] = step
    write_atomically(
        options.out, lambda file: file.write((json.dumps(results, indent=1) + "\n").encode())
    )


if __name__ == "__main__":
    main()
