"""A parser of command lines whose errors are short and suggest the right word.

The usage that an error shows is the usage of the command at hand. Below it
stands one line.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, NoReturn

from .errors import did_you_mean, shown

# No size of an array may be larger: sizes that a processor cannot count end in
# errors that do not name the flag.
LARGEST = 10**9
_NEAR = 0.7  # similarity of difflib from which a word may be meant


class Parser(argparse.ArgumentParser):
    """An ArgumentParser with short errors and without abbreviated flags."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The namespace, and no unknown words: they are refused.

        Every command has its own parser, which refuses the words of its own
        command. Unknown flags are refused first, because the word after an
        unknown flag would be taken for something else.
        """
        args = sys.argv[1:] if args is None else list(args)
        for flag in self._flags(args):
            if flag not in self._option_string_actions:
                self.error(f"unknown flag {shown(flag, str)}{self._nearest(flag)}")
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unexpected word {shown(unknown[0])}")
        return namespace, unknown

    def _flags(self, args: Sequence[str]) -> Iterator[str]:
        """The long flags among ``args``, before "--" and the next command."""
        words = takewhile(lambda word: word != "--", args)
        if self._subparsers is not None:
            words = takewhile(lambda word: word.startswith("-"), words)
        for word in words:  # argparse takes a word with a space for a value
            if word.startswith("--") and " " not in word:
                yield word.partition("=")[0]

    def _nearest(self, flag: str) -> str:
        """The known flags that ``flag`` may mean, as a question."""
        known = [each for each in self._option_string_actions if each.startswith("--")]
        parts = set(flag.strip("-").split("-"))
        near = [each for each in known if parts <= set(each.strip("-").split("-"))]
        near = near or [each for each in known if each.startswith(flag)]
        return did_you_mean(near[:3] or get_close_matches(flag, known, 1, _NEAR))

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = action.option_strings[0] if action.option_strings else _name(action)
            raise argparse.ArgumentError(None, f"{name} {not_among(action.choices, value)}")

    def error(self, message: str) -> NoReturn:
        """Exit with status 2, after the usage and one line."""
        line = message.removeprefix("argument ")
        line = re.sub(r"^(--\S+): (?=must |\S+ is unknown)", r"\1 ", line)
        self.exit(2, f"{self.format_usage()}{self.prog}: {line}\n")


def _name(action: argparse.Action) -> str:
    return str(action.metavar or action.dest).lower()


def not_among(words: Collection[str], value: str) -> str:
    """The end of a message about a word that is not one of ``words``.

    A long list of words is left out where one of them is near.
    """
    known, told = list(words), ", ".join(words)
    near = get_close_matches(value, known, 1, _NEAR)
    near = near or [word for word in known if len(word) > 2 and value.startswith(word)][:1]
    if near and len(told) > 60:
        return f"{shown(value)} is unknown{did_you_mean(near)}"
    return f"must be one of {told}, got {shown(value)}{did_you_mean(near)}"


def whole_number(least: int = 0, most: int | None = LARGEST) -> Callable[[str], int]:
    """An argparse type: a whole number from ``least`` to ``most``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {shown(text)}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, got {shown(value)}")
        refuse_huge(value, most)
        return value

    return read


def refuse_huge(value: Any, most: int | None = LARGEST) -> None:
    """Raise an ArgumentTypeError for a whole number above ``most``.

    A tuple is refused if one of its numbers is. None is no bound.
    """
    for each in value if isinstance(value, tuple) else (value,):
        if most is not None and isinstance(each, int) and each > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {shown(each)}")


def not_negative(text: str) -> float:
    """An argparse type: a finite number, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, got {shown(text)}")
    return value
