"""The study's numbers: means over seeds with 95 % intervals, and differences between configurations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_plan import BASELINES, LR_FACTORS, Configuration, baseline_grid, ladder, own_weights

from distill3d.evaluation import Interval, mean_interval
from distill3d.files import write_text

COLUMNS = {  # key: title, digits
    "style_accuracy": ("style accuracy", 2),
    "retrieval_top1": ("identity top-1", 2),
    "psnr": ("PSNR to truth, dB", 2),
    "perceptual": ("perceptual", 3),
    "rsa_base": ("RSA base", 2),
    "rsa_truth": ("RSA truth", 2),
    "diversity": ("diversity", 2),
    "clip": ("CLIP", 3),
    "clip_direction": ("CLIP direction", 3),
    "own_clip": ("own CLIP", 3),
    "own_clip_direction": ("own direction", 3),
}
SHOWN_DIFFERENCES = ("style_accuracy", "retrieval_top1", "psnr", "rsa_truth", "diversity")


@dataclass(frozen=True)
class Study:
    """The finished cells of a study."""

    runs: Mapping[tuple[Configuration, str, int], Mapping[str, Any]]  # configuration, style, seed
    references: Mapping[str, Mapping[str, Mapping[str, float | None]]]  # style, row, column
    styles: list[str]
    seeds: list[int]
    lr: float

    def last_step(self) -> int:
        return max(cell["settings"]["steps"] for cell in self.runs.values())

    def steps(self) -> list[int]:
        return sorted({shot["step"] for cell in self.runs.values() for shot in cell["snapshots"]})

    def value(self, configuration: Configuration, style: str, seed: int, column: str, step: int) -> float:
        """A figure of one cell; NaN where there is none."""
        cell = self.runs.get((configuration, style, seed), {"snapshots": ()})
        found = next((shot.get(column) for shot in cell["snapshots"] if shot["step"] == step), None)
        return math.nan if found is None else float(found)

    def over_styles(self, configuration: Configuration, seed: int, column: str, step: int) -> float:
        """The mean over the styles; NaN unless every style is there: seeds must stay comparable."""
        values = [self.value(configuration, style, seed, column, step) for style in self.styles]
        return sum(values) / len(values)

    def interval(self, configuration: Configuration, column: str, step: int, style: str | None = None) -> Interval:
        """Over seeds, of one style or of the mean over styles."""
        if style is None:
            return mean_interval([self.over_styles(configuration, seed, column, step) for seed in self.seeds])
        return mean_interval([self.value(configuration, style, seed, column, step) for seed in self.seeds])

    def difference(self, one: Configuration, other: Configuration, column: str, step: int) -> Interval:
        """Of the mean over styles, seed by seed: what both share of a seed's luck falls out."""
        return mean_interval(
            [self.over_styles(one, s, column, step) - self.over_styles(other, s, column, step) for s in self.seeds]
        )

    def plain(self) -> dict[str, Any]:
        """Every cell, and the intervals at the last step, for JSON."""
        step = self.last_step()
        names = {**named(self.lr)}
        intervals = {
            name: {
                style or "mean over styles": {
                    column: _plain(self.interval(configuration, column, step, style)) for column in COLUMNS
                }
                for style in (None, *self.styles)
            }
            for name, configuration in names.items()
        }
        return {
            "step": step,
            "styles": self.styles,
            "seeds": self.seeds,
            "references": self.references,
            "intervals": intervals,
            "cpu_seconds": round(sum(cell["cpu_seconds"] for cell in self.runs.values()), 1),
            "cells": {f"{c.key}_{style}_{seed}": cell for (c, style, seed), cell in self.runs.items()},
        }


def _plain(interval: Interval) -> list[float | None]:
    """[mean, half width]."""
    return [value if math.isfinite(value) else None for value in (interval.mean, interval.half)]


def named(lr: float) -> dict[str, Configuration]:
    """Every configuration under the name that tables give it."""
    names = {**ladder(lr), **own_weights(lr)}
    for (rate, control, baseline), configuration in baseline_grid(lr).items():
        names[f"baseline {baseline:g}, lr {rate:.2g}{', ControlNet' if control else ''}"] = configuration
    return names


