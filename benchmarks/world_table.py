"""The six styles of the embedded world with the default settings, three seeds each, measured with paired truth.

    python benchmarks/world_table.py --work DIR [--styles zombie pixar] [--seeds 0 1 2] [--workers 2]

Every run goes through `distill3d run`'s own code, with the same settings for all styles. A run that was killed is
resumed from its checkpoint, a finished cell is read. Writes DIR/world.json, DIR/world.md, DIR/sheets/STYLE.png and, of
all styles together, DIR/sheets/styles.png.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, also for child processes

import torch
from cells import Networks, Settings, add_options, panel_of, read_cell, run_cells, show
from PIL import Image

from distill3d.config import DistillConfig
from distill3d.evaluate import SHEET, evaluate_run
from distill3d.evaluation import mean_interval
from distill3d.files import write_text, written_aside
from distill3d.models import load
from distill3d.recipe import distill, resume
from distill3d.report.pictures import contact_sheet, save_picture
from distill3d.runs import CONFIG, RUN, fingerprint, load_backbone
from distill3d.tiny.evaluation import (
    CEILING,
    CHANCE,
    COLUMNS,
    MEAN,
    SUBJECTS,
    UNTOUCHED,
    Setting,
    cell,
    load_clip,
    query_pictures,
)
from distill3d.tiny.world import STYLE_NAMES

STYLES = tuple(name for name in STYLE_NAMES if name != "photo")
SHOWN = 8  # subjects on the sheet of all styles
PART_OF_CEILING, GAIN = 0.85, 3.0  # goals: style accuracy and identity top-1; dB above the untouched generator


def run_cell(settings: Settings) -> dict[str, Any]:
    """One style and seed: the run, resumed if it was begun, then its evaluation."""
    networks = Networks(**settings["networks"])
    folder = Path(settings["folder"])
    config = DistillConfig(
        style=settings["style"],
        seed=settings["seed"],
        weights=networks.weights,
        scorer_weights=networks.scorer_weights,
        **settings["changes"],
    )
    cpu, wall = time.process_time(), time.perf_counter()
    if not (folder / CONFIG).exists():
        distill(config, folder)
    elif not (folder / RUN).exists():
        resume(folder)
    seconds = {"run_cpu": round(time.process_time() - cpu, 1), "run_wall": round(time.perf_counter() - wall, 1)}
    report = evaluate_run(
        folder,
        panel=panel_of(networks.judges),
        clip=load_clip(networks.clip) if networks.clip else None,
        cache=Path(settings["cache"]),
        seeds=settings["subjects"],
    )
    assert report.paired is not None  # the embedded world knows the truth of its own styles
    rows = {name: figures.plain() for name, figures in report.paired.rows.items()}
    return {"run": folder.name, "seconds": seconds, "rows": rows}


def cells_of(options: argparse.Namespace) -> dict[Path, dict[str, Any]]:
    """File and settings of each cell."""
    networks = Networks(options.weights, options.scorer_weights, options.judges, options.clip)
    checksum = networks.checksum()
    if options.backbone:
        base = load_backbone(DistillConfig(style="any", backbone=options.backbone, weights=options.weights))
        checksum = fingerprint(base)[:8] + checksum
    changes = {n: v for n in ("backbone", "method", "steps", "batch", "lr") if (v := getattr(options, n)) is not None}
    kind = "_".join([checksum[:8], *(f"{n}-{v}" for n, v in changes.items())])
    return {
        options.work / "cells" / f"world_{style}_{seed}.json": {
            "style": style,
            "seed": seed,
            "changes": changes,
            "networks": networks.plain(),
            "checksum": checksum,
            "subjects": list(SUBJECTS[: options.subjects]),
            "cache": str(options.work / "truth"),
            "folder": str(options.work / "runs" / f"{style}_{seed}_{kind}"),
        }
        for seed in options.seeds
        for style in options.styles
    }


def row_of(found: Mapping[str, Any]) -> Mapping[str, float | None]:
    """The stylised generator's row of a cell."""
    return found["rows"][found["run"]]


