"""The errors of minimeta. Every message says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

_LONGEST = 2000  # characters of a message


def one_line(text: object) -> str:
    """``text`` as one printable line, such as a message of another library.

    Line breaks and tabs become spaces. Other characters that a terminal would
    obey become their escapes. The middle of a very long text is left out.
    """
    line = " ".join(part.strip() for part in str(text).splitlines() if part.strip())
    line = line.replace("\t", " ")
    if not line.isprintable():
        line = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in line
        )
    half = _LONGEST // 2
    return line if len(line) <= _LONGEST else f"{line[:half]} ... {line[-half:]}"


def reason_of(error: BaseException) -> str:
    """The reason of an error in one line, without the number and the path that
    an error of the system has too."""
    return one_line(getattr(error, "strerror", None) or error) or type(error).__name__


def shown(value: Any, text: Callable[[Any], str] = repr, most: int = 60) -> str:
    """A value as it stands in a message, cut to ``most`` characters."""
    told = text(value)
    return told if len(told) <= most else f"{told[: most - 3]}..."


def did_you_mean(words: Sequence[str]) -> str:
    """A question that ends a message about an unknown word."""
    return f": did you mean {' or '.join(words)}?" if words else ""


class MinimetaError(Exception):
    """Base of all errors of minimeta. Catching it catches them all.

    Its text is one line, whatever file names and other messages it contains.
    """

    def __str__(self) -> str:
        return one_line(super().__str__())


class ShapeError(MinimetaError, ValueError):
    """An array's shape does not fit the layer or argument that receives it."""


class SettingsError(MinimetaError, ValueError):
    """A setting makes no sense, alone or together with another setting."""


class DivergenceError(MinimetaError, ArithmeticError):
    """A loss, a parameter or a rule's state stopped being finite."""


class DeviceError(MinimetaError, RuntimeError):
    """The requested device cannot be used on this machine."""


class DataError(MinimetaError, OSError):
    """A dataset is missing, truncated or altered."""


class CheckpointError(MinimetaError, OSError):
    """A run folder or checkpoint is missing, truncated, altered, or belongs to
    other settings."""


class VectorsError(MinimetaError, OSError):
    """Conformance vectors cannot be used, or results disagree with them.

    The folder may be missing, truncated, altered or of another version.
    """


class SweepError(MinimetaError, RuntimeError):
    """Some runs of a sweep failed, or their processes died.

    Its text has one line more for each such run.
    """

    def __str__(self) -> str:
        return RuntimeError.__str__(self)
