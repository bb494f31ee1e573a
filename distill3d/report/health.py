"""Health over a run, as drawings and as one sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distill3d.report.drawing import BLUE, INKS, RED, as_svg, column, dress, panels

FIGURES = (
    ("kept", "differences kept (below the line: collapsed)"),
    ("diversity", "diversity (1: as the originals, 0: all alike)"),
    ("identity", "identity (correlation of distances)"),
    ("change", "change (0: untouched)"),
)


def alarm(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """What the checks say about a collapse, or None if there was none."""
    ill = [line for line in lines if line.get("collapsed")]
    if not ill:
        return None
    first, last = ill[0], lines[-1]
    lost = f"collapsed at step {first['step']}: its subjects kept {first['kept']:.0%} of what told them apart"
    if last.get("collapsed"):
        return f"This run {lost}."
    return f"This run {lost}, and recovered: {last['kept']:.0%} at step {last['step']}."


def health_svg(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Kept differences, diversity, identity and change at every check, collapsed ones in red; None without a check."""
    if not lines:
        return None
    figure, all_axes = panels(2, 2, height=4.4)
    steps = [line["step"] for line in lines]
    for axes, (key, title) in zip(all_axes, FIGURES):
        values = column(lines, key)
        axes.plot(steps, values, color=BLUE, linewidth=1.4, marker="o", markersize=3)
        ill = [(step, value) for step, value, line in zip(steps, values, lines) if line.get("collapsed")]
        if ill:
            axes.plot(*zip(*ill), color=RED, linestyle="none", marker="o", markersize=5)
        if key == "kept" and lines[-1].get("collapse_below"):
            axes.axhline(lines[-1]["collapse_below"], color=RED, linewidth=0.8, linestyle="--")
        shown = [v for v in values if math.isfinite(v)]
        axes.set_ylim(min([0.0, *shown]) - 0.05, max([1.0, *shown]) + 0.05)
        dress(axes, title)
    return as_svg(figure)


def terms_svg(lines: Sequence[Mapping[str, Any]]) -> str | None:
    """Each term's gradient norm, signal-to-noise ratio and cosines at the checks; None if no check asked for them."""
    asked = [line for line in lines if line.get("terms")]
    names = list(dict.fromkeys(name for line in asked for name in line["terms"]))
    if not asked:
        return None
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    figure, (norms, ratios, *rest) = panels(2 + bool(pairs))
    steps = [line["step"] for line in asked]
    for name, ink in zip(names, INKS * len(names)):
        of_term = [line["terms"].get(name, {}) for line in asked]
        style = {"color": ink, "marker": "o", "markersize": 3, "linewidth": 1.4, "label": name}
        norms.plot(steps, column(of_term, "norm"), **style)
        ratios.plot(steps, column(of_term, "snr"), **style)
    if any(v > 0 for line in norms.lines for v in line.get_ydata()):
        norms.set_yscale("log")
    ratios.set_ylim(bottom=0)
    dress(norms, "norm of a term's gradient", legend=True)
    dress(ratios, "signal-to-noise ratio of a term")
    for axes in rest:
        for (a, b), ink in zip(pairs, INKS * len(pairs)):
            cosines = column([line["terms"].get(a, {}).get("cosines", {}) for line in asked], b)
            axes.plot(steps, cosines, color=ink, marker="o", markersize=3, linewidth=1.4, label=f"{a}, {b}")
        axes.set_ylim(-1.05, 1.05)
        dress(axes, "cosine of two terms", legend=True)
    return as_svg(figure)
