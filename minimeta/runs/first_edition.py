"""Settings as the first edition wrote them: one flat object of forty fields.

The fields have the names that flags have today. Three things have changed. The
entropy of TAML is an algorithm of its own. FOMAML's update was "step" where
nothing was said. The sizes of hidden layers were a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SettingsError


def is_first_edition(stored: Mapping[str, Any]) -> bool:
    """Whether a JSON object has the flat form, whose task is a word."""
    return isinstance(stored.get("task"), str)


# Values of a flag that are another flag's today: (flag, value) to (flag, value).
MOVED = {("bias", "entropy"): ("algorithm", "taml-entropy")}


def flags_in(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of today that say the same. Some are of classes that the run
    does not use."""
    flags = {"fomaml_update": "step"} | dict(stored)
    if flags.get("bias") == "entropy":
        del flags["bias"]
        if flags.get("algorithm") == "taml":
            flags["algorithm"] = "taml-entropy"
    return flags


def refuse_moved(asked: Mapping[str, Any]) -> None:
    """Raise the SettingsError of a value that is another flag's today."""
    for (flag, value), (new, name) in MOVED.items():
        if asked.get(flag) == value:
            raise SettingsError(f"{flag} {value!r} is {new} {name!r} now: set {new} to {name}")
