"""The portraits that come with the embedded model: `python -m distill3d_lrm.train.portraits`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill3d.draws import Draws
from distill3d.files import written_aside
from distill3d.tiny.world import CODE_SIZE
from distill3d_lrm.preparation import Pixels
from distill3d_lrm.world_heads import COLUMNS, PORTRAITS, SIZE, portrait

COUNT = 128


def code(number: int) -> Tensor:
    """(32,): who that portrait shows; nobody whom a seed names."""
    return Draws(0, 0, (number,), "portraits/").normal("codes", CODE_SIZE)[0]


def atlas(pictures: Sequence[Pixels]) -> Pixels:
    """Portraits as one picture, row by row."""
    rows = [np.concatenate(pictures[i : i + COLUMNS], 1) for i in range(0, len(pictures), COLUMNS)]
    return np.concatenate(rows, 0)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m distill3d_lrm.train.portraits", description=__doc__)
    parser.add_argument("--out", type=Path, default=PORTRAITS)
    parser.add_argument("--size", type=int, default=SIZE)
    given = parser.parse_args(argv)
    torch.set_num_threads(1)
    pictures = []
    for number in range(COUNT):
        pictures.append(portrait(code(number), given.size))
        print(f"{number + 1}/{COUNT}", end="\r", flush=True)
    with written_aside(given.out) as aside:
        Image.fromarray(atlas(pictures)).save(aside, optimize=True)


if __name__ == "__main__":
    main()
