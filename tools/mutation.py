"""The mutation proof: minimeta.testing catches every error in a derivative.

    python tools/mutation.py [--only NAME] [--out FILE.json] [--plain | --twins]

The proof breaks every term of every hand-written derivative in turn
(mutants.py). A broken function takes the place of the original while checks
judge the library at small random inputs (mutation_targets.py). A check is one
of minimeta.testing's, or compares a function with its definition, written out.
An exception counts as caught. A mutant that survives must stand in
``EQUIVALENT`` (mutation_survivors.py), with the reason why it is no error.
Otherwise the exit code is 1.

There are two proofs. One judges the plain definitions, without compiled twins.
The other judges the twins (mutation_twins.py). It needs Numba, and a process of
its own, which interprets what Numba would compile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
from mutants import Mutant, compiled, definition_of, in_place, mutants
from mutation_survivors import EQUIVALENT
from mutation_targets import Target, targets

import minimeta as mm
from minimeta.arrays.compiled import twins
from minimeta.files import write_atomically
from minimeta.runs.provenance import provenance

ROOT = Path(mm.__file__).resolve().parent.parent


def prove(only: str = "") -> dict[str, Any]:
    """Every mutant of the plain definitions whose name contains ``only``,
    tried."""
    with twins(False):
        return proof(target for target in targets() if only in target.name)


def prove_twins(only: str = "") -> dict[str, Any]:
    """Every mutant of the twins whose name contains ``only``, tried.

    Raises
    ------
    RuntimeError
        if Numba compiles.
    """
    import mutation_twins

    with mutation_twins.interpreted():
        return proof(target for target in mutation_twins.targets() if only in target.name)


def twins_in_a_process(only: str) -> dict[str, Any]:
    """``prove_twins``, in a process that interprets the twins."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "twins.json"
        command = [sys.executable, __file__, "--twins", "--only", only, "--out", str(out)]
        environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
        if not out.exists():
            raise RuntimeError(f"the proof of the twins ended with code {done.returncode}")
        return json.loads(out.read_text())


def proof(some: Iterable[Target]) -> dict[str, Any]:
    """Every mutant of ``some`` targets, tried.

    Returns a JSON object of counts and survivors. Those counted under
    ``by_number`` ran to the end and gave a wrong number. The others that were
    caught raised, or gave a wrong shape.
    """
    functions, survivors = {}, []
    with warnings.catch_warnings():
        # Mutants need not make sense.
        warnings.simplefilter("ignore", SyntaxWarning)
        for target in some:
            said = verdict(target, compiled(definition_of(target.function), target.function))
            assert said is None, f"{target.name} is refused as it is: {said}"
            counts = functions[target.name] = {"tried": 0, "caught": 0, "by_number": 0}
            for mutant in mutants(target.function):
                said = verdict(target, mutant.code)
                counts["tried"] += 1
                counts["caught"] += said is not None
                counts["by_number"] += said is not None and "differs by" in said
                if said is None:
                    survivors.append(described(target, mutant))
    return of_all(functions, survivors)


def of_all(functions: dict[str, Any], survivors: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON object of these functions, with their total."""
    keys = ("tried", "caught", "by_number")
    total = {key: sum(counts[key] for counts in functions.values()) for key in keys}
    return {"total": total, "functions": functions, "survivors": survivors}


def verdict(target: Target, code: CodeType) -> str | None:
    """The message of the first check to refuse ``code``; None if all pass."""
    with in_place(target.function, code), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for check in target.checks:
            try:
                check()
            # A mutant may raise outside the call that a check guards.
            except Exception as error:
                return f"{type(error).__name__}: {error}"
    return None


def described(target: Target, mutant: Mutant) -> dict[str, Any]:
    """Where a survivor is, what it changes, and why it is no error."""
    file = Path(target.function.__code__.co_filename).resolve().relative_to(ROOT)
    return {
        "function": target.name,
        "place": f"{file}:{mutant.line}",
        "before": mutant.before,
        "after": mutant.after,
        "equivalent": EQUIVALENT.get((target.name, mutant.after)),
    }


def print_report(results: dict[str, Any], seconds: float) -> None:
    """Counts by function, then the survivors."""
    for name, counts in results["functions"].items():
        print(f"{counts['caught']:4d} / {counts['tried']:4d}  {name}")
    total = results["total"]
    caught = f"{total['caught']:4d} / {total['tried']:4d}"
    print(f"{caught}  in all, {total['by_number']} by a wrong number; {seconds} s")
    for survivor in results["survivors"]:
        print(f"\n{survivor['place']}  {survivor['function']}")
        print(f"    {survivor['before']}\n    {survivor['after']}")
        print(f"    {survivor['equivalent'] or 'SURVIVES, and is not known to be equivalent'}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if a survivor is unexplained."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    only = "only functions whose name contains this, such as BatchNorm"
    parser.add_argument("--only", default="", help=only)
    parser.add_argument("--out", type=Path, help="write the results there as JSON")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plain", action="store_true", help="only the plain definitions")
    alone = "only the twins; the environment must hold NUMBA_DISABLE_JIT=1"
    which.add_argument("--twins", action="store_true", help=alone)
    options = parser.parse_args(arguments)
    if not options.plain and find_spec("numba") is None:
        parser.error("the proof of the twins needs Numba: pip install 'minimeta[fast]', or --plain")
    started = time.perf_counter()
    results = prove_twins(options.only) if options.twins else prove(options.only)
    if not options.plain and not options.twins:
        others = twins_in_a_process(options.only)
        functions = results["functions"] | others["functions"]
        results = of_all(functions, results["survivors"] + others["survivors"])
    seconds = round(time.perf_counter() - started, 1)
    print_report(results, seconds)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"provenance": provenance(), "seconds": seconds, **results}
        text = json.dumps(report, indent=2) + "\n"
        write_atomically(options.out, lambda file: file.write(text.encode()))
    return int(any(survivor["equivalent"] is None for survivor in results["survivors"]))


if __name__ == "__main__":
    sys.exit(main())
