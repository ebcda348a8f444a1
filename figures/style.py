"""The style of all figures, and a function that saves them."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.4, 7.0  # column widths of a paper, in inches

plt.rcParams.update(
    {
        "font.family": "serif",
        "font.serif": ["STIXGeneral", "DejaVu Serif"],
        "mathtext.fontset": "stix",
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "xtick.major.width": 0.6,
        "ytick.major.width": 0.6,
        "lines.linewidth": 1.2,
        "legend.frameon": False,
        "legend.fontsize": 8,
        "savefig.bbox": "tight",
        "savefig.pad_inches": 0.03,
        "pdf.fonttype": 42,
    }
)


def save(figure: Figure, path: Path) -> list[Path]:
    """Save as PNG and PDF. The same figure gives the same bytes."""
    written = []
    for suffix, metadata in (
        (".png", {"Software": None}),
        (".pdf", {"CreationDate": None, "ModDate": None, "Producer": None}),
    ):
        target = path.with_suffix(suffix)
        figure.savefig(target, dpi=200, metadata=metadata)
        written.append(target)
    plt.close(figure)
    return written
