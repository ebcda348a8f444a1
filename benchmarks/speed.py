"""How fast are minimeta, JAX, PyTorch, TorchOpt and higher on the same work?

Workers do every piece of work (cases.py) in their own processes (ours.py and
peers/speed_*.py). First every worker computes the work once in float64. A peer
whose numbers differ from ours is reported, and not timed. Then all take turns
in float32, in several rounds, with ours before each peer. A ratio is the median
over rounds of our time divided by the peer's in that round. Each peer has all
variants that may be fast, and the fastest counts. minimeta runs as installed
and, as a variant, without the extra ``fast``. Beside its times a case has the
time that its matrix products alone would take (floors.py). The script writes
speed.json case by case, and draws it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from cases import CASES, MEMORY_STEPS, Case
from floors import floor, peak
from ours import BOTH, GRADIENT, ONE_THREAD, PRODUCT, WITHOUT_FAST, extra, threads_used
from peers.timing import Arrays

from minimeta.files import write_atomically
from minimeta.inner import STORES
from minimeta.runs.provenance import provenance

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-8
OURS = "minimeta"


@dataclass(frozen=True)
class Entry:
    """A library that does the work in one variant."""

    peer: str
    script: str
    variant: str


def ours(*variants: str) -> list[Entry]:
    return [Entry(OURS, "ours.py", each) for each in variants]


def jax(*variants: str) -> list[Entry]:
    return [Entry("JAX", "peers/speed_jax.py", each) for each in variants]


def checkpointed(*variants: str) -> list[Entry]:
    """JAX with jax.checkpoint on the inner step, as another peer.

    It needs less memory and more time.
    """
    return [
        Entry("JAX, checkpoint", "peers/speed_jax.py", f"{each},checkpoint") for each in variants
    ]


def torch(*variants: str) -> list[Entry]:
    return [Entry("PyTorch", "peers/speed_torch.py", each) for each in variants]


def torch_func(*variants: str) -> list[Entry]:
    return [Entry("torch.func", "peers/speed_torch_func.py", each) for each in variants]


def torch_compile(*variants: str) -> list[Entry]:
    """Compiled torch.func, or compiled PyTorch for an in-place variant."""
    scripts = ["torch" if "inplace" in each.split(",") else "torch_func" for each in variants]
    return [
        Entry("torch.compile", f"peers/speed_{script}.py", f"{each},compiled")
        for script, each in zip(scripts, variants, strict=True)
    ]


def torchopt(*variants: str) -> list[Entry]:
    return [Entry("TorchOpt", "peers/speed_torchopt.py", each) for each in variants]


HIGHER = Entry("higher", "peers/speed_higher.py", "loop")

_SINE = [
    *ours("default", WITHOUT_FAST),
    *jax("vmap,unroll", "vmap,scan", "vmap,unroll,single", "vmap,unroll,threads"),
    *torch_func("contiguous,outside", "contiguous,inside"),
    *torch_compile("contiguous,inside"),
    *torchopt("loop"),
    HIGHER,
]
_MAML = [
    *ours("default", WITHOUT_FAST, ONE_THREAD),
    *torch("contiguous", "contiguous,threads", "im2col,threads"),
    *torch_func("contiguous,inside"),
    *torch_compile("im2col,threads"),
    *jax("map,scan,im2col", "map,scan,im2col,threads"),
]

# All others are compared with the first. The workers have more variants than
# are timed here. A variant is omitted if it was never close to the fastest of
# its peer on any machine tried, unless the peer's users would write it first
# (JAX's vmap of a convolution).
ENTRIES: dict[str, list[Entry]] = {
    "sine-maml-1": _SINE,
    "sine-maml-5": _SINE,
    "omniglot-reptile": [
        *ours("default", WITHOUT_FAST, ONE_THREAD),
        *torch(
            "contiguous,inplace",
            "channels-last,fused",
            "contiguous,inplace,threads",
            "channels-last,inplace,threads",
        ),
        *torch_func("contiguous"),
        *torch_compile("im2col,inplace,threads", "im2col,threads"),
        *jax(
            "vmap,scan,conv",
            "map,scan,im2col",
            "map,scan,im2col,threads",
            "map,scan,im2col,threads,single",
        ),
    ],
    "omniglot-maml-1": [
        *_MAML,
        *torch_func("contiguous,outside"),
        *jax("vmap,scan,conv"),
        *torchopt("loop"),
        HIGHER,
    ],
    "omniglot-maml-5": [*_MAML, *jax("map,unroll,im2col,threads")],
    "omniglot-hvp": [
        *ours(BOTH, WITHOUT_FAST, GRADIENT, PRODUCT),
        *torch("contiguous", "channels-last", "im2col"),
        *torch_compile("im2col", "im2col,jvp"),
        *jax("conv", "im2col"),
    ],
    "omniglot-evaluation": [
        *ours("default", WITHOUT_FAST, ONE_THREAD),
        *torch("channels-last,inplace", "contiguous,inplace,threads"),
        *torch_compile("im2col,inplace,threads", "im2col,threads"),
        *jax("map,scan,conv", "vmap,scan,im2col", "map,scan,im2col,threads"),
    ],
    "mini-imagenet-reptile": [
        *ours("default", WITHOUT_FAST, ONE_THREAD),
        *torch("channels-last,fused", "channels-last,inplace,threads"),
        *torch_compile("channels-last,inplace", "channels-last,inplace,threads"),
        *jax("map,scan,im2col,slices", "map,scan,im2col,slices,threads"),
    ],
} | {
    f"memory-{steps}": [
        *ours(*reversed(STORES), *(f"{each}, {WITHOUT_FAST}" for each in reversed(STORES))),
        *jax("map,scan,conv"),
        *checkpointed("map,scan,conv"),
        *torch("contiguous"),
    ]
    for steps in MEMORY_STEPS
}


class WorkerError(Exception):
    """A worker ended before its answer; the message is its last line."""


class Worker:
    """A process that does the work of one entry on request."""

    def __init__(self, process: subprocess.Popen, log: Any) -> None:
        self._process, self._log = process, log
        self.versions = self._answer()

    def ask(self, command: str) -> dict[str, Any]:
        """The worker's answer to one line."""
        with suppress(BrokenPipeError):  # _answer reports the worker's last line
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            raise WorkerError(
                (self._log.read().strip().splitlines() or [f"exit status {status}"])[-1]
            )
        return json.loads(line)


