"""Where progress bars are shown."""

from __future__ import annotations

import sys


def hidden(progress: bool | None) -> bool | None:
    """The argument ``disable`` of tqdm.

    None for ``progress`` shows a bar on a terminal and in a notebook, and not
    in a file.
    """
    if progress is None:
        return False if _in_notebook() else None
    return not progress


def _in_notebook() -> bool:
    """Whether a notebook's kernel runs this process."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"