def pairs(lr: float) -> dict[str, tuple[Configuration, Configuration]]:
    """The differences that answer a question, by the question."""
    grid, rungs, own = baseline_grid(lr), ladder(lr), own_weights(lr)
    asked: dict[str, tuple[Configuration, Configuration]] = {}
    for factor in LR_FACTORS:
        for control in (False, True):
            rate, word = lr * factor, ", ControlNet" if control else ""
            key = f"LD - SDS at equal w(t), lr {rate:.2g}{word}"
            asked[key] = (grid[rate, control, BASELINES[0]], grid[rate, control, BASELINES[-1]])
    for factor in LR_FACTORS:
        for baseline, name in ((1.0, "SDS"), (0.0, "LD")):
            rate = lr * factor
            asked[f"ControlNet - none, {name}, lr {rate:.2g}"] = (
                grid[rate, True, baseline],
                grid[rate, False, baseline],
            )
    sds, sds_own = rungs["SDS + ControlNet"], own["SDS + ControlNet, w = sigma^2"]
    ld, ld_own = rungs["LD + ControlNet"], own["LD + ControlNet, w = sqrt(alpha_bar)/sigma"]
    asked["LD - SDS, each with its own w(t), ControlNet"] = (ld_own, sds_own)
    asked["w = sqrt(alpha_bar)/sigma - sigma, LD, ControlNet"] = (ld_own, ld)
    asked["w = sigma^2 - sigma, SDS, ControlNet"] = (sds_own, sds)
    names = list(rungs)
    for before, after in itertools.pairwise(names):
        asked[f"{after} - {before}"] = (rungs[after], rungs[before])
    asked["+ grid before SR - + rank weighting"] = (rungs["+ grid before SR"], rungs["+ rank weighting"])
    return asked


def write_tables(study: Study, path: Path) -> None:
    """One table of every configuration, one of differences; of what is finished."""
    step = study.last_step()
    columns = [c for c in COLUMNS if any(_said(study.interval(k, c, step)) for k in named(study.lr).values())]
    title = (
        f"Step {step}; mean over {' and '.join(study.styles)}, with the 95 % interval of the mean over "
        f"{len(study.seeds)} seeds (Student's t).\n\n"
    )
    rows = [(name, [study.interval(k, c, step) for c in columns]) for name, k in named(study.lr).items()]
    rows = [(name, row) for name, row in rows if any(map(_said, row))]
    text = title + _table(columns, [*rows, *_reference_rows(study, columns)])
    differences = [c for c in SHOWN_DIFFERENCES if c in columns]
    asked = [(q, [study.difference(a, b, c, step) for c in differences]) for q, (a, b) in pairs(study.lr).items()]
    asked = [(question, row) for question, row in asked if any(map(_said, row))]
    text += "\nDifferences, seed by seed; in bold where the interval leaves out 0.\n\n"
    text += _table(differences, asked, signed=True)
    write_text(path, text)


def _said(interval: Interval) -> bool:
    return math.isfinite(interval.mean)


def _reference_rows(study: Study, columns: list[str]) -> Iterable[tuple[str, list[Interval]]]:
    rows = next(iter(study.references.values()), {})
    for name in rows:
        values = [[study.references[style][name].get(c) for style in study.references] for c in columns]
        means = [math.nan if None in v else sum(v) / len(v) for v in values]  # type: ignore[arg-type]
        yield name, [Interval(mean, math.nan, 1, mean, mean) for mean in means]


def _table(columns: list[str], rows: list[tuple[str, list[Interval]]], signed: bool = False) -> str:
    lines = ["| | " + " | ".join(COLUMNS[c][0] for c in columns) + " |", "|---" + "|---:" * len(columns) + "|"]
    for name, row in rows:
        lines.append(f"| {name} | " + " | ".join(_cell(i, COLUMNS[c][1], signed) for c, i in zip(columns, row)) + " |")
    return "\n".join(lines) + "\n"


def _cell(interval: Interval, digits: int, signed: bool) -> str:
    if not _said(interval):
        return "-"
    mean = f"{interval.mean:+.{digits}f}" if signed else f"{interval.mean:.{digits}f}"
    text = f"{mean} ± {interval.half:.{digits}f}" if math.isfinite(interval.half) else mean
    sure = signed and math.isfinite(interval.half) and abs(interval.mean) > interval.half
    return f"**{text}**" if sure else text
