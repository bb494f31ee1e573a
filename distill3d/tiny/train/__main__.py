"""`python -m distill3d.tiny.train STAGE ...`: make the data and the weights of the embedded world."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

STAGES = {  # in the order of `all`: every stage reads what earlier ones wrote
    "world": "the data: procedural heads, their depth and masks",
    "generator": "the tri-plane generator",
    "judges": "the judges: identity, style, a second CLIP, depth",
    "diffusion": "the latent diffusion model; measured by the judges",
}
ALL = "all"


def main(argv: Sequence[str] | None = None) -> None:
    """Hand the rest of the line to `distill3d.tiny.train.<stage>:main`, or make everything, stage after stage."""
    stages = "\n".join(f"  {name:<10} {what}" for name, what in {**STAGES, ALL: "one after the other"}.items())
    parser = argparse.ArgumentParser(
        prog="python -m distill3d.tiny.train",
        description=__doc__,
        epilog=f"stages:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=(*STAGES, ALL), metavar="STAGE", help="one of the stages below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments; STAGE --help lists them")
    given = parser.parse_args(argv)
    if given.stage == ALL:
        run_all(given.rest)
    else:
        _main_of(given.stage)(given.rest)


def run_all(argv: Sequence[str]) -> None:
    """Every stage with its defaults; one that was finished or begun before goes on from there."""
    parser = argparse.ArgumentParser(prog=f"python -m distill3d.tiny.train {ALL}", description=run_all.__doc__)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="the folder of all data and networks")
    parser.add_argument("--smoke", action="store_true", help="a few heads and two steps of everything, to try it")
    parser.add_argument("--install", action="store_true", help="put the networks into the package")
    given = parser.parse_args(list(argv))
    for stage in STAGES:
        install = given.install and stage != "world"
        flags = [name for name, wanted in (("--smoke", given.smoke), ("--install", install)) if wanted]
        _main_of(stage)(["--work", str(given.work), *flags])


def _main_of(stage: str):
    return importlib.import_module(f"distill3d.tiny.train.{stage}").main


if __name__ == "__main__":
    main()