def table(cells: list[Mapping[str, Any]]) -> str:
    """Mean and range over seeds for every style, ceiling and floors below each, and what misses a goal."""
    styles = list(dict.fromkeys(found["settings"]["style"] for found in cells))
    used = [c for c in COLUMNS if any(row_of(found).get(c) is not None for found in cells)]
    lines = ["| | " + " | ".join(COLUMNS[c][0] for c in used) + " |", "|---" + "|---:" * len(used) + "|"]
    misses: list[str] = []
    for style in styles:
        group = [found for found in cells if found["settings"]["style"] == style]
        lines.append(
            f"| **{style}** | " + " | ".join(_range([row_of(f).get(c) for f in group], c) for c in used) + " |"
        )
        for name in (CEILING, UNTOUCHED, MEAN):
            row = group[0]["rows"][name]
            lines.append(f"| {name} | " + " | ".join(_range([row.get(c)], c) for c in used) + " |")
        misses += _misses(style, group)
    chance = cells[0]["rows"][CHANCE]
    lines.append(f"| **{CHANCE}** | " + " | ".join(_range([chance.get(c)], c) for c in used) + " |")
    walls = [found["seconds"]["run_wall"] for found in cells]
    note = f"A run took {min(walls):.0f} to {max(walls):.0f} s on one thread. Mean over seeds, and range."
    goals = f"Goals: style and identity {PART_OF_CEILING:g} of the ceiling, {GAIN:g} dB above the untouched generator."
    verdict = "\n".join(f"- {miss}" for miss in misses) or "- none"
    return "\n".join(lines) + f"\n\n{note}\n\n{goals} What misses:\n\n{verdict}\n"


def _range(values: list[float | None], column: str) -> str:
    """Mean, and (lowest to highest) where there are several."""
    pattern = COLUMNS[column][1]
    found = mean_interval([math.nan if v is None else v for v in values])
    if found.count < 2:
        return cell(found.mean, pattern)
    return f"{cell(found.mean, pattern)} ({cell(found.low, pattern)} to {cell(found.high, pattern)})"


def _misses(style: str, group: list[Mapping[str, Any]]) -> list[str]:
    """Every goal that the mean over seeds misses, with how much."""
    misses = []
    best = group[0]["rows"][CEILING]
    for column, title in (("style_accuracy", "style accuracy"), ("retrieval_top1", "identity top-1")):
        mean = mean_interval([float(row_of(f)[column] or 0.0) for f in group]).mean
        part = mean / best[column] if best[column] else math.nan
        if not part >= PART_OF_CEILING:
            misses.append(f"{style}: {title} {mean:.2f} is {part:.2f} of the ceiling's {best[column]:.2f}")
    gain = mean_interval([float(row_of(f)["psnr_gain"] or 0.0) for f in group]).mean
    if not gain >= GAIN:
        misses.append(f"{style}: PSNR to the truth {gain:+.1f} dB against the untouched generator")
    return misses


def keep_sheets(work: Path, cells: list[Mapping[str, Any]]) -> None:
    """sheets/STYLE.png of the first seed, STYLE_SEED.png of the others."""
    seen: set[str] = set()
    for found in cells:
        style, seed = found["settings"]["style"], found["settings"]["seed"]
        name = style if style not in seen else f"{style}_{seed}"
        seen.add(style)
        with written_aside(work / "sheets" / f"{name}.png") as aside:
            shutil.copyfile(Path(found["settings"]["folder"]) / "evaluation" / SHEET, aside)


def styles_sheet(cells: list[Mapping[str, Any]]) -> Image.Image:
    """The first subjects, untouched, and below in every style: the first seed's runs."""
    setting = Setting.of(SUBJECTS[:SHOWN])
    rows: dict[str, torch.Tensor] = {}
    for found in cells:
        style = found["settings"]["style"]
        if style not in rows:
            stylised = load(found["settings"]["folder"])
            original = stylised.original
            rows.setdefault("before", query_pictures(original, setting))
            rows[style] = query_pictures(stylised, setting)
    return contact_sheet(torch.stack(list(rows.values())), list(rows), [])


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs and the results")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--backbone", help="another than the embedded generator whose truth is known: tiny-lrm")
    parser.add_argument("--method", help="for all runs alike (default: the program's)")
    parser.add_argument("--steps", type=int, help="likewise")
    parser.add_argument("--batch", type=int, help="likewise")
    parser.add_argument("--lr", type=float, help="likewise")
    add_options(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    options.work = options.work.resolve()
    cells = cells_of(options)
    missing = sum(read_cell(path, settings) is None for path, settings in cells.items())
    print(f"{len(cells)} runs, {missing} to do", flush=True)
    started = time.perf_counter()
    for number, (path, found) in enumerate(run_cells(run_cell, cells, options.workers), 1):
        show(number, missing, path, found, started)
    finished = [found for path, settings in cells.items() if (found := read_cell(path, settings)) is not None]
    write_text(options.work / "world.json", json.dumps(finished, indent=1) + "\n")
    write_text(options.work / "world.md", table(finished))
    keep_sheets(options.work, finished)
    save_picture(styles_sheet(finished), options.work / "sheets" / "styles.png")
    print(f"{options.work / 'world.md'}\n\n{table(finished)}")


if __name__ == "__main__":
    main()
