"""Experiments as cells: one JSON file each, written aside and renamed, so that a killed command goes on where it was.

A cell is done if its file says the same settings and the same weights; otherwise it is computed (again).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from distill3d.files import sha256, write_text
from distill3d.tiny.evaluation import SUBJECTS, Panel
from distill3d.tiny.judges import JUDGES_FOLDER, load_judges

WEIGHTS = JUDGES_FOLDER.parent

Settings = Mapping[str, Any]  # plain values that JSON holds


@dataclass(frozen=True)
class Networks:
    """Where the networks lie; None for those that come with the package. Paths as text."""

    weights: str | None = None  # of the generator
    scorer_weights: str | None = None
    judges: str | None = None
    clip: str | None = None  # the diffusion model's own, from its work folder

    def checksum(self) -> str:
        """Of all weight files: results of other networks are not mixed with these."""
        places = [
            Path(self.weights or WEIGHTS / "generator.safetensors"),
            Path(self.scorer_weights or WEIGHTS / "diffusion"),
            Path(self.judges or JUDGES_FOLDER),
            *([Path(self.clip)] if self.clip else []),
        ]
        digest = hashlib.sha256()
        for place in places:
            files = [place] if place.is_file() else sorted(place.rglob("*.safetensors"))
            for file in files:
                digest.update(sha256(file).encode())
        return digest.hexdigest()[:16]

    def plain(self) -> dict[str, str | None]:
        return asdict(self)


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every experiment can be told: how many processes and subjects, and which networks."""
    parser.add_argument("--workers", type=int, choices=(1, 2, 3, 4), default=1, help="processes, one thread each")
    parser.add_argument("--subjects", type=int, default=len(SUBJECTS), help="that are measured")
    parser.add_argument("--weights", help="of the generator (default: the package's)")
    parser.add_argument("--scorer-weights", help="folder of the diffusion model (default: the package's)")
    parser.add_argument("--judges", help="folder of judges (default: the package's)")
    parser.add_argument("--clip", help="folder of the diffusion model's own CLIP (default: its columns stay empty)")


@lru_cache(maxsize=1)
def panel_of(judges: str | None) -> Panel:
    """The judges, loaded once in a process."""
    return load_judges(Path(judges) if judges else None)


def read_cell(path: Path, settings: Settings) -> dict[str, Any] | None:
    """What a finished cell says; None if it is missing, damaged, or of other settings."""
    try:
        cell = json.loads(path.read_text(encoding="utf-8"))
        return cell if cell["settings"] == json.loads(json.dumps(settings)) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def compute(work: Callable[[Settings], dict[str, Any]], path: Path, settings: Settings) -> dict[str, Any]:
    """One cell, in this process, on one thread."""
    torch.set_num_threads(1)
    cpu, wall = time.process_time(), time.perf_counter()
    result = work(settings)
    cost = {"cpu_seconds": round(time.process_time() - cpu, 1), "wall_seconds": round(time.perf_counter() - wall, 1)}
    cell = {"settings": dict(settings), **cost, **result}
    write_text(path, json.dumps(cell, indent=1, default=str) + "\n")
    return cell


def run_cells(
    work: Callable[[Settings], dict[str, Any]], cells: Mapping[Path, Settings], workers: int
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Compute the cells that are not there, and give each as it is finished.

    Args:
        work: a function of a module, so that other processes find it.
        workers: processes, one thread each; 1 computes here.
    """
    missing = {path: settings for path, settings in cells.items() if read_cell(path, settings) is None}
    if workers == 1:
        for path, settings in missing.items():
            yield path, compute(work, path, settings)
        return
    # spawn: a forked process would inherit torch's threads in an unknown state
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        going: dict[Future[dict[str, Any]], Path] = {
            pool.submit(compute, work, path, settings): path for path, settings in missing.items()
        }
        try:
            while going:
                done, _ = wait(going, return_when=FIRST_COMPLETED)
                for future in done:
                    yield going.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def show(number: int, total: int, path: Path, cell: Mapping[str, Any], started: float) -> None:
    """One line on a finished cell, with the time that is left at this pace."""
    spent = time.perf_counter() - started
    left = spent / number * (total - number)
    print(
        f"[{number}/{total}] {path.stem}: {cell['cpu_seconds']:.0f} CPU-s, about {left / 60:.0f} min left", flush=True
    )
