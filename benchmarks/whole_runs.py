"""Wall time, CPU time and memory of whole training runs, by preset.

    python benchmarks/whole_runs.py [--presets NAMES] [--iterations N]
        [--repeats N]

A run is the process ``python -m minimeta train PRESET --iterations N``, from
its start to its end. It therefore includes imports, loading of the images and
of compiled kernels, metrics and checkpoints. Every preset runs as installed,
and without the extra ``fast`` (MINIMETA_FAST=0), in turn. Before them a run of
two meta-steps in each form fills the caches of images and of compiled kernels.
The images come from MINIMETA_DATA, or from --data.

The presets of ``LONG`` would take more than ten minutes, and make fewer
meta-steps. The script writes runs.json run by run. A preset without data, or
whose run fails, is stored with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ours import WITHOUT_FAST, extra

from minimeta.files import write_atomically
from minimeta.runs.presets import PRESETS
from minimeta.runs.provenance import provenance

HERE = Path(__file__).resolve().parent
FORMS = {"default": {}, WITHOUT_FAST: {"MINIMETA_FAST": "0"}}
ITERATIONS, REPEATS, WARM_UP = 1000, 1, 2
LONG = {"omniglot-20way-maml": 300} | {
    name: 100 for name in PRESETS if name.startswith("mini-imagenet")
}


class RunError(Exception):
    """A run ended with an error; the message is its last line."""


def measure(preset: str, iterations: int, form: str, flags: Sequence[str] = ()) -> dict[str, float]:
    """One whole run: its seconds by the clock and of all cores, and its peak
    memory in bytes.

    Raises
    ------
    RunError
        if the run fails.
    """
    environment = {name: value for name, value in os.environ.items() if name != "MINIMETA_FAST"}
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-I", "-S", HERE / "whole_process.py"]
        command += [sys.executable, "-m", "minimeta", "train", preset, "--quiet", *flags]
        command += ["--iterations", str(iterations), "--out", Path(scratch) / "run"]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            env=environment | FORMS[form],
            cwd=HERE.parent,
        )
    *told, last = done.stdout.strip().splitlines()
    found = json.loads(last)
    status = found.pop("status")
    if status:
        raise RunError(([line for line in told if line] or [f"exit status {status}"])[-1])
    return found


def measured(preset: str, iterations: int, repeats: int, part: bool) -> dict[str, Any]:
    """The JSON object of a preset: its runs by form, or why there are none."""
    made = min(iterations, LONG.get(preset, iterations))
    part = part and preset.startswith("mini-imagenet")
    flags = ["--part"] if part else []
    found: dict[str, Any] = {
        "iterations": made,
        "complete": made >= ITERATIONS,
        "part": part,
        "provenance": provenance(),
        "numba": bool(extra()),
        "forms": {form: [] for form in FORMS},
    }
    try:
        for form in FORMS:
            measure(preset, WARM_UP, form, flags)
        for _ in range(repeats):
            for form, runs in found["forms"].items():
                runs.append(measure(preset, made, form, flags))
                print(f"{preset}, {made} meta-steps, {form}: {runs[-1]}", flush=True)
    except RunError as error:
        found["skipped"] = str(error)
        print(f"{preset}: {error}", flush=True)
    return found


def save(path: Path, runs: dict[str, Any]) -> None:
    """Write the runs in the order of the presets."""
    ordered = {name: runs[name] for name in PRESETS if name in runs}
    text = json.dumps({"runs": ordered}, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", help="names, separated by commas (default: all)")
    parser.add_argument(
        "--iterations",
        type=int,
        default=ITERATIONS,
        help=f"meta-steps of a run (default: {ITERATIONS}); at most "
        + ", ".join(f"{most} for {name}" for name, most in LONG.items()),
    )
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help=f"runs of each form (default: {REPEATS})"
    )
    parser.add_argument(
        "--part",
        action="store_true",
        help="accept a part of mini-ImageNet, which the result says",
    )
    parser.add_argument("--data", help="folder of the images (default: MINIMETA_DATA)")
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "results" / "runs.json",
        help="file; other presets in it are kept",
    )
    options = parser.parse_args(arguments)
    names = options.presets.split(",") if options.presets else list(PRESETS)
    unknown = [name for name in names if name not in PRESETS]
    if unknown:
        parser.error(f"unknown presets {', '.join(unknown)}: choose from {', '.join(PRESETS)}")
    if min(options.iterations, options.repeats) < 1:
        parser.error("--iterations and --repeats must be at least 1")
    if options.data:
        os.environ["MINIMETA_DATA"] = str(Path(options.data).resolve())
    runs = json.loads(options.out.read_text())["runs"] if options.out.exists() else {}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        runs[name] = measured(name, options.iterations, options.repeats, options.part)
        save(options.out, runs)


if __name__ == "__main__":
    main()
