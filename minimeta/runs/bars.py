"""Progress bars, and where they are shown."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial

from ..training.evaluation import Progress


def hidden(progress: bool | None) -> bool | None:
    """The argument ``disable`` of tqdm.

    None for ``progress`` shows a bar on a terminal and in a notebook, and not
    in a file.
    """
    if progress is None:
        return False if _in_notebook() else None
    return not progress


def of_evaluation(progress: bool | None) -> Progress:
    """The argument ``progress`` of an evaluation: a bar over its chunks."""
    return partial(_bar, disable=hidden(progress))


def _bar(chunks: Iterable, disable: bool | None) -> Iterable:
    from tqdm.auto import tqdm

    return tqdm(list(chunks), desc="evaluating", unit=" chunks", disable=disable, leave=False)


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this process."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
