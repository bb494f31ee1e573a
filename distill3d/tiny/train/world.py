"""The data of the embedded world: heads seen from random cameras, made shard by shard, repeated bit for bit."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill3d.cameras import orbit
from distill3d.draws import Draws
from distill3d.tiny.train.store import read_tensors, write_json, write_tensors
from distill3d.tiny.world import CODE_SIZE, STYLE_NAMES, Tracer, identity_from_codes, render_heads, style_rows

WORLD_VERSION = 2  # of what the world looks like; raise it when a picture changes
SEED = 2024
SHARD = 64  # heads in a file while the work goes on


@dataclass(frozen=True)
class Set:
    """One file: heads, and how they are seen. The last `held_out` heads are drawn apart from the others."""

    name: str
    training: int
    held_out: int
    views: int
    size: int
    styles: tuple[str, ...] = ("photo",)  # heads take them in turn
    geometry: bool = True  # store depth and mask
    source: bool = False  # store the same heads as a photo too, from the same cameras
    each_view: bool = False  # the views of a head take the styles in turn, instead of the heads
    around: float = 0.3  # share of the yaws from all sides
    front: float | None = None  # the other yaws: uniform within +- so many radians; None for normal(0, 0.6)

    @property
    def heads(self) -> int:
        return self.training + self.held_out


# To measure the judges: every head in every style, and twice as a photo, each time seen by another camera.
FACES: dict[str, Any] = {
    "views": 1 + len(STYLE_NAMES),
    "size": 64,
    "styles": ("photo", *STYLE_NAMES),
    "each_view": True,
    "around": 0.15,
    "front": 1.05,
}
SETS = (
    Set("photo", 8192, 256, views=3, size=64),
    Set("photo128", 1536, 64, views=1, size=128, geometry=False),
    Set("styles", 5320, 280, views=4, size=64, styles=STYLE_NAMES, source=True),
    Set("faces", 0, 256, **FACES),
)
SMOKE_SETS = (
    Set("photo", 12, 4, views=3, size=64),
    Set("photo128", 6, 2, views=1, size=128, geometry=False),
    Set("styles", 14, 7, views=4, size=64, styles=STYLE_NAMES, source=True),
    Set("faces", 0, 6, **FACES),
)


def generate(
    work: Path,
    seed: int = SEED,
    *,
    compile: bool = True,
    only: str | None = None,
    smoke: bool = False,
    samples: int = 2,  # four are twice as dear, and at 64 pixels hard to tell apart
) -> None:
    """Write data/NAME.safetensors of every set, a note of each, and data/world.json with all notes.

    Args:
        work: the folder that holds `data/`; shards that are already in it are kept.
        seed: of identities and cameras.
        compile: through `torch.compile`; the pictures agree with the plain renderer's to rounding.
        only: the name of one set.
        smoke: a few heads of each, to try the scripts.
        samples: rays in each pixel: 1, 2 or 4.
    """
    tracer = Tracer(compile)
    for one in SMOKE_SETS if smoke else SETS:
        if only in (None, one.name):
            write_set(one, work / "data", seed, tracer, samples)
    notes = {path.stem.removeprefix("world-"): path for path in sorted((work / "data").glob("world-*.json"))}
    sets = {name: json.loads(path.read_text()) for name, path in notes.items()}
    write_json(work / "data" / "world.json", {"version": WORLD_VERSION, "sets": sets})


def draw(one: Set, seed: int, item: int) -> dict[str, Tensor]:
    """One head of a set: z (32,), identity (K,), style (), yaw and pitch (V,); style (V,) if its views differ in it.

    See `Set` for the yaws; pitch is uniform within +-0.4 radians.
    """
    held_out = item >= one.training
    place = item - one.training if held_out else item
    draws = Draws(seed, 0, (place,), f"world/{one.name}/{'held-out' if held_out else 'training'}/")
    z = draws.normal("z", CODE_SIZE)[0]
    if one.front is None:
        frontal = 0.6 * draws.normal("frontal", one.views)[0]
    else:
        frontal = one.front * (2 * draws.uniform("frontal", one.views)[0] - 1)
    around = math.pi * (2 * draws.uniform("around", one.views)[0] - 1)
    yaw = torch.where(draws.uniform("which", one.views)[0] < 1 - one.around, frontal, around)
    pitch = 0.4 * (2 * draws.uniform("pitch", one.views)[0] - 1)
    turns = [STYLE_NAMES.index(name) for name in one.styles]
    style = torch.tensor(turns if one.each_view else turns[place % len(turns)])
    return {"z": z, "identity": identity_from_codes(z), "style": style, "yaw": yaw, "pitch": pitch}


def write_set(one: Set, data: Path, seed: int, tracer: Tracer, samples: int) -> None:
    """Make the shards that are not there yet, and join them.

    A shard's name holds all that decides what is in it, so that a run with other settings takes none for its own; the
    note beside a finished set says the same, and the set is then left as it is.
    """
    note = {"version": WORLD_VERSION, "seed": seed, "heads": one.heads, "held_out": one.held_out}
    note |= {"views": one.views, "size": one.size, "samples": samples}
    note_path = data / f"world-{one.name}.json"
    there = (data / f"{one.name}.safetensors").is_file() and note_path.is_file()
    if there and note.items() <= json.loads(note_path.read_text()).items():
        return
    settings = f"{one.name}-v{WORLD_VERSION}-seed{seed}-{one.training}+{one.held_out}-{one.views}x{one.size}x{samples}"
    shards = [data / "shards" / f"{settings}-{first:05d}.safetensors" for first in range(0, one.heads, SHARD)]
    for number, path in enumerate(shards):
        if not path.exists():
            items = range(number * SHARD, min(one.heads, (number + 1) * SHARD))
            start = time.process_time()
            stored = _shard(one, seed, items, tracer, samples)
            write_tensors(path, {**stored, "cpu_seconds": torch.tensor([time.process_time() - start])})
            print(f"{one.name} {items.stop}/{one.heads}", flush=True)
    parts = [read_tensors(path) for path in shards]
    cost = sum(float(part.pop("cpu_seconds").sum()) for part in parts)
    write_tensors(data / f"{one.name}.safetensors", {key: torch.cat([p[key] for p in parts]) for key in parts[0]})
    write_json(note_path, {**note, "cpu_seconds": round(cost, 1)})
    for path in shards:
        path.unlink()


def _shard(one: Set, seed: int, items: Sequence[int], tracer: Tracer, samples: int) -> dict[str, Tensor]:
    drawn = [draw(one, seed, item) for item in items]
    stored = {key: torch.stack([d[key] for d in drawn]) for key in drawn[0]}
    identity, rows, yaw, pitch = stored["identity"], style_rows()[stored["style"]], stored["yaw"], stored["pitch"]
    if one.each_view:  # to the renderer, a head in another style is another head
        identity, rows = identity.repeat_interleave(one.views, 0), rows.flatten(0, 1)
        yaw, pitch = yaw.reshape(-1, 1), pitch.reshape(-1, 1)

    def pictures(rows: Tensor) -> dict[str, Tensor]:
        found = render_heads(identity, rows, orbit(yaw, pitch), one.size, samples=samples, tracer=tracer)
        rgb, depth, mask = (picture.unflatten(0, (len(items), -1)).flatten(1, 2) for picture in found)
        return {"rgb": _bytes(rgb)} | ({"depth": depth.half(), "mask": _bytes(mask)} if one.geometry else {})

    stored |= pictures(rows)
    if one.source:
        stored |= {f"source_{key}": value for key, value in pictures(style_rows(["photo"]).expand_as(rows)).items()}
    del stored["z" if len(one.styles) > 1 else "style"]
    return stored


def _bytes(picture: Tensor) -> Tensor:
    return (255 * picture + 0.5).to(torch.uint8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `world`."""
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the folder that receives data/")
    parser.add_argument("--only", choices=[one.name for one in SETS], help="make one set alone")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--samples", type=int, default=2, choices=(1, 2, 4), help="rays in each pixel")
    parser.add_argument("--smoke", action="store_true", help="a few heads of each set, to try the scripts")
    parser.add_argument("--plain", action="store_true", help="do without torch.compile")


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m distill3d.tiny.train world`."""
    parser = argparse.ArgumentParser(prog="python -m distill3d.tiny.train world", description=__doc__)
    add_arguments(parser)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)  # small tensors: a second thread costs more than it does
    compiled = not (given.plain or given.smoke)
    generate(given.work, given.seed, compile=compiled, only=given.only, smoke=given.smoke, samples=given.samples)
