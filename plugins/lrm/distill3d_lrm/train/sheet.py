"""How good the model is on heads that it was not trained on: a number, and a picture to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill3d.tiny.generator import BACKGROUND
from distill3d.tiny.train.generator_losses import Photos, psnr
from distill3d.volume import pixel_rays
from distill3d_lrm.train.data import most_frontal
from distill3d_lrm.triposr import TripoSR


@torch.no_grad()
def pictures(model: TripoSR, photos: Photos, count: int) -> Tensor:
    """(count, V, 3, h, w) in [-1, 1]: the first heads, each made from its most frontal picture, from all its views."""
    size, made = photos.rgb.shape[-1], []
    turn = torch.tensor(model.to_own).T
    for subject in torch.arange(count).split(1):
        planes = model.planes(model.tokens(most_frontal(photos, subject)))
        cameras = photos.cameras(subject, torch.arange(photos.yaw.shape[1])[None])
        origins, directions = (x.flatten(1, 2) @ turn for x in pixel_rays(cameras, size, size))
        found = model.trace(planes, origins, directions, ())
        colour = 2 * found.colour - 1 + (1 - found.opacity) * (BACKGROUND + 1)
        made.append(colour.unflatten(1, (-1, size, size)).movedim(-1, 2))
    return torch.cat(made)


def truth(photos: Photos, count: int) -> Tensor:
    return photos.rgb[:count].float() / 127.5 - 1


def held_out_psnr(model: TripoSR, photos: Photos, count: int) -> float:
    """dB over all pixels of the views of the first heads."""
    count = min(count, len(photos))
    return psnr((pictures(model, photos, count).clamp(-1, 1) - truth(photos, count)).square().mean())


def write_sheet(model: TripoSR, photos: Photos, path: Path) -> None:
    """Eight held-out heads: the picture given, then for each view the truth and below it ours."""
    count = min(8, len(photos))
    given = 2 * most_frontal(photos, torch.arange(count)) - 1
    pairs = torch.stack([truth(photos, count), pictures(model, photos, count)], 2).flatten(1, 2)  # (8, 2V, 3, h, w)
    rows = torch.cat([given[:, None], pairs], 1)
    sheet = rows.permute(1, 3, 0, 4, 2).flatten(0, 1).flatten(1, 2)  # (rows*h, 8*w, 3)
    pixels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    Image.fromarray(np.repeat(np.repeat(pixels, 2, 0), 2, 1)).save(path)
