"""What a style pack weighs and misses in each format, and what the judges of the embedded world make of that.

    python benchmarks/pack_formats.py runs/zombie-tiny runs/pixar-tiny [--subjects 64]

Runs of the embedded world. Errors are those that the pack's config.json states: of the change of the weights, relative
L2, and the largest RMS difference of a picture in [-1, 1] among four subjects from three cameras. Judges look as in
`distill3d evaluate` (docs/evaluate.md): mean probability of the style, CLIP, share of subjects that are found again.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from mixtures import Court, Seen

from distill3d.models import find_model, load, load_stylised
from distill3d.packs.config import FORMATS
from distill3d.publish import PackOptions, make_pack
from distill3d.tiny.evaluation.setting import SUBJECTS


def row(name: str, said: str, seen: Seen, style: str) -> str:
    """A line of the table."""
    judged = f"{seen.probability[style]:.3f} | {seen.clip[style]:.3f} | {seen.identity:.3f}"
    return f"| {name} | {said} | {judged} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--subjects", type=int, default=len(SUBJECTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| pack | bytes | error of weights | of pictures | style, p | CLIP | identity |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for run in arguments.runs:
        style = find_model(run).style
        stylised = load(run)
        court = Court(stylised.original, [style], arguments.subjects)
        for form in FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                options = PackOptions(format=form, pictures=False)
                pack = make_pack(run, Path(folder) / "pack", repo_id=f"user/{style}", options=options)
                adapter = pack.content.adapter
                said = f"{adapter.size:,} | {adapter.weights_error:.2g} | {adapter.pictures_error:.2g}"
                print(row(f"{style}, {form}", said, court.look(load_stylised(pack)), style), flush=True)


if __name__ == "__main__":
    main()
