"""Grade the peers by the conformance vectors. Writes conformance.json and .md.

Every adapter in benchmarks/peers reads the vectors as any third party would
(JSON and npz). It computes the results that its library offers, in float64, in
the peers' environment (benchmarks/requirements-peers.txt).
``minimeta.testing.conformance_vectors.grade`` grades these results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minimeta.files import write_atomically
from minimeta.runs.provenance import provenance
from minimeta.testing import conformance_vectors as vectors

HERE = Path(__file__).resolve().parent
PEERS = {
    "JAX": "jax_peer.py",
    "torch.func": "torch_func_peer.py",
    "TorchOpt": "torchopt_peer.py",
    "higher": "higher_peer.py",
}


def run_peer(python: str, script: str, folder: Path, results: Path) -> dict[str, Any]:
    """Run an adapter; return versions, errors and all grades.

    For an adapter that ends early, return its last line.
    """
    # The adapters must not find minimeta.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ended = subprocess.run(
        [python, HERE / "peers" / script, folder, results],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if ended.returncode != 0:
        return {
            "not_run": (ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"])[
                -1
            ],
            "grades": [],
        }
    facts = json.loads((results / "peer.json").read_text())
    try:
        return facts | {"grades": [vars(each) for each in vectors.grade(folder, results)]}
    except vectors.VectorsError as error:  # the adapter wrote no result
        return facts | {"not_run": str(error), "grades": []}


def summarize(grades: list[dict[str, Any]], raised: dict[str, str]) -> str:
    """A cell of the table: largest error, failures, or "not offered"."""
    offered = [each for each in grades if each["status"] != "missing"]
    stopped = sum(each["problem"] in raised for each in grades)
    if not offered:
        return f"raises in {stopped}" if stopped else "not offered"
    passed = [each["error"] for each in offered if each["status"] == "pass"]
    wrong = [
        each["error"] for each in offered if each["status"] == "fail" and each["error"] is not None
    ]
    not_finite = sum("not finite" in each["note"] for each in offered)
    parts = [f"{max(passed):.0e}"] if passed else []
    parts += [f"differs in {len(wrong)}, up to {max(wrong):.0e}"] if wrong else []
    parts += [f"NaN in {not_finite}"] if not_finite else []
    parts += [f"raises in {stopped}"] if stopped else []
    return "; ".join(parts)


def table(peers: dict[str, Any], belongs: Callable[[str], bool]) -> str:
    """A Markdown table, quantity x peer, of problems whose name ``belongs``."""
    lines = ["| | " + " | ".join(peers) + " |", "|---" * (len(peers) + 1) + "|"]
    for quantity in vectors.RESULTS:
        cells = []
        for peer in peers.values():
            chosen = [
                each
                for each in peer["grades"]
                if each["quantity"] == quantity and belongs(each["problem"])
            ]
            cells.append(summarize(chosen, peer["raised"]) if chosen else "not run")
        lines.append(f"| `{quantity}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(peers: dict[str, Any]) -> str:
    """The tables, and the versions of everything that ran."""
    adam = {problem.name for problem in vectors.PROBLEMS if "-adam-" in problem.name}
    versions = [
        f"- {name}: "
        + (f"not run: {peer['not_run']}" if "not_run" in peer else _joined(peer["versions"]))
        for name, peer in peers.items()
    ]
    raised = [
        f"- {name}, {problem}: {text}"
        for name, peer in peers.items()
        for problem, text in peer.get("raised", {}).items()
    ]
    parts = [
        "# The peers, graded by the conformance vectors",
        "By `make conformance`. The largest error max|got - want| / max|want| over the problems, "
        f"where it is at most {vectors.TOLERANCE:.0e}; then in how many problems the result "
        "differs by more, is not a number, or raises. "
        "[The vectors](../../docs/vectors.md) say what each quantity is.",
        f"Inner SGD, {len(vectors.PROBLEMS) - len(adam)} problems:",
        table(peers, lambda problem: problem not in adam),
        f"Inner Adam, {len(adam)} problems:",
        table(peers, lambda problem: problem in adam),
        "Versions:",
        "\n".join(versions),
    ]
    parts += ["What raised:", "\n".join(raised)] if raised else []
    return "\n\n".join([*parts, (HERE / "peers" / "findings.md").read_text()])


def _joined(versions: dict[str, str]) -> str:
    return ", ".join(f"{package} {version}" for package, version in versions.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", required=True, help="interpreter of the peers' environment")
    parser.add_argument(
        "--out", type=Path, default=HERE / "results", help="folder (default: benchmarks/results)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "vectors"
        vectors.write(folder)
        peers = {}
        for name, script in PEERS.items():
            peers[name] = run_peer(options.python, script, folder, Path(scratch) / script)
            print(f"{name}: {peers[name].get('not_run') or len(peers[name]['grades'])}")
    facts = {
        "provenance": provenance(),
        "vectors": vectors.VERSION,
        "tolerance": vectors.TOLERANCE,
        "peers": peers,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for file, text in (
        ("conformance.json", json.dumps(facts, indent=1) + "\n"),
        ("conformance.md", markdown(peers)),
    ):
        write_atomically(options.out / file, lambda stream, text=text: stream.write(text.encode()))
        print(f"written to {options.out / file}")


if __name__ == "__main__":
    main()
