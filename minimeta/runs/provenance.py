"""The provenance of a number: versions, machine, commit, time."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.backend import device_facts
from ..arrays.compiled import compiled_by
from ..arrays.threads import available_cores
from ..version import __version__


def provenance(module: str = "numpy") -> dict[str, Any]:
    """A JSON object to store with every result.

    ``module`` is the name of the array module that computes the result. "numba"
    is None where nothing is compiled. For "cupy" the object also has the
    versions of CuPy, of the CUDA runtime and of the driver, and the name and
    memory of the card.
    """
    return {
        "minimeta": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": compiled_by() if module == "numpy" else None,
        "array_module": module,
        "machine": f"{platform.system()} {platform.machine()}, {available_cores()} cores",
        "processor": _processor(),
        "blas": _blas(),
        **(device_facts() if module == "cupy" else {}),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    """The model of the processor, or its family if no model is known."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _blas() -> list[str]:
    """Each BLAS in the process, with its version and the processor that its
    kernels are for. Other kernels round differently."""
    from threadpoolctl import threadpool_info

    told = [each for each in threadpool_info() if each["user_api"] == "blas"]
    return sorted(
        f"{each['internal_api']} {each['version']} {each.get('architecture', '')}".strip()
        for each in told
    )


def _commit() -> str | None:
    """The commit of the checkout that this package is imported from, with a "+"
    if the package, or a script that makes results with it, was changed since;
    None elsewhere."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "minimeta", "figures/*.py", "benchmarks/*.py")
        return git("rev-parse", "HEAD")[:12] + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
