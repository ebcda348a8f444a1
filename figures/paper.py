"""Writes docs/paper.md from figures/paper_page.md and the result files, so that no number in it can drift.

In the page {{NAME.md}} stands for a table of figures/results, {{facts NAME}} for what produced NAME.json, {{NAME: PATH}} for
a number in it, PATH being keys and places with dots between. A section of which a result is missing is left out, and named
at the end.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from minimeta.files import write_atomically

FIGURES = Path(__file__).resolve().parent
RESULTS, PAGE, TEMPLATE = (
    FIGURES / "results",
    FIGURES.parent / "docs" / "paper.md",
    FIGURES / "paper_page.md",
)


def page(template: str, results: Path = RESULTS) -> str:
    """The page, of the sections whose results are there."""
    first, *sections = re.split(r"^(?=## )", template, flags=re.MULTILINE)
    written, missing = [_filled(first, results)], []
    for section in sections:
        names = set(re.findall(r"\(\.\./figures/results/([^)]+)\)", section)) | {
            f"{name.removeprefix('facts ')}.json" if not name.endswith(".md") else name
            for name in re.findall(r"\{\{((?:facts )?[\w.-]+)", section)
        }
        if all((results / name).exists() for name in names):
            written.append(_filled(section, results))
        else:
            missing.append(section.splitlines()[0].removeprefix("## "))
    if missing:
        written.append(
            "## Not computed yet\n\n" + "\n".join(f"- {title}" for title in missing) + "\n"
        )
    return "".join(written)


def _filled(section: str, results: Path) -> str:
    """``section`` with what its placeholders stand for."""

    def value(match: re.Match[str]) -> str:
        said = match[1]
        if said.endswith(".md"):
            return (results / said).read_text().rstrip("\n")
        if said.startswith("facts "):
            return facts(json.loads((results / f"{said[6:]}.json").read_text()))
        name, _, path = said.partition(": ")
        return _at(json.loads((results / f"{name}.json").read_text()), path)

    return re.sub(r"\{\{([^}]+)\}\}", value, section)


def _at(tree: Any, path: str) -> str:
    """The number (or words) at a path, a number to three digits."""
    for key in path.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return f"{tree:.3g}" if isinstance(tree, float) else str(tree)


def facts(result: dict[str, Any]) -> str:
    """What produced a result, in a sentence or two."""
    made, by, told = result["provenance"], result.get("trained_by"), ""
    if by:
        if result["budget"]:  # a table without one tells each run's own
            told = f"{100 * result['budget']:g}% of the paper's meta-steps; "
        told += (
            f"{by['hours']:g} hours of training in all, on {', '.join(by['machine'])}, by minimeta "
        )
        told += f"{', '.join(by['commit'])}. "
        told += (
            f"Scored by minimeta {', '.join(by['measured'])}. Summed up by "
            if "measured" in by
            else "Summed up by "
        )
    return (
        told
        + f"minimeta {made['commit']}, NumPy {made['numpy']}, {made['machine']}, {made['date'][:10]}."
    )


def main() -> None:
    text = page(TEMPLATE.read_text())
    write_atomically(PAGE, lambda file: file.write(text.encode()))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
