"""What the drawings of a report have in common."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

BLUE, RED = "#3b6ea5", "#c0392b"
INKS = (BLUE, "#d08a2e", "#4f9a5b", "#8a62a8", "#b0577a", "#6b7a8f")


def column(records: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """The values under one key, NaN where there is none."""
    return [math.nan if record.get(key) is None else float(record[key]) for record in records]


def panels(columns: int, rows: int = 1, height: float = 2.5) -> tuple[Any, list[Any]]:
    """A figure as wide as a page, and its axes in reading order."""
    from matplotlib.figure import Figure  # heavy: only when something is drawn

    figure = Figure(figsize=(9, height), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def dress(axes: Any, title: str, *, legend: bool = False) -> None:
    """Title, small ticks, a pale grid."""
    axes.set_title(title, fontsize=9)
    axes.tick_params(which="both", labelsize=7)
    axes.grid(alpha=0.25, linewidth=0.5)
    if legend:
        axes.legend(fontsize=7, frameon=True, framealpha=0.8, edgecolor="none")


def as_svg(figure: Any) -> str:
    """As the text of an `<svg>` element."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    drawing = out.getvalue()
    return drawing[drawing.index("<svg") :]
