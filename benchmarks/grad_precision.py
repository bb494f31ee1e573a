"""How close a step's gradients in half precision come to those in float32: cosines, at equal draws and weights.

    python benchmarks/grad_precision.py [--pairs embedded reduced] [--steps 2] [--json]

Two pairs: the embedded backbone and scorer, which are trained, and the reduced configuration of step_models.py, whose
weights are random. Two methods: `ld` with path=noise and `ld-released`. In half are, one after the other, the
autoencoder (its encoder's backward), the score (UNet, ControlNets, text), and both: the whole step. Compared are the
gradient that each term puts on the pictures, and that on all trained weights. The smallest of the steps counts.

The goal is .999 on the trained weights, which is what trains, for "half": what a run on a GPU takes unless told
otherwise. Ends with 1 where that is missed. Where the pictures' gradient is below .999 it is said, and no more: a
bfloat16 autoencoder with random weights is (docs/step_cost.md). "bfloat16" is shown for information.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from diffusers import DDIMScheduler
from step_models import make_renderer, make_scorer
from torch import Tensor

from distill3d.methods import build_method
from distill3d.plugins import registry
from distill3d.precision import dtypes_of
from distill3d.scorers.architectures import SCHEDULE
from distill3d.scorers.diffusers import DiffusersScorer, load_tiny
from distill3d.styles import CATALOGUE
from distill3d.tiny.generator import load_tiny as load_tiny_backbone
from distill3d.training.share import Share
from distill3d.training.trainer import Trainer

GOAL = 0.999
HALVES = ("half", "bfloat16")
JUDGED = "half"
METHODS: dict[str, dict[str, Any]] = {"ld": {"path": "noise"}, "ld-released": {}}
PAIRS = {
    "embedded": (load_tiny_backbone, load_tiny),
    "reduced": (lambda: make_renderer("reduced"), lambda: make_scorer("reduced")),
}
Dtypes = tuple[torch.dtype, torch.dtype]  # of the score's networks, of the autoencoder
Gradients = dict[str, list[Tensor]]  # "images" and "weights", step by step


def parts_in(half: str) -> dict[str, Dtypes]:
    networks, autoencoder = dtypes_of(half)
    return {
        "autoencoder": (torch.float32, autoencoder),
        "score": (networks, torch.float32),
        "whole step": (networks, autoencoder),
    }


def computing_in(scorer: DiffusersScorer, dtypes: Dtypes) -> DiffusersScorer:
    """A float32 scorer's networks, cast."""
    cast = DiffusersScorer(
        unet=scorer.unet,
        vae=scorer.vae,
        text_encoder=scorer.text_encoder,
        tokenizer=scorer.tokenizer,
        scheduler=DDIMScheduler(**SCHEDULE),
        controlnets=dict(scorer.controlnets.items()),
        dtype=dtypes[0],
        vae_dtype=dtypes[1],
    )
    cast.grid_words = scorer.grid_words
    return cast


class Listening(Share):
    """A process that does all of a step, and keeps the gradients that it puts on the pictures."""

    def __init__(self) -> None:
        self.heard: list[Tensor] = []

    def exchange_gradients(self, group: int, gradients: Any) -> Any:
        self.heard += [g for view in gradients.values() for g in view.values()]
        return gradients


def gradients(pair: str, method: str, dtypes: Dtypes, steps: int) -> Gradients:
    """Of the first steps' draws, at the weights as they are."""
    make_backbone, make_scorer_of = PAIRS[pair]
    renderer, scorer = make_backbone(), computing_in(make_scorer_of(), dtypes)
    factory = registry().find("method", method).load()
    built = build_method(method, factory, scorer, CATALOGUE["zombie"], renderer.defaults, METHODS[method])
    share = Listening()
    trainer = Trainer(renderer, built, batch=1, rerender=renderer.defaults.rerender, share=share)
    found: Gradients = {"images": [], "weights": []}
    for step in range(steps):
        share.heard, trainer.step_number = [], step
        trainer.gradients()
        found["images"].append(_joined(share.heard))
        found["weights"].append(_joined([p.grad for p in trainer.trained.values() if p.grad is not None]))
        trainer.optimizer.zero_grad(set_to_none=True)
    return found


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.double().flatten() for t in tensors])


def smallest_cosine(one: list[Tensor], other: list[Tensor]) -> float:
    return min(float(torch.nn.functional.cosine_similarity(a, b, 0)) for a, b in zip(one, other, strict=True))


def rows(pairs: list[str], steps: int) -> Iterator[dict[str, Any]]:
    for pair in pairs:
        for method in METHODS:
            exact = gradients(pair, method, (torch.float32, torch.float32), steps)
            for half in HALVES:
                for part, dtypes in parts_in(half).items():
                    found = gradients(pair, method, dtypes, steps)
                    cosines = {what: smallest_cosine(found[what], exact[what]) for what in exact}
                    yield {"pair": pair, "method": method, "precision": half, "part": part, **cosines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", nargs="+", choices=[*PAIRS], default=[*PAIRS])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.json:
        print(f"{'pair':10s} {'method':12s} {'precision':10s} {'part':12s} {'images':>9s} {'weights':>9s}")
    found = []
    for row in rows(given.pairs, given.steps):
        found.append(row)
        if not given.json:
            print("{pair:10s} {method:12s} {precision:10s} {part:12s} {images:9.6f} {weights:9.6f}".format(**row))
    if given.json:
        print(json.dumps({"goal": GOAL, "judged": "weights", "steps": given.steps, "rows": found}))
    judged = [row for row in found if row["precision"] == JUDGED]
    for row in (r for r in judged if r["images"] < GOAL):
        print(f"Below {GOAL} on pictures, not judged: {name_of(row)}: {row['images']:.6f}", file=sys.stderr)
    if low := [name_of(row) for row in judged if row["weights"] < GOAL]:
        sys.exit(f"Below {GOAL} on the trained weights: {'; '.join(low)}")


def name_of(row: dict[str, Any]) -> str:
    return f"{row['pair']} {row['method']} {row['part']}"


if __name__ == "__main__":
    main()
