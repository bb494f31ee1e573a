"""A second CLIP: of another size and seed than the diffusion model's, and trained on other heads."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from distill3d.tiny.judges.networks import PICTURE
from distill3d.tiny.train.diffusion.captions import caption, traits, view_words
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.diffusion.text import ClipSize, contrast
from distill3d.tiny.train.diffusion.tokenizer import token_ids
from distill3d.tiny.train.judges.augment import backgrounds, blurred, coarse, moved, noisy, tinted
from distill3d.tiny.train.judges.faces import Faces, draw_styled
from distill3d.tiny.world import IDENTITY_NAMES, STYLE_NAMES

RECIPE = Recipe(steps=900, lr=0.01, batch=64, ema=0.99)
SIZE = ClipSize(text=(48, 2, 3), vision=(64, 3, 4))


def clip_loss(
    clip: CLIPModel, tokenizer: CLIPTokenizer, faces: Faces, batch: int
) -> Callable[[int, torch.Generator], Tensor]:
    """Symmetric cross-entropy; every caption that is true of a picture is a right answer for it."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        heads, views = draw_styled(faces, batch, generator)
        captions, fits = described(faces, heads, views, generator)
        image = faces.pictures(heads, views).over(backgrounds(batch, PICTURE, generator))
        image = coarse(blurred(image, generator), generator)
        image = noisy(tinted(image, generator, 0.5), generator).clamp(0, 1)
        output = clip(input_ids=token_ids(tokenizer, captions), pixel_values=2 * moved(image, PICTURE, generator) - 1)
        return contrast(output.logits_per_image, fits)

    return loss


def described(faces: Faces, heads: Tensor, views: Tensor, generator: torch.Generator) -> tuple[list[str], Tensor]:
    """A caption of each view, and which of them are true of which view (B, B)."""
    said, truths = [], []
    for head, view in zip(heads.tolist(), views.tolist()):
        style, yaw = STYLE_NAMES[int(faces.style[head, view])], float(faces.yaw[head, view])
        identity = dict(zip(IDENTITY_NAMES, faces.identity[head].tolist()))
        said.append(caption(style, identity, yaw, generator))
        truths.append((style, traits(style, identity), view_words(yaw)))
    fits = torch.tensor([[one.fits(*truth) for one in said] for truth in truths]).float()
    return [one.text for one in said], fits
