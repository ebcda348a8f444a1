"""Markdown tables for the README and docs/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def note(remark: str) -> list[str]:
    """A sentence below tables; nothing for an empty remark."""
    return [f"{remark[:1].upper()}{remark[1:]}.\n"] if remark else []


def table(title: str, head: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table of named ``rows`` under ``head``; ``title`` heads the names."""
    lines = [
        [title, *head],
        ["---"] * (len(head) + 1),
        *([name, *cells] for name, cells in rows.items()),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
