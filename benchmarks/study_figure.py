"""The study as one figure: style against identity along the steps, distance to the truth, and the ladder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from study_plan import BASELINES, LR_FACTORS, Configuration, baseline_grid, ladder, own_weights
from study_tables import Study

from distill3d.files import written_aside

COLOURS = ("#1f4e8c", "#3f8fb5", "#7a7a7a", "#d98841", "#a8322a")  # LD is blue, SDS red
TRADE = ("style_accuracy", "retrieval_top1")
LADDER_PANELS = (
    ("style_accuracy", "style accuracy"),
    ("retrieval_top1", "identity top-1"),
    ("psnr", "PSNR to truth, dB"),
)
REFERENCES = {"ceiling": ("*", "#222222"), "untouched": ("s", "#888888"), "mean head": ("X", "#888888")}


def draw(study: Study, folder: Path) -> None:
    """study.svg and study.png."""
    from matplotlib.figure import Figure  # heavy: only when something is drawn

    figure = Figure(figsize=(11, 16), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(4, 1))  # long labels below need not narrow what is above
    axes, bottom = upper.subplots(4, 3, sharey="row"), lower.subplots(1, 3)
    grid = baseline_grid(study.lr)
    for row, control in enumerate((False, True)):
        for column, factor in enumerate(LR_FACTORS):
            lines = {b: grid[study.lr * factor, control, b] for b in BASELINES}
            title = f"lr {study.lr * factor:.2g}, {'with' if control else 'without'} ControlNet"
            _trade(axes[row, column], study, lines, title)
            _distance(axes[2 + row, column], study, lines, title)
    axes[0, 0].legend(fontsize=7, title="noise_baseline", title_fontsize=7)
    rungs = {**ladder(study.lr), **own_weights(study.lr)}
    for place, (axis, (key, title)) in enumerate(zip(bottom, LADDER_PANELS)):
        _rungs(axis, study, rungs, key, title, named=place == 0)
    for name in ("study.svg", "study.png"):
        with written_aside(folder / name) as aside:
            options = {"metadata": {"Date": None}} if name.endswith("svg") else {"dpi": 110}
            figure.savefig(aside, **options)


def _trade(axis: Any, study: Study, lines: dict[float, Configuration], title: str) -> None:
    """Style accuracy across, identity up; a line follows the steps, its last point has intervals."""
    begin = [_reference(study, "untouched", key) for key in TRADE]
    for (baseline, configuration), colour in zip(lines.items(), COLOURS):
        points = [_point(study, configuration, step) for step in study.steps()]
        ways = [[start, *(point[i].mean for point in points)] for i, start in enumerate(begin)]
        axis.plot(*ways, color=colour, linewidth=1, alpha=0.7, marker=".", markersize=3)
        across, up = points[-1]
        name = {0.0: "0 (LD)", 1.0: "1 (SDS)"}.get(baseline, f"{baseline:g}")
        axis.errorbar(
            across.mean,
            up.mean,
            _half(up),
            _half(across),
            fmt="o",
            color=colour,
            markersize=4,
            linewidth=0.8,
            label=name,
        )
    for name, (marker, colour) in REFERENCES.items():
        where = [_reference(study, name, key) for key in TRADE]
        axis.plot(*[[v] for v in where], marker=marker, color=colour, markersize=6, linestyle="none")
        if all(map(math.isfinite, where)):
            side, shift = ("right", -5) if where[0] > 0.5 else ("left", 5)
            axis.annotate(name, where, fontsize=6, xytext=(shift, 4), textcoords="offset points", ha=side, color=colour)
    axis.set(xlim=(-0.05, 1.08), ylim=(-0.05, 1.08))
    _label(axis, title, "style accuracy", "identity top-1")


def _point(study: Study, configuration: Configuration, step: int) -> tuple[Any, Any]:
    across, up = (study.interval(configuration, key, step) for key in TRADE)
    return across, up


def _distance(axis: Any, study: Study, lines: dict[float, Configuration], title: str) -> None:
    """PSNR to the truth over the steps, with the intervals as bands."""
    steps = study.steps()
    for configuration, colour in zip(lines.values(), COLOURS):
        values = [study.interval(configuration, "psnr", step) for step in steps]
        means, halves = [v.mean for v in values], [_half(v) for v in values]
        axis.plot(steps, means, color=colour, linewidth=1.2, marker=".", markersize=4)
        low, high = [m - h for m, h in zip(means, halves)], [m + h for m, h in zip(means, halves)]
        axis.fill_between(steps, low, high, color=colour, alpha=0.12, linewidth=0)
    untouched = _reference(study, "untouched", "psnr")
    if math.isfinite(untouched):
        axis.axhline(untouched, color="#888888", linewidth=0.8, linestyle="--")
    _label(axis, title, "step", "PSNR to truth, dB")


def _rungs(axis: Any, study: Study, rungs: dict[str, Configuration], key: str, title: str, *, named: bool) -> None:
    """One point with its interval for each rung, from the top; pale: each style by itself."""
    step, places = study.last_step(), [-i - (i >= 7) for i in range(len(rungs))]
    for place, configuration in zip(places, rungs.values()):
        value = study.interval(configuration, key, step)
        axis.errorbar(value.mean, place, xerr=_half(value), fmt="o", color="#1f4e8c", markersize=4, linewidth=1)
        for style in study.styles:
            axis.plot([study.interval(configuration, key, step, style).mean], [place], "|", color="#999999")
    axis.set_yticks(places, list(rungs) if named else [""] * len(rungs))
    _label(axis, title, "", "")


def _half(interval: Any) -> float:
    return interval.half if math.isfinite(interval.half) else 0.0


def _reference(study: Study, name: str, key: str) -> float:
    values = [rows[name].get(key) for rows in study.references.values() if name in rows]
    return sum(values) / len(values) if values and None not in values else math.nan  # type: ignore[arg-type]


def _label(axis: Any, title: str, across: str, up: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(across, fontsize=8)
    axis.set_ylabel(up, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.25, linewidth=0.5)
