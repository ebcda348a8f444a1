"""Provenance: the versions, machine, commit and time that produced a number."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays.threads import available_cores
from ..version import __version__


def provenance(module: str = "numpy") -> dict[str, Any]:
    """A JSON object to store with every result."""
    return {
        "minimeta": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "array_module": module,
        "machine": f"{platform.system()} {platform.machine()}, {available_cores()} cores",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str | None:
    """The commit of the checkout from which this package is imported.

    A "+" means that the package, or a script that produces results, has changed
    since this commit. None if the package is not in a checkout.
    """
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
