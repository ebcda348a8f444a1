"""Shared by all workers: reading a case, obeying commands.

``python WORKER CASE_FOLDER VARIANT DTYPE`` reads ``case.json`` and
``arrays.npz``, builds the case's step and answers with the versions of its
packages. Then it obeys lines on its standard input, and answers each with a
line of JSON:

result PATH     make one step from the initial phi, and write its results to the
                npz PATH
time SECONDS    make steps from the initial phi for about SECONDS:
                {"seconds": of one step}
memory          peak bytes that one step adds to the resident set: {"bytes":
...}

A worker that waits for a line is blocked, so it takes no time from others.
Nothing of minimeta is imported.
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

    ``start`` makes the first state, and ``step`` maps a state to the next.
    ``results`` reads the results of a step from its state, in the terms of the
    vectors. ``wait`` returns when a state has been computed.
    """

    start: Callable[[], Any]
    step: Callable[[Any], Any]
    results: Callable[[Any], Arrays]
    wait: Callable[[Any], Any] = lambda state: None


Build = Callable[[Settings, Arrays, str], Program]


def serve(build: Build, packages: tuple[str, ...] = ()) -> None:
    """Run as a worker of the program ``build(settings, arrays, variant)``."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # output of a library must not look like an answer
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
    """Make a first step, so that a library's setup does not count as memory."""
    program.wait(program.step(program.start()))


def result(program: Program, path: str) -> dict[str, Any]:
    state = program.step(program.start())
    program.wait(state)
    np.savez(path, **program.results(state))
    return {}


def timed(program: Program, seconds: str) -> dict[str, Any]:
    """Seconds of a step: the median over blocks of steps.

    An asynchronous library may compute ahead within a block.
    """
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
    """The state after ``steps`` steps, and their seconds."""
    started = time.perf_counter()
    for _ in range(steps):
        state = program.step(state)
    program.wait(state)
    return state, time.perf_counter() - started


def memory(program: Program, argument: str) -> dict[str, Any]:
    """Bytes that a step adds to this process; whether results are finite."""
    state = program.start()
    program.wait(state)
    before = resident_after_reset()
    state = program.step(state)
    program.wait(state)
    peak = resident("VmHWM")
    finite = all(np.isfinite(array).all() for array in program.results(state).values())
    return {"bytes": peak - before, "finite": bool(finite)}


def resident_after_reset() -> int:
    """Resident bytes now; resets the peak.

    Free pages that the C library keeps are returned first. Otherwise the next
    step would use these pages without a trace.
    """
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
