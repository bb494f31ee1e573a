"""The numbers of a run over its steps, as drawings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill3d.report.drawing import BLUE, RED, as_svg, column, dress, panels

CURVES = (  # key, title, logarithmic
    ("loss", "loss (half the mean square of the gradient)", True),
    ("gradient_norm", "norm of the weights' gradient (red: a skipped step)", True),
    ("lr", "learning rate", False),
    ("seconds", "seconds per step", False),
)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl or health.jsonl; a last one that was cut short by a kill is left out."""
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
    figure, all_axes = panels(2, 2, height=4.6)
    steps = [record["step"] for record in records]
    skipped = [record["step"] for record in records if record["skipped"]]
    for axes, (key, title, logarithmic) in zip(all_axes, CURVES):
        values = column(records, key)
        if key == "lr":
            axes.plot(steps, values, color=BLUE, linewidth=1.4)
        else:
            axes.plot(steps, values, color=BLUE, alpha=0.3, linewidth=0.8)
            axes.plot(steps, smoothed(values), color=BLUE, linewidth=1.4)
        for step in skipped:
            axes.axvline(step, color=RED, linewidth=0.6, alpha=0.5)
        if logarithmic and any(v > 0 for v in values if math.isfinite(v)):
            axes.set_yscale("log")
        dress(axes, title)
    return as_svg(figure)


def spectrum_svg(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Shares of the singular values of each term's guidance matrix, the largest at the bottom; None if none has any."""
    spectra = {}
    for term in _terms_with_spectrum(records):
        rows = [record for record in records if f"{term}/spectrum0" in record["figures"]]
        number = sum(f"{term}/spectrum{i}" in rows[0]["figures"] for i in range(64))
        shares = [smoothed(column([r["figures"] for r in rows], f"{term}/spectrum{i}")) for i in range(number)]
        spectra[term] = ([row["step"] for row in rows], shares)
    if not spectra:
        return None
    figure, all_axes = panels(len(spectra))
    for axes, (term, (steps, shares)) in zip(all_axes, spectra.items()):
        shades = [BLUE] if len(shares) == 1 else [_faded(0.9 - 0.7 * i / (len(shares) - 1)) for i in range(len(shares))]
        axes.stackplot(steps, shares, colors=shades, labels=[f"{i + 1}." for i in range(len(shares))])
        axes.set_ylim(0, 1)
        if len(steps) > 1:
            axes.set_xlim(steps[0], steps[-1])
        dress(axes, f"{term}: share of each singular value", legend=True)
    return as_svg(figure)


def _terms_with_spectrum(records: Sequence[Mapping[str, Any]]) -> list[str]:
    found = (key for record in records for key in record.get("figures", {}) if key.endswith("/spectrum0"))
    return list(dict.fromkeys(key.removesuffix("/spectrum0") for key in found))


def _faded(strength: float) -> tuple[float, float, float]:
    """BLUE mixed with white: 1 is BLUE."""
    parts = (int(BLUE[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (1 - strength * (1 - part) for part in parts)
    return red, green, blue
