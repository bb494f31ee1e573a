"""Train the embedded reconstruction model: `python -m distill3d_lrm.train --work DIR`.

Reads DIR/data/photo.safetensors, which `python -m distill3d.tiny.train world` makes, and writes DIR/lrm/: the
checkpoint, a sheet of held-out heads, the model in half precision and provenance.json. A run that was stopped goes on
from its checkpoint and ends with the same bits: every random number is a function of the seed and the step.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from distill3d.files import written_aside
from distill3d_lrm.tiny import WEIGHTS
from distill3d_lrm.train.loop import DEFAULT_PHASES, SMOKE_PHASES, Training, read_phases, train


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m distill3d_lrm.train", description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder with data/; lrm/ is written there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", default=DEFAULT_PHASES, help="phases of a new run (default: %(default)s)")
    parser.add_argument("--every", type=float, default=120.0, help="CPU seconds between checkpoints")
    parser.add_argument("--smoke", action="store_true", help="two steps of each phase, to see that it runs")
    parser.add_argument("--extend", help="phases to follow those of a run that exists")
    parser.add_argument("--install", action="store_true", help="copy the model into the package")
    given = parser.parse_args(argv)
    torch.set_num_threads(1)  # several threads are slower on pictures this small
    torch.set_flush_denormal(True)
    phases = read_phases(SMOKE_PHASES if given.smoke else given.steps)
    more = read_phases(given.extend) if given.extend else ()
    train(Training.begin_or_resume(given.work, given.seed, phases, more), given.work, given.every)
    if given.install:
        install(given.work / "lrm")


def install(source: Path, target: Path = WEIGHTS) -> None:
    """Replace the model that ships with the package, and the note of how it came about, by those of `source`."""
    for name, place in (("tiny_lrm.safetensors", target), ("provenance.json", target.with_suffix(".provenance.json"))):
        with written_aside(place) as aside:
            shutil.copyfile(source / name, aside)


if __name__ == "__main__":
    main()
