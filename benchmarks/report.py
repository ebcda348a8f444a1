"""Write docs/speed.md, and speed.md for the README, from the result files.

So their numbers are always those of the results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from minimeta.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
Row = dict[str, Any]
OURS = "minimeta"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _spaced(variant: str) -> str:
    return re.sub(", *", ", ", variant)


def milliseconds(row: Row) -> str:
    """The median, to three digits."""
    median = row["milliseconds"]["median"]
    return f"{median:.3g} ms" if median < 999.5 else f"{median / 1e3:.3g} s"


def ratio(row: Row) -> str:
    """Median and quartiles."""
    low, high = row["ratio"]["quartiles"]
    return f"{row['ratio']['median']:.2g} ({low:.2g} to {high:.2g})"


def times_of(case: dict[str, Any]) -> str:
    """All variants of a piece of work, with times or reasons for no time."""
    rows = []
    for row in case["entries"]:
        name = [row["peer"], _spaced(row["variant"])]
        if "milliseconds" in row:
            rows.append([*name, milliseconds(row), ratio(row) if "ratio" in row else "1"])
        else:
            rows.append(
                [
                    *name,
                    row.get("not_run")
                    or f"not timed: differs by {max(row['errors'].values()):.0e}",
                    "",
                ]
            )
    return f"### {case['title']}\n\n" + table(["", "variant", "time", "minimeta / this"], rows)


def summary(speed: dict[str, Any]) -> str:
    """The fastest variant of each peer, for every piece of work."""
    timed = [case for case in speed["cases"].values() if case["kind"] != "memory"]
    peers = list(
        dict.fromkeys(
            row["peer"] for case in timed for row in case["entries"] if row["peer"] != OURS
        )
    )
    rows = []
    for case in timed:
        cells = []
        for peer in peers:
            found = [row for row in case["entries"] if row["peer"] == peer and "ratio" in row]
            best = max(found, key=lambda row: row["ratio"]["median"], default=None)
            cells.append(f"{milliseconds(best)} ({best['ratio']['median']:.2g})" if best else "")
        rows.append([case["title"], milliseconds(case["entries"][0]), *cells])
    return table(["", OURS, *peers], rows) + "\n"


def aims(speed: dict[str, Any]) -> str:
    """The aims, and the measured values."""
    rows = []
    for aim in speed["aims"]:
        unit = " ms" if aim["unit"] == "milliseconds" else ""
        item = speed["cases"][aim["case"]]["title"]
        peers = ", ".join(aim["peers"]) + (
            f" ({_spaced(aim['variant'])})" if aim["variant"] else ""
        )
        rows.append(
            [
                item,
                f"best of {peers}" if len(aim["peers"]) > 1 else peers or "absolute",
                f"{aim['at_most']:g}{unit}",
                f"{aim['found']:.2g}{unit}",
                "yes" if aim["reached"] else "no",
            ]
        )
    return table(["work", "against", "aim, at most", "found", "reached"], rows)


def memory(speed: dict[str, Any]) -> str:
    """MiB that a MAML gradient adds, per variant and number of steps."""
    cases = [case for case in speed["cases"].values() if case["kind"] == "memory"]
    steps = [
        name.rpartition("-")[2] for name, case in speed["cases"].items() if case["kind"] == "memory"
    ]
    found: dict[str, dict[int, str]] = {}
    for column, case in enumerate(cases):
        for row in case["entries"]:
            if "bytes" in row:
                found.setdefault(f"{row['peer']}, {row['variant']}", {})[column] = (
                    f"{row['bytes'] / 2**20:.1f}"
                )
    rows = [[name, *(cells.get(i, "") for i in range(len(cases)))] for name, cells in found.items()]
    return table(["inner steps", *steps], rows)


def breakdown(parts: dict[str, Any]) -> str:
    """The breakdown of the time of each step."""
    rows = []
    for step in parts["steps"].values():
        times = step["milliseconds"]
        shares = [
            f"{times[name]:.3g} ms ({times[name] / times['step']:.0%})"
            for name in ("products", "passes", "rest", "calls")
        ]
        gigaflops = step["gigaflops_of_products"]
        speed = f"{gigaflops:.0f} ({gigaflops / parts['peak_gigaflops']:.0%})"
        calls = str(step["matrix_products"] + step["other_operations"])
        rows.append(
            [
                step["title"],
                f"{times['step']:.3g} ms",
                *shares,
                speed,
                calls,
                f"{step['two_threads_by_one']:.2f}",
            ]
        )
    head = [
        "step, one thread",
        "time",
        "matrix products",
        "passes over memory",
        "rest: copies, allocation, cold caches",
        "the same calls on tiny arrays",
        "GFLOP/s of the products (of peak)",
        "operations",
        "two threads / one",
    ]
    return table(head, rows)


def versions(speed: dict[str, Any]) -> str:
    """Versions of all packages that ran."""
    found: dict[str, str] = {}
    for case in speed["cases"].values():
        for row in case["entries"]:
            found |= row.get("versions", {})
    commits = sorted(
        {case["provenance"]["commit"] or "unknown" for case in speed["cases"].values()}
    )
    first = next(iter(speed["cases"].values()))["provenance"]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(found.items()))
    machine = f"{first['machine']}, Python {first['python']}"
    return f"{machine}; {packages}; minimeta at commit {', '.join(commits)}; {first['date'][:10]}."


def page() -> str:
    """docs/speed.md: speed_page.md with every {{name}} filled in."""
    speed, parts = (
        json.loads((RESULTS / name).read_text()) for name in ("speed.json", "breakdown.json")
    )
    filled = {
        "versions": versions(speed),
        "aims": aims(speed),
        "breakdown": breakdown(parts),
        "times": "\n\n".join(
            times_of(case) for case in speed["cases"].values() if case["kind"] != "memory"
        ),
        "memory": memory(speed),
    }
    text = (ROOT / "benchmarks" / "speed_page.md").read_text()
    for name, value in filled.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def main() -> None:
    short = summary(json.loads((RESULTS / "speed.json").read_text()))
    for path, text in ((PAGE, page()), (RESULTS / "speed.md", short)):
        write_atomically(path, lambda file, text=text: file.write(text.encode()))
        print(f"written to {path}")


if __name__ == "__main__":
    main()
