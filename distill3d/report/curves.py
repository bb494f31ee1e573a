"""The numbers of a run over its steps, as a drawing."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

CURVES = (  # key, title, logarithmic
    ("loss", "loss (half the mean square of the gradient)", True),
    ("gradient_norm", "norm of the weights' gradient", True),
    ("lr", "learning rate", False),
    ("seconds", "seconds per step", False),
)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last one that was cut short by a kill is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def smoothed(values: list[float], span: int = 9) -> list[float]:
    """The mean over the last `span` finite values."""
    out: list[float] = []
    for i in range(len(values)):
        window = [v for v in values[max(0, i - span + 1) : i + 1] if math.isfinite(v)]
        out.append(sum(window) / len(window) if window else math.nan)
    return out


def curves_svg(records: list[dict[str, Any]]) -> str:
    """Loss, gradient norm, learning rate and time per step as one SVG; skipped steps are marked.

    Raises:
        ValueError: without a record there is nothing to draw.
    """
    if not records:
        raise ValueError("There are no metrics to draw.")
    from matplotlib.figure import Figure  # heavy: only when something is drawn

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    steps = [record["step"] for record in records]
    skipped = [record["step"] for record in records if record["skipped"]]
    for axes, (key, title, logarithmic) in zip(figure.subplots(2, 2).flat, CURVES):
        values = [math.nan if record.get(key) is None else float(record[key]) for record in records]
        if key == "lr":
            axes.plot(steps, values, color="#3b6ea5", linewidth=1.4)
        else:
            axes.plot(steps, values, color="#3b6ea5", alpha=0.3, linewidth=0.8)
            axes.plot(steps, smoothed(values), color="#3b6ea5", linewidth=1.4)
        for step in skipped:
            axes.axvline(step, color="#c0392b", linewidth=0.6, alpha=0.5)
        if logarithmic and any(v > 0 for v in values if math.isfinite(v)):
            axes.set_yscale("log")
        axes.set_title(title, fontsize=9)
        axes.tick_params(which="both", labelsize=7)
        axes.grid(alpha=0.25, linewidth=0.5)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    drawing = out.getvalue()
    return drawing[drawing.index("<svg") :]
