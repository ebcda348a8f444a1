"""Settings as the first edition wrote them: one flat object.

The fields have the names that flags have today. Four things have changed. The
entropy of TAML is an algorithm of its own. FOMAML's update was "step", and
mini-ImageNet's network had 64 filters, where nothing was said. The sizes of
hidden layers were a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError


def is_first_edition(stored: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the flat form, in which the task is a word."""
    return isinstance(stored.get("task"), str)


# Values that belong to another flag today: (flag, value) to (flag, value).
MOVED = {("bias", "entropy"): ("algorithm", "taml-entropy")}


def flags_in(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Today's flags for the same run, including flags that the run ignores."""
    flags = {"fomaml_update": "step", "filters": 64} | dict(stored)
    for (flag, value), (new, name) in MOVED.items():
        if flags.get(flag) == value:
            del flags[flag]
            if flags.get(new) == "taml":
                flags[new] = name
    return flags


def refuse_moved(asked: Mapping[str, Any]) -> None:
    """Raise a SettingsError if a value belongs to another flag today."""
    for (flag, value), (new, name) in MOVED.items():
        if asked.get(flag) == value:
            raise SettingsError(f"{flag} {value!r} is now {new} {name!r}: set {new} to {name}")
