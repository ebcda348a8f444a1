"""Write docs/paper.md from figures/paper_page.md and the result files.

So the numbers of the page are always those of the results. In the page,
{{NAME.md}} stands for a table in figures/results, {{facts NAME}} for the
provenance of NAME.json, and {{NAME: PATH}} for a number in NAME.json, where
PATH is keys and list indices joined by dots. A section with a missing result is
omitted, and listed at the end.
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
    """The page, with the sections whose results exist."""
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
    """``section`` with its placeholders filled in."""

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
    """The number at a path, to three digits, or the words there."""
    for key in path.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return f"{tree:.3g}" if isinstance(tree, float) else str(tree)


def facts(result: dict[str, Any]) -> str:
    """The provenance of a result, in a sentence or two."""
    made, by, told = result["provenance"], result.get("trained_by"), ""
    if by:
        if result["budget"]:  # a table without a budget states that of each run
            told = f"{100 * result['budget']:g}% of the paper's meta-steps; "
        told += (
            f"{by['hours']:g} hours of training in all, on {', '.join(by['machine'])}, by minimeta "
        )
        told += f"{', '.join(by['commit'])}. "
        if "measured" in by:
            told += f"Scored by minimeta {', '.join(by['measured'])}. "
        told += "Summed up by "
    versions = f"minimeta {made['commit']}, NumPy {made['numpy']}"
    return f"{told}{versions}, {made['machine']}, {made['date'][:10]}."


def main() -> None:
    text = page(TEMPLATE.read_text())
    write_atomically(PAGE, lambda file: file.write(text.encode()))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