@contextmanager
def worker(entry: Entry, python: str, folder: Path, dtype: str) -> Iterator[Worker]:
    """A worker for the case in ``folder``, which ends with the block."""
    mine = entry.peer == OURS
    # Peers must not find minimeta.
    environment = {
        name: value
        for name, value in os.environ.items()
        if name != "MINIMETA_FAST" and (mine or name != "PYTHONPATH")
    }
    if mine and entry.variant.endswith(WITHOUT_FAST):
        environment["MINIMETA_FAST"] = "0"
    command = [
        sys.executable if mine else python,
        HERE / entry.script,
        folder,
        entry.variant,
        dtype,
    ]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        yield Worker(process, log)


# Do they compute the same?


def results_of(entry: Entry, python: str, folder: Path) -> tuple[Arrays, dict[str, str]]:
    """The results of an entry in float64, and its versions."""
    path = folder.parent / "result.npz"
    with worker(entry, python, folder, "float64") as process:
        process.ask(f"result {path}")
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}, process.versions


def errors(
    description: dict[str, Any], phi: np.ndarray, got: Arrays, want: Arrays
) -> dict[str, float]:
    """max |got - want| / max |want| of each result.

    For a new phi, it is the error of the change from ``phi``.
    """
    return {
        name: _error(*_comparable(description, phi, name, got[name], want[name])) for name in got
    }


def _comparable(
    description: dict[str, Any], phi: np.ndarray, name: str, *arrays: np.ndarray
) -> Sequence[np.ndarray]:
    if name != "phi":
        return arrays
    kept = np.full(len(phi), True)
    if "Adam" in (
        description["rule"]["type"],
        (description["outer"] or description["rule"])["type"],
    ):
        kept = ~zero_gradients(description)
    return [(array - phi)[kept] for array in arrays]


def zero_gradients(description: dict[str, Any]) -> np.ndarray:
    """A mask of the parameters whose gradient is zero in exact arithmetic.

    They are biases before a batch norm, which subtracts any constant. Rounding
    turns their gradients into tiny numbers, and Adam, which divides by the root
    of their square, turns these numbers into steps.
    """
    found = np.full(description["network"]["size"], False)
    layers = description["network"]["layers"]
    for layer, following in pairwise(layers):
        for each in layer["parameters"]:
            if following["type"] == "BatchNorm" and each["name"] == "bias":
                found[each["offset"] : each["offset"] + each["shape"][0]] = True
    return found


def _error(got: np.ndarray, want: np.ndarray) -> float:
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max() / np.abs(want).max())


def compared(case: Case, python: str, folder: Path) -> list[dict[str, Any]]:
    """A row per entry: versions, errors, agreement, or why it did not run."""
    description, phi = case.describe(), case.arrays()["phi"]
    first, *others = ENTRIES[case.name]
    want, versions = results_of(first, python, folder)
    rows = [asdict(first) | {"versions": versions, "errors": {}, "agrees": True}]
    for entry in others:
        row: dict[str, Any] = asdict(entry) | {"errors": {}}
        try:
            got, row["versions"] = results_of(entry, python, folder)
        except WorkerError as error:
            row |= {"not_run": str(error), "agrees": False}
        else:
            row["errors"] = errors(description, phi, got, want)
            row["agrees"] = bool(got) and max(row["errors"].values()) <= TOLERANCE
        rows.append(row)
        verdict = "agrees" if row["agrees"] else "DIFFERS"
        print(f"  {_who(row)}: {verdict} {row.get('not_run', row['errors'])}", flush=True)
    return rows


