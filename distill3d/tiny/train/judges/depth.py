"""The depth judge: reads the depth picture from a picture of any style."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.tiny.judges.networks import PICTURE, DepthNet, Layout
from distill3d.tiny.train.diffusion.data import flip_some
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.judges.augment import backgrounds, blurred, coarse, noisy, tinted
from distill3d.tiny.train.judges.faces import Faces, draw_styled

LAYOUT = Layout(widths=(16, 32, 48, 48), depths=(1, 1, 1, 1), outputs=1)
RECIPE = Recipe(steps=900, lr=0.01, batch=48, ema=0.99, warmup=50, decay_share=0.6)


def depth_loss(judge: DepthNet, faces: Faces, batch: int) -> Callable[[int, torch.Generator], Tensor]:
    """Absolute error of the depth picture, background included: it says where the head is."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        heads, views = draw_styled(faces, batch, generator)
        pictures = faces.pictures(heads, views)
        image = pictures.over(backgrounds(batch, PICTURE, generator))
        image = coarse(blurred(image, generator), generator)
        image = 2 * noisy(tinted(image, generator), generator).clamp(0, 1) - 1
        flipped = torch.rand(batch, generator=generator) < 0.5
        with torch.autocast("cpu", torch.bfloat16):
            guess = judge(flip_some(image, flipped))
        return F.l1_loss(guess.float().sigmoid(), flip_some(pictures.depth(), flipped))

    return loss
