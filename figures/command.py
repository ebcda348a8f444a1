"""The command line that figure scripts without options of their own share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minimeta.files import write_atomically
from minimeta.provenance import provenance


def run(
    name: str, description: str, compute: Callable[[], dict[str, Any]], draw: Callable[[dict[str, Any], Path], list[Path]]
) -> dict[str, Any]:
    """Compute to ``<out>/<name>.json``, with what produced it, and draw from that file; what was drawn.

    ``--draw-only`` draws again from the file that is there.
    """
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help=f"folder for {name}.json, .png and .pdf (default: out)"
    )
    parser.add_argument("--draw-only", action="store_true", help=f"draw again from {name}.json")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.json"
    if not options.draw_only:
        text = json.dumps(compute() | {"provenance": provenance()}) + "\n"
        write_atomically(path, lambda file: file.write(text.encode()))
    result = json.loads(path.read_text())
    print("written:", *(str(each) for each in [path, *draw(result, path)]))
    return result
