"""The style judge: which style a picture shows, or that it shows none."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.tiny.judges.networks import PICTURE, Layout, StyleNet
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.judges.augment import backgrounds, blurred, coarse, moved, noisy, tinted
from distill3d.tiny.train.judges.corruptions import CORRUPTIONS, OF_PHOTOS, spoilt
from distill3d.tiny.train.judges.faces import CAMERAS, Faces, draw_styled
from distill3d.tiny.world import STYLE_NAMES

OFF = len(STYLE_NAMES)  # the answer "off-distribution"
LAYOUT = Layout(widths=(16, 32, 64), depths=(1, 1, 2), outputs=OFF + 1)
RECIPE = Recipe(steps=1800, lr=0.01, batch=64, ema=0.99, warmup=50, decay_share=0.6)
SPOILT = 0.4  # share of corrupted pictures in a batch


def style_loss(judge: StyleNet, faces: Faces, batch: int) -> Callable[[int, torch.Generator], Tensor]:
    """Cross-entropy; part of each batch is corrupted and belongs to no style."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        heads, views = draw_styled(faces, batch, generator)
        off = int(SPOILT * batch)
        views[: off * OF_PHOTOS // len(CORRUPTIONS)] -= CAMERAS  # the photo by the same camera
        image, answer = seen(faces, heads, views, off, generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = judge(image)
        return F.cross_entropy(logits.float(), answer, label_smoothing=0.02)

    return loss


def seen(faces: Faces, heads: Tensor, views: Tensor, off: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(B, 3, 64, 64) in [-1, 1] and the answers (B,): the first `off` pictures are corrupted."""
    pictures, answer = faces.pictures(heads, views), faces.style[heads, views].clone()
    image = pictures.over(backgrounds(len(heads), PICTURE, generator))
    image = spoilt(image, pictures.mask, answer, off, generator)
    answer[:off] = OFF
    image = coarse(blurred(image, generator), generator)
    image = noisy(tinted(image, generator, 0.7), generator).clamp(0, 1)
    return 2 * moved(image, PICTURE, generator) - 1, answer
