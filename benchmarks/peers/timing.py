"""What every worker of benchmarks/speed.py shares: the case that it reads, the commands that it obeys.

``python WORKER CASE_FOLDER VARIANT DTYPE`` reads ``case.json`` and ``arrays.npz``, builds the case's step, answers with
the versions of its packages, and then obeys lines on its standard input, each answered by a line of JSON:

result PATH     one step from the initial phi; what it computes goes to PATH, an npz
time SECONDS    steps from the initial phi for about so long: {"seconds": of one step}
memory          bytes that one step adds to the resident set at its peak: {"bytes": ...}

A worker that waits for a line is blocked, so it takes no time from another one. Nothing of minimeta is imported.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
Settings = dict[str, Any]
BLOCK = 0.02  # seconds between two looks at the clock


class Program(NamedTuple):
    """A case built by one library.

    ``step`` maps the state that the last one left to the next; ``start`` makes the first. ``results`` reads what a step
    computed off its state, in the words of the vectors. ``wait`` returns when a state has been computed.
    """

    start: Callable[[], Any]
    step: Callable[[Any], Any]
    results: Callable[[Any], Arrays]
    wait: Callable[[Any], Any] = lambda state: None


Build = Callable[[Settings, Arrays, str], Program]


def serve(build: Build, packages: tuple[str, ...] = ()) -> None:
    """Be a worker: ``build(settings, arrays, variant)`` makes its program."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints must not look like an answer
    folder, variant, dtype = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    settings, arrays = read(folder, dtype)
    if settings["kind"] == "memory":
        warm_up(build(*first_step_only(settings, arrays), variant))
    program = build(settings, arrays, variant)
    print(json.dumps({name: version(name) for name in packages}), file=answers)
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        print(json.dumps(COMMANDS[command](program, argument)), file=answers)


def read(folder: Path, dtype: str) -> tuple[Settings, Arrays]:
    """Settings, and arrays with the real ones in ``dtype``."""
    with np.load(folder / "arrays.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    cast = {
        name: array.astype(dtype) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }
    return json.loads((folder / "case.json").read_text()), cast


def first_step_only(settings: Settings, arrays: Arrays) -> tuple[Settings, Arrays]:
    """The same case with its first mini-batch and its last."""
    k = settings["k"]
    last = {"x_2": arrays[f"x_{k}"], "y_2": arrays[f"y_{k}"]}
    return settings | {
        "k": 2,
        "sizes": [settings["sizes"][0], settings["sizes"][-1]],
    }, arrays | last


def warm_up(program: Program) -> None:
    """What a library loads and sets up at its first step is no memory of the gradient."""
    program.wait(program.step(program.start()))


def result(program: Program, path: str) -> dict[str, Any]:
    state = program.step(program.start())
    program.wait(state)
    np.savez(path, **program.results(state))
    return {}


def timed(program: Program, seconds: str) -> dict[str, Any]:
    """The median over blocks of steps. A library that computes behind the caller's back may do so within a block."""
    state, block = program.start(), 1
    state, took = run(program, state, 1)
    while took < min(BLOCK, float(seconds) / 10):  # warm up, and find how many steps a block holds
        block *= 2
        state, took = run(program, state, block)
    times: list[float] = []
    until = time.perf_counter() + float(seconds)
    while not times or time.perf_counter() < until:
        state, took = run(program, state, block)
        times.append(took / block)
    return {"seconds": statistics.median(times)}


def run(program: Program, state: Any, steps: int) -> tuple[Any, float]:
    """The state after ``steps``, and the seconds they took."""
    started = time.perf_counter()
    for _ in range(steps):
        state = program.step(state)
    program.wait(state)
    return state, time.perf_counter() - started


def memory(program: Program, argument: str) -> dict[str, Any]:
    """Bytes by which a step makes this process grow, and whether its results are finite."""
    state = program.start()
    program.wait(state)
    before = resident_after_reset()
    state = program.step(state)
    program.wait(state)
    peak = resident("VmHWM")
    finite = all(np.isfinite(array).all() for array in program.results(state).values())
    return {"bytes": peak - before, "finite": bool(finite)}


def resident_after_reset() -> int:
    """Bytes resident now; the peak starts anew. Pages that the C library has free but keeps are given back first, or what
    follows would use them unseen."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    found = re.search(
        rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE
    )
    if found is None:
        raise OSError(f"/proc/self/status has no {field}")
    return 1024 * int(found[1])


COMMANDS: dict[str, Callable[[Program, str], dict[str, Any]]] = {
    "result": result,
    "time": timed,
    "memory": memory,
}
