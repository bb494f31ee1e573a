"""How close the embedded scorer's networks in half precision are to themselves in float32.

    python benchmarks/scorer_precision.py [--pictures 4]

Cosines, on heads of the embedded generator with their depth as control, of one branch, of the difference that guidance
follows, of the guided prediction and of the encoder's gradient: the smallest over timesteps and pictures.
"""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.cameras import orbit
from distill3d.draws import Draws
from distill3d.objectives.controls import depth_picture
from distill3d.precision import PRECISIONS
from distill3d.scorer import Scorer, encode_at_unit_scale
from distill3d.scorers.diffusers import load_tiny
from distill3d.tiny import generator
from distill3d.views import resize

TIMESTEPS = (20, 100, 281, 600)
GUIDANCE = 7.5


def heads(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, size, size) in [-1, 1] and their depth as a control (B, 3, size, size) in [0, 1]."""
    renderer = generator.load_tiny()
    yaw = torch.linspace(-0.6, 0.6, count)[:, None]
    with torch.no_grad():
        seen = renderer.render(renderer.scene(renderer.codes_of_seeds(range(count))), orbit(yaw, torch.zeros_like(yaw)))
    depth = depth_picture(seen.depth, seen.opacity)[:, 0].expand(-1, 3, -1, -1)
    return resize(seen.raw[:, 0], size), resize(depth, size)


def looks(scorer: Scorer, pictures: Tensor, depth: Tensor) -> dict[str, Tensor]:
    """What is compared, each (B * T, ...)."""
    leaf = pictures.clone().requires_grad_()
    draws = Draws(0, 0, tuple(range(len(pictures))))
    latents = encode_at_unit_scale(scorer, leaf)
    (gradient,) = torch.autograd.grad((latents * draws.normal("direction", *latents.shape[1:])).sum(), leaf)
    clean, found = latents.detach(), {"encoder's gradient": [gradient]}
    conditions = {
        name: scorer.condition([text] * len(clean), controls={"depth": depth})
        for name, text in (("prompt", "Portrait of a zombie"), ("empty", ""))
    }
    for t in TIMESTEPS:
        at = torch.full((len(clean),), t)
        noisy = scorer.schedule.add_noise(clean, draws.normal(f"noise{t}", *clean.shape[1:]), at)
        said = scorer.predict_noise(noisy, at, conditions)
        difference = said["prompt"] - said["empty"]
        for name, value in (
            ("one branch", said["prompt"]),
            ("prompt - empty", difference),
            ("guided", said["empty"] + GUIDANCE * difference),
        ):
            found.setdefault(name, []).append(value)
    return {name: torch.cat(values) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(1)
    exact = load_tiny()
    pictures, depth = heads(given.pictures, exact.image_size)
    want = looks(exact, pictures, depth)
    print(f"{'':10s}" + "".join(f"{name:>20s}" for name in want))
    for precision in PRECISIONS[1:]:
        found = looks(load_tiny(precision=precision), pictures, depth)
        cosines = (F.cosine_similarity(found[n].flatten(1), want[n].flatten(1)).min() for n in want)
        print(f"{precision:10s}" + "".join(f"{float(cosine):20.5f}" for cosine in cosines))


if __name__ == "__main__":
    main()