# How long do they take, and how much memory?


def time_in_turn(
    rows: list[dict[str, Any]], python: str, folder: Path, rounds: int, seconds: float
) -> None:
    """Add times and ratios to the rows that agree.

    A round goes: ours, a peer, ours, the next peer, and so on.
    """
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker(_entry(row), python, folder, "float32")) for row in rows
        ]
        times: list[list[float]] = [[] for _ in rows]
        ratios: list[list[float]] = [[] for _ in rows]
        for _ in range(rounds):
            for i in range(1, len(rows)):
                mine, theirs = (
                    each.ask(f"time {seconds}")["seconds"] for each in (workers[0], workers[i])
                )
                times[0].append(mine)
                times[i].append(theirs)
                ratios[i].append(mine / theirs)
    for row, own_times, own_ratios in zip(rows, times, ratios, strict=True):
        row["milliseconds"] = summary([1e3 * each for each in own_times])
        if own_ratios:
            row["ratio"] = summary(own_ratios)


def measure_memory(rows: list[dict[str, Any]], python: str, folder: Path) -> None:
    """Add memory to the rows.

    It is the bytes that a gradient adds to a fresh process, and the ratio to
    the first row.
    """
    for row in rows:
        with worker(_entry(row), python, folder, "float32") as process:
            found = process.ask("memory")
        row["bytes"], row["finite"] = found["bytes"], found["finite"]
    for row in rows[1:]:
        row["ratio"] = {"median": round(rows[0]["bytes"] / max(row["bytes"], 1), 5)}


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median and quartiles, to five digits."""
    low, median, high = (float(f"{each:.5g}") for each in np.percentile(values, [25, 50, 75]))
    return {"median": median, "quartiles": [low, high]}


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(row["peer"], row["script"], row["variant"])


def _who(row: dict[str, Any]) -> str:
    return f"{row['peer']} ({row['variant']})"


def measured(case: Case, python: str, rounds: int, seconds: float) -> dict[str, Any]:
    """The JSON object of a case, with its rows."""
    print(f"{case.title}:", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "case"
        case.write(folder)
        rows = compared(case, python, folder)
        agreeing = [row for row in rows if row["agrees"]]
        if case.kind == "memory" and rounds:
            measure_memory(agreeing, python, folder)
        elif rounds:
            time_in_turn(agreeing, python, folder, rounds, seconds)
        found_floor = floor_of(case, agreeing[0]) if case.kind != "memory" and rounds else {}
    for row in agreeing if rounds else []:
        measured = row.get("milliseconds", row.get("bytes"))
        print(f"  {_who(row)}: {measured}, ours / theirs {row.get('ratio')}", flush=True)
    return {
        "title": case.title,
        "kind": case.kind,
        "provenance": provenance(),
        "rounds": rounds,
        "seconds": seconds,
        "tolerance": TOLERANCE,
        **found_floor,
        "entries": rows,
    }


def floor_of(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    """The floor of a case, with the ratio of the time of ``row`` to it."""
    found = floor(case, threads_used(case), peak())
    ratio = row["milliseconds"]["median"] / found["milliseconds"]
    print(f"  matrix products at peak: {found['milliseconds']} ms, ours / this {ratio:.2f}")
    return {"floor": found | {"ratio": float(f"{ratio:.5g}")}}


def save(path: Path, cases: dict[str, Any]) -> None:
    """Write the results in the order of CASES."""
    ordered = {name: cases[name] for name in CASES if name in cases}
    text = json.dumps({"cases": ordered}, indent=1) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", help="interpreter of the peers' environment")
    parser.add_argument(
        "--only", help="names or prefixes of cases, separated by commas (default: all)"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=7,
        help="number of rounds (default: 7); 0 only compares results and writes nothing",
    )
    parser.add_argument("--seconds", type=float, default=0.5, help="time of a turn (default: 0.5)")
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "results" / "speed.json",
        help="file; other cases in it are kept",
    )
    parser.add_argument("--draw", action="store_true", help="only redraw from --out")
    options = parser.parse_args()
    cases = json.loads(options.out.read_text())["cases"] if options.out.exists() else {}
    if not options.draw:
        if options.python is None:
            parser.error("--python is needed to run the peers")
        if not extra():
            parser.error(
                "numba is not installed, so minimeta would run without the extra fast only: "
                "install minimeta[fast]"
            )
        prefixes = tuple((options.only or "").split(","))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        for name in (name for name in CASES if name.startswith(prefixes)):
            case = measured(CASES[name], options.python, options.rounds, options.seconds)
            if options.rounds:
                cases[name] = case
                save(options.out, cases)
    if cases:
        from speed_figure import draw

        print("drawn:", *draw(json.loads(options.out.read_text()), options.out))


if __name__ == "__main__":
    main()
