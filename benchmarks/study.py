"""Style against identity: `noise_baseline` at equal w(t), three learning rates, ControlNet, and the ablation ladder.

    python benchmarks/study.py --work DIR [--plan] [--only ladder] [--workers 2]

One cell is a configuration, a style and a seed. Every cell is one file in DIR/cells; a command that was killed goes on
with the cells that are missing. Writes DIR/study.json, DIR/study.svg, DIR/study.png and DIR/study.md.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, also for child processes

from cells import Networks, add_options, read_cell, run_cells, show
from study_cell import run_any
from study_figure import draw
from study_plan import (
    SEEDS,
    STYLES,
    Configuration,
    baseline_grid,
    configurations,
    expected_seconds,
    ladder,
    own_weights,
)
from study_tables import Study, write_tables

from distill3d.files import write_text
from distill3d.tiny.evaluation import SUBJECTS
from distill3d.tiny.generator import TinyTriplane

SNAPSHOTS = (25, 50, 100)


def cells_of(options: argparse.Namespace, checksum: str) -> dict[Path, dict[str, Any]]:
    """File and settings of every cell, the references first: they prepare what the others read."""
    networks = Networks(options.weights, options.scorer_weights, options.judges, options.clip)
    shared = {
        "networks": networks.plain(),
        "checksum": checksum,
        "subjects": list(SUBJECTS[: options.subjects]),
        "cache": str(options.work / "truth"),
    }
    folder: Path = options.work / "cells"
    cells: dict[Path, dict[str, Any]] = {}
    for style in options.styles:
        cells[folder / f"references_{style}.json"] = {"kind": "references", "style": style, **shared}
    # Seed by seed: a study that is stopped early has all configurations at fewer seeds.
    for seed in options.seeds:
        for configuration in chosen(options):
            for style in options.styles:
                cells[folder / cell_name(configuration, style, seed)] = {
                    "kind": "cell",
                    "method": configuration.method,
                    "options": dict(configuration.options),
                    "lr": configuration.lr,
                    "style": style,
                    "seed": seed,
                    "steps": options.steps,
                    "batch": options.batch,
                    "snapshots": snapshots_of(options),
                    **shared,
                }
    return cells


def cell_name(configuration: Configuration, style: str, seed: int) -> str:
    return f"{configuration.key}_{style}_{seed}.json"


def snapshots_of(options: argparse.Namespace) -> list[int]:
    """The steps at which a cell is measured, the last among them."""
    return sorted({min(step, options.steps) for step in (*SNAPSHOTS, options.steps)})


def chosen(options: argparse.Namespace) -> list[Configuration]:
    """The configurations that --only names."""
    groups = {
        "ladder": [*ladder(options.lr).values(), *own_weights(options.lr).values()],
        "baseline": list(baseline_grid(options.lr).values()),
        "all": configurations(options.lr),
    }
    return list(dict.fromkeys(groups[options.only]))


def print_plan(options: argparse.Namespace, cells: dict[Path, dict[str, Any]]) -> int:
    """What there is to do and what it costs; returns how many cells are missing."""
    missing = [path for path, settings in cells.items() if read_cell(path, settings) is None]
    per_cell = [expected_seconds(c, options.steps, snapshots_of(options)) for c in chosen(options)]
    total = sum(per_cell) * len(options.styles) * len(options.seeds)
    share = len(missing) / max(1, len(cells))
    print(
        f"{len(per_cell)} configurations x {len(options.styles)} styles x {len(options.seeds)} seeds, "
        f"{options.steps} steps of {options.batch} subjects, measured at steps "
        f"{', '.join(map(str, snapshots_of(options)))} on {options.subjects} subjects.\n"
        f"{len(cells)} cells, {len(missing)} to do: about {total * share:.0f} of {total:.0f} CPU-s "
        f"({min(per_cell):.0f} to {max(per_cell):.0f} each), {total * share / 60 / options.workers:.0f} min with "
        f"{options.workers} processes that have a core each.",
        flush=True,
    )
    return len(missing)


def collect(options: argparse.Namespace, cells: dict[Path, dict[str, Any]]) -> Study:
    """Everything that is finished."""
    found = {path: cell for path, settings in cells.items() if (cell := read_cell(path, settings)) is not None}
    references = {c["settings"]["style"]: c["rows"] for c in found.values() if c["settings"]["kind"] == "references"}
    runs = {
        (configuration, style, seed): found[path]
        for configuration in chosen(options)
        for style in options.styles
        for seed in options.seeds
        if (path := options.work / "cells" / cell_name(configuration, style, seed)) in found
    }
    return Study(runs, references, list(options.styles), list(options.seeds), options.lr)


def write_results(options: argparse.Namespace, study: Study) -> None:
    """study.json, the tables and the figure, of the cells that are there."""
    if not study.runs:
        print("No cell is finished yet.")
        return
    write_text(options.work / "study.json", json.dumps(study.plain(), indent=1) + "\n")
    write_tables(study, options.work / "study.md")
    draw(study, options.work)
    print(f"{len(study.runs)} cells in {options.work}: study.md, study.json, study.svg, study.png")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    defaults = TinyTriplane.defaults
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of the cells and the results")
    parser.add_argument("--plan", action="store_true", help="say what there is to do and what it costs, do nothing")
    parser.add_argument("--results", action="store_true", help="only draw the results of the cells that are there")
    parser.add_argument("--only", choices=("all", "ladder", "baseline"), default="all")
    parser.add_argument("--styles", nargs="+", default=list(STYLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=defaults.batch)
    parser.add_argument("--lr", type=float, default=defaults.lr, help="the middle one of the three")
    add_options(parser)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    networks = Networks(options.weights, options.scorer_weights, options.judges, options.clip)
    cells = cells_of(options, networks.checksum())
    missing = print_plan(options, cells)
    if options.plan:
        return
    if not options.results and missing:
        started = time.perf_counter()
        first = {path: s for path, s in cells.items() if s["kind"] == "references"}
        rest = {path: s for path, s in cells.items() if s["kind"] == "cell"}
        number = 0
        for part in (first, rest):
            for path, cell in run_cells(run_any, part, options.workers):
                number += 1
                show(number, missing, path, cell, started)
    write_results(options, collect(options, cells))


if __name__ == "__main__":
    main()
