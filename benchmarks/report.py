"""Write docs/speed.md, and speed.md for the README, from the result files.

So their numbers are always those of the results.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

from minimeta.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
Row = dict[str, Any]
OURS, WITHOUT_FAST = "minimeta", "without fast"
FORMS = ("default", WITHOUT_FAST)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def _spaced(variant: str) -> str:
    return re.sub(", *", ", ", variant)


def milliseconds(row: Row) -> str:
    """The median, to three digits."""
    return _time(row["milliseconds"]["median"])


def _time(milliseconds: float) -> str:
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds / 1e3:.3g} s"


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
    found = table(["", "variant", "time", "minimeta / this"], rows)
    return "\n\n".join([f"### {case['title']}", *floor_of(case), found])


def floor_of(case: dict[str, Any]) -> list[str]:
    """A sentence on the case's floor; none in results without floors."""
    if "floor" not in case:
        return []
    floor = case["floor"]
    cores = f"{floor['cores']} cores" if floor["cores"] > 1 else "1 core"
    return [
        f"Matrix products alone: {floor['multiply_adds'] / 1e6:,.4g} million multiply-adds, "
        f"{_time(floor['milliseconds'])} at {floor['peak_gigaflops']:.0f} GFLOP/s per core on "
        f"{cores}. minimeta takes {floor['ratio']:.2f} times as long."
    ]


def forms(speed: dict[str, Any]) -> str:
    """How minimeta ran: with the extra ``fast``, without it, or both."""
    cases = list(speed["cases"].values())
    numba = [case["entries"][0].get("versions", {}).get("numba") for case in cases]
    if not any(numba):
        return "minimeta runs on NumPy alone, without the extra `fast`."
    return (
        "minimeta runs as installed with its extra `fast` (numba "
        + ", ".join(sorted({each for each in numba if each}))
        + "). The variant *without fast* runs in a process with `MINIMETA_FAST=0`, as if the "
        "extra were not installed. All ratios are those of the default variant."
    )


def summary(speed: dict[str, Any]) -> str:
    """The fastest variant of each peer, for every piece of work.

    Results with a variant without the extra ``fast`` show it beside minimeta,
    and results with floors show them last.
    """
    timed = [case for case in speed["cases"].values() if case["kind"] != "memory"]
    peers = list(
        dict.fromkeys(
            row["peer"] for case in timed for row in case["entries"] if row["peer"] != OURS
        )
    )
    plain = [_without_fast(case) for case in timed]
    rows = []
    for case, without in zip(timed, plain, strict=True):
        cells = [_cell(without)] if any(plain) else []
        for peer in peers:
            found = [row for row in case["entries"] if row["peer"] == peer and "ratio" in row]
            cells.append(_cell(max(found, key=lambda row: row["ratio"]["median"], default=None)))
        if any("floor" in each for each in timed):
            floor = case.get("floor")
            cells.append(f"{_time(floor['milliseconds'])} ({floor['ratio']:.2g})" if floor else "")
        rows.append([case["title"], milliseconds(case["entries"][0]), *cells])
    head = ["", OURS, *([f"{OURS}, {WITHOUT_FAST}"] if any(plain) else []), *peers]
    if any("floor" in case for case in timed):
        head.append("matrix products at peak")
    return table(head, rows) + "\n"


def _without_fast(case: dict[str, Any]) -> Row | None:
    """Our timed variant without the extra ``fast``, if there is one."""
    own = (row for row in case["entries"] if row["peer"] == OURS and "ratio" in row)
    return next((row for row in own if row["variant"] == WITHOUT_FAST), None)


def _cell(row: Row | None) -> str:
    return f"{milliseconds(row)} ({row['ratio']['median']:.2g})" if row else ""


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
                found.setdefault(f"{row['peer']}, {_spaced(row['variant'])}", {})[column] = (
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


def default_kernels(parts: dict[str, Any]) -> str:
    """The steps of the breakdown with the kernels that are chosen by
    default; empty for results without them."""
    rows = []
    for step in parts["steps"].values():
        if "default_kernels" in step:
            own = step["default_kernels"]
            before, after = step["milliseconds"]["step"], own["milliseconds"]
            rows.append(
                [
                    step["title"],
                    f"{before:.3g} ms",
                    f"{after:.3g} ms ({after / before:.0%})",
                    f"{step['two_threads_by_one']:.2f}",
                    f"{own['two_threads_by_one']:.2f}",
                ]
            )
    head = ["step, one thread", "plain", "default", "two threads / one, plain", "default"]
    if not rows:
        return ""
    kernels = parts["default_kernels"]
    return (
        f"The same steps with the default kernels ({kernels}), whose parts are not visible from "
        "outside:\n\n" + table(head, rows)
    )


def training_runs(found: dict[str, Any] | None) -> str:
    """Whole training runs: wall and CPU seconds and memory, by preset."""
    if found is None or not found["runs"]:
        return "No run has been measured."
    rows = []
    for name, run in found["runs"].items():
        notes = [] if run["complete"] else ["shortened"]
        notes += ["a part of the images"] if run.get("part") else []
        said = f"{run['iterations']:,}" + (f" ({', '.join(notes)})" if notes else "")
        row = [name, said]
        for form in FORMS:
            row += _of_form(run["forms"].get(form), run.get("skipped"))
        rows.append(row)
    head = ["preset", "meta-steps"]
    for form in FORMS:
        head += [f"{form}: wall", "CPU", "peak memory"]
    return table(head, rows)


def _of_form(repeats: list[Row] | None, skipped: str | None) -> list[str]:
    if not repeats:
        return [f"not run: {skipped}" if skipped else "not run", "", ""]
    wall, cpu, memory = (
        [each[name] for each in repeats]
        for name in ("wall_seconds", "cpu_seconds", "peak_memory_bytes")
    )
    spread = f" ({min(wall):.3g} to {max(wall):.3g})" if len(wall) > 1 else ""
    return [
        f"{median(wall):.3g} s{spread}",
        f"{median(cpu):.3g} s",
        f"{max(memory) / 2**20:.0f} MiB",
    ]


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
    runs = RESULTS / "runs.json"
    filled = {
        "versions": versions(speed),
        "forms": forms(speed),
        "summary": summary(speed).rstrip(),
        "breakdown": breakdown(parts),
        "default kernels": default_kernels(parts),
        "runs": training_runs(json.loads(runs.read_text()) if runs.exists() else None),
        "times": "\n\n".join(
            times_of(case) for case in speed["cases"].values() if case["kind"] != "memory"
        ),
        "memory": memory(speed),
    }
    text = (ROOT / "benchmarks" / "speed_page.md").read_text()
    for name, value in filled.items():
        text = text.replace("{{" + name + "}}", value)
    return re.sub("\n{3,}", "\n\n", text)


def main() -> None:
    short = summary(json.loads((RESULTS / "speed.json").read_text()))
    for path, text in ((PAGE, page()), (RESULTS / "speed.md", short)):
        write_atomically(path, lambda file, text=text: file.write(text.encode()))
        print(f"written to {path}")


if __name__ == "__main__":
    main()
