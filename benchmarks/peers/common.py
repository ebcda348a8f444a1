"""Shared by all adapters: reading vectors and writing results.

docs/vectors.md specifies the vectors (JSON and npz). Nothing of minimeta is
imported: an adapter knows the vectors only as any third party would.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def main(solve: Callable[[dict[str, Any], Arrays], Arrays], packages: tuple[str, ...]) -> None:
    """The command line ``python PEER.py VECTORS RESULTS``.

    It writes one npz per problem, and peer.json with versions and errors.
    """
    vectors, results = map(Path, sys.argv[1:])
    results.mkdir(parents=True, exist_ok=True)
    raised = {}
    for problem in json.loads((vectors / "index.json").read_text())["problems"]:
        with np.load(vectors / problem["file"]) as stored:
            arrays = {
                name: stored[name]
                for name in stored.files
                if name in ("phi", "v") or name[:2] in ("x_", "y_")
            }
        try:
            np.savez(results / problem["file"], **solve(problem, arrays))
        except Exception as error:  # a peer's failure is a finding: record it and continue
            raised[problem["name"]] = f"{type(error).__name__}: {error}".splitlines()[0]
    facts = {"versions": {name: version(name) for name in packages}, "raised": raised}
    (results / "peer.json").write_text(json.dumps(facts, indent=1) + "\n")


def parameters(problem: dict[str, Any], phi: Any) -> Iterator[dict[str, Any]]:
    """The parameters of each layer by name, as parts of ``phi (D,)``.

    ``phi`` may be any array that slices and reshapes.
    """
    for layer in problem["network"]["layers"]:
        named = {}
        for each in layer["parameters"]:
            size = int(np.prod(each["shape"]))
            named[each["name"]] = phi[each["offset"] : each["offset"] + size].reshape(each["shape"])
        yield named


def minibatches(
    problem: dict[str, Any], arrays: Arrays, convert: Callable[[np.ndarray], Any]
) -> list[tuple[Any, Any]]:
    """k pairs (x, y), tasks first."""
    return [
        (convert(arrays[f"x_{i}"]), convert(arrays[f"y_{i}"])) for i in range(1, problem["k"] + 1)
    ]
