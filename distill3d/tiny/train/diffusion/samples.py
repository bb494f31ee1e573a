"""What the trained model draws: sheets to look at, and figures on held-out subjects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionControlNetPipeline, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from distill3d.tiny.train.diffusion.captions import PHRASINGS
from distill3d.tiny.train.diffusion.data import Subjects, depth_control, grid, grid_control, to_image
from distill3d.tiny.train.diffusion.text import clip_accuracy
from distill3d.tiny.train.diffusion.unet import build_scheduler
from distill3d.tiny.train.diffusion.vae import vae_psnr
from distill3d.tiny.train.store import write_json
from distill3d.tiny.world.styles import STYLE_NAMES

STEPS = 20
PROMPTS = [PHRASINGS[style][0] for style in STYLE_NAMES]  # as the style catalogue writes them


def write_sheet(path: Path, images: Tensor, columns: int) -> None:
    """(B, 3, H, W) in [0, 1], row by row, enlarged twice."""
    rows = images.clamp(0, 1).unflatten(0, (-1, columns))
    sheet = torch.cat([torch.cat(list(row), -1) for row in rows], -2).repeat_interleave(2, -1).repeat_interleave(2, -2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((sheet.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(path)


def unguided_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The pipeline without its ControlNet, from parts that may still be training."""
    return StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def draw(pipe, prompts: Sequence[str], guidance_scale: float, steps: int = STEPS, seed: int = 0, **control) -> Tensor:
    """(B, 3, 64, 64) in [0, 1], one picture for each prompt."""
    pipe.set_progress_bar_config(disable=True)
    arguments = {"num_inference_steps": steps, "guidance_scale": guidance_scale, "height": 64, "width": 64, **control}
    generator = torch.Generator().manual_seed(seed)
    return pipe(list(prompts), output_type="pt", generator=generator, **arguments).images.float()


def plain_sheets(folder: Path, steps: int = STEPS) -> None:
    """Rows are styles: one sheet for each guidance scale, one of 2 x 2 grids, one of front, side and back views."""
    pipe = unguided_pipeline(folder)
    prompts = [prompt for prompt in PROMPTS for _ in range(6)]
    for scale in (1.0, 4.0, 7.5):
        write_sheet(folder / "samples" / f"guidance-{scale:g}.png", draw(pipe, prompts, scale, steps), 6)
    grids = [f"{prompt}, four views" for prompt in PROMPTS for _ in range(3)]
    write_sheet(folder / "samples" / "grids.png", draw(pipe, grids, 4.0, steps), 3)
    views = [f"{view} of {prompt}" for prompt in PROMPTS for view in ("front view", "side view", "back view")]
    write_sheet(folder / "samples" / "views.png", draw(pipe, views, 4.0, steps), 3)


@torch.no_grad()
def vae_figures(folder: Path, held_out: Subjects) -> dict[str, float]:
    """PSNR in dB of held-out single views and grids, by style too; writes vae.png (pictures above reconstructions)."""
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    singles, grids = to_image(held_out.rgb[:, 0]), grid(to_image(held_out.rgb))
    figures = {"single": vae_psnr(vae, singles), "grid": vae_psnr(vae, grids)}
    for index, style in enumerate(STYLE_NAMES):
        if (own := held_out.style == index).any():
            figures[style] = vae_psnr(vae, singles[own])
    shown = torch.cat([singles[:14], grids[:14]])
    decoded = vae.decode(vae.encode(shown).latent_dist.mean).sample
    count = len(shown) // 2
    rows = torch.cat([shown[:count], decoded[:count], shown[count:], decoded[count:]])
    write_sheet(folder / "samples" / "vae.png", rows / 2 + 0.5, count)
    return {name: round(value, 2) for name, value in figures.items()}


def depth_figures(
    pipe: StableDiffusionControlNetPipeline, held_out: Subjects, folder: Path, steps: int = STEPS
) -> dict[str, float]:
    """How well pictures drawn on held-out depth keep its outline.

    Columns of depth.png: a held-out picture, its depth, and every style drawn on it. The figure is the correlation of
    "differs from the background" in the drawn picture with the true mask; "other" gives it with another subject's mask.
    """
    count = min(6, len(held_out) // 2)
    rgb, depth, mask = (tensor[:count, 0] for tensor in (held_out.rgb, held_out.depth, held_out.mask))
    control = depth_control(depth, mask.float() / 255)
    rows, right, other = [], [], []
    for place in range(count):
        repeated = control[place].expand(len(PROMPTS), -1, -1, -1)
        drawn = draw(pipe, PROMPTS, 4.0, steps, image=repeated)
        rows.append(torch.cat([to_image(rgb[place : place + 1]) / 2 + 0.5, control[place : place + 1], drawn]))
        outlines = (drawn - 0.93).abs().amax(1)
        right += [_correlation(outline, mask[place, 0]) for outline in outlines]
        other += [_correlation(outline, mask[(place + 1) % count, 0]) for outline in outlines]
    write_sheet(folder / "samples" / "depth.png", torch.cat(rows), len(PROMPTS) + 2)
    tiles = grid_control(held_out.depth[:4], held_out.mask[:4].float() / 255)
    four = [draw(pipe, [prompt] * len(tiles), 4.0, steps, image=tiles) for prompt in PROMPTS]
    write_sheet(folder / "samples" / "depth-grids.png", torch.cat([tiles, *four]), len(tiles))
    return {"own mask": round(float(np.mean(right)), 3), "other mask": round(float(np.mean(other)), 3)}


def _correlation(outline: Tensor, mask: Tensor) -> float:
    soft = [F.avg_pool2d(picture.float()[None], 4).flatten() for picture in ((outline > 0.08), mask)]
    return torch.corrcoef(torch.stack(soft))[0, 1].nan_to_num().item()


def half_precision_psnr(exact: StableDiffusionControlNetPipeline, packed: Path, steps: int = STEPS) -> float:
    """PSNR in dB between pictures of the float32 networks and of the shipped half-precision files, same noise."""
    half = StableDiffusionControlNetPipeline.from_pretrained(packed, safety_checker=None).to(dtype=torch.float32)
    control = torch.zeros(len(PROMPTS), 3, 64, 64)
    first, second = (draw(pipe, PROMPTS, 4.0, steps, image=control) for pipe in (exact, half))
    return round(-10 * torch.log10(F.mse_loss(first, second)).item(), 2)


def clip_figures(folder: Path, held_out: Subjects) -> dict[str, float]:
    """The share of held-out views whose style the CLIP names rightly."""
    clip = CLIPModel.from_pretrained(folder / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return {"style accuracy": round(clip_accuracy(clip, tokenizer, held_out, PROMPTS), 4)}


def write_figures(folder: Path, **figures: object) -> None:
    """Add to samples/figures.json."""
    path = folder / "samples" / "figures.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    write_json(path, {**known, **figures})
