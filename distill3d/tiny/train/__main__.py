"""`python -m distill3d.tiny.train STAGE ...`: make the data and the weights of the embedded world."""

from __future__ import annotations

import argparse
import importlib

STAGES = {
    "world": "the data: procedural heads, their depth and masks",
    "generator": "the tri-plane generator",
    "diffusion": "the latent diffusion model",
    "judges": "the judges: identity, style, a second CLIP, depth",
}
ALL = "all"


def main() -> None:
    """Hand the rest of the line to `distill3d.tiny.train.<stage>:main`, or to each stage in turn."""
    stages = "\n".join(f"  {name:<10} {what}" for name, what in {**STAGES, ALL: "one after the other"}.items())
    parser = argparse.ArgumentParser(
        prog="python -m distill3d.tiny.train",
        description=__doc__,
        epilog=f"stages:\n{stages}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=(*STAGES, ALL), metavar="STAGE", help="one of the stages below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments; STAGE --help lists them")
    given = parser.parse_args()
    for stage in STAGES if given.stage == ALL else (given.stage,):
        importlib.import_module(f"distill3d.tiny.train.{stage}").main(given.rest)


if __name__ == "__main__":
    main()
