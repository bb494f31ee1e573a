"""How good the generator is on subjects that it was not trained on: a number, and a picture to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill3d.tiny.generator import TinyTriplane
from distill3d.tiny.train.generator_losses import Photos, psnr


@torch.no_grad()
def pictures(renderer: TinyTriplane, photos: Photos, count: int, views: int) -> Tensor:
    """(count, views, 3, h, w): what the renderer makes of the first subjects, at the photos' size."""
    made = []
    for subject in range(count):
        cameras = photos.cameras(torch.tensor([subject]), torch.arange(views)[None])
        small = photos.rgb.shape[-1] == renderer.raw_size
        render = renderer.render(
            renderer.scene(photos.z[subject : subject + 1]), cameras, upto="raw" if small else "image"
        )
        made.append(render.stage("raw" if small else "image"))
    return torch.cat(made)


def truth(photos: Photos, count: int, views: int) -> Tensor:
    return photos.rgb[:count, :views].float() / 127.5 - 1


def held_out_psnr(renderer: TinyTriplane, photos: Photos, count: int = 64, views: int = 1) -> float:
    """dB over all pixels of held-out subjects, of all if there are fewer than `count`."""
    count = min(count, len(photos))
    return psnr((pictures(renderer, photos, count, views).clamp(-1, 1) - truth(photos, count, views)).square().mean())


def write_sheet(renderer: TinyTriplane, photos: Photos, path: Path) -> None:
    """Eight held-out subjects: for each view a row of truth and below it a row of ours."""
    count, views = min(8, len(photos)), min(3, photos.yaw.shape[1])
    rows = torch.stack([truth(photos, count, views), pictures(renderer, photos, count, views)], 2)  # (8, V, 2, 3, h, w)
    sheet = rows.permute(1, 2, 4, 0, 5, 3).flatten(0, 2).flatten(1, 2)  # (V*2*h, 8*w, 3)
    pixels = ((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
    enlarge = 128 // photos.rgb.shape[-1]
    Image.fromarray(np.repeat(np.repeat(pixels, enlarge, 0), enlarge, 1)).save(path)
