"""Figures of the trained model on heads that it never saw; the judges give theirs, if they have been trained."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionControlNetPipeline
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from distill3d.tiny.judges import STYLE_ANSWERS, Judges
from distill3d.tiny.train.diffusion.data import Subjects, depth_control, grid, to_image
from distill3d.tiny.train.diffusion.samples import CONTROLLED_GUIDANCE, PROMPTS, STEPS, draw, write_sheet
from distill3d.tiny.train.diffusion.text import clip_accuracy
from distill3d.tiny.train.diffusion.vae import vae_psnr
from distill3d.tiny.train.store import write_json
from distill3d.tiny.world.styles import STYLE_NAMES


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


def clip_figures(folder: Path, held_out: Subjects) -> dict[str, float]:
    """The share of held-out views whose style the CLIP names rightly."""
    clip = CLIPModel.from_pretrained(folder / "clip")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    return {"style accuracy": round(clip_accuracy(clip, tokenizer, held_out, PROMPTS), 4)}


def style_figures(judges: Judges, drawn: Tensor) -> dict[str, float]:
    """The share of samples whose style the judge names rightly, by style too, and the share it takes for no style.

    Args:
        drawn: (styles, N, 3, 64, 64) in [0, 1].
    """
    said = judges.style(2 * drawn.flatten(0, 1) - 1).argmax(1).view(len(drawn), -1)
    right = (said == torch.arange(len(drawn))[:, None]).float()
    figures = {"style accuracy": right.mean(), **dict(zip(STYLE_NAMES, right.mean(1)))}
    figures["off-distribution"] = (said == STYLE_ANSWERS.index("off-distribution")).float().mean()
    return {name: round(float(value), 3) for name, value in figures.items()}


def depth_figures(judges: Judges, held_out: Subjects, drawn: Tensor) -> dict[str, float]:
    """Correlation of the samples' depth, as the judge sees it, with the true depth of the heads as photos.

    "another's" is with the next head's depth; "the photos" is that of the drawn heads themselves, the most there is.

    Args:
        drawn: (N, styles, 3, 64, 64) in [0, 1], of the first N heads by their first camera.
    """
    count = len(drawn)
    truth = depth_control(held_out.source_depth[:count, 0], held_out.source_mask[:count, 0].float() / 255)[:, 0]
    seen = judges.depth(2 * drawn.flatten(0, 1) - 1).view(count, -1, *truth.shape[-2:])
    own = correlation(seen, truth[:, None].expand_as(seen))
    figures = {"correlation": own.mean(), **dict(zip(STYLE_NAMES, own.mean(0)))}
    figures["another's"] = correlation(seen, truth.roll(1, 0)[:, None].expand_as(seen)).mean()
    figures["the photos"] = correlation(judges.depth(to_image(held_out.source_rgb[:count, 0]))[:, 0], truth).mean()
    return {name: round(float(value), 3) for name, value in figures.items()}


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's, of pictures (..., H, W): (...); 0 where one of them has one value alone."""
    a, b = (tensor.flatten(-2) - tensor.flatten(-2).mean(-1, keepdim=True) for tensor in (first, second))
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).nan_to_num()


def half_precision_psnr(exact: StableDiffusionControlNetPipeline, packed: Path, steps: int = STEPS) -> float:
    """PSNR in dB between pictures of the float32 networks and of the shipped half-precision files, same noise."""
    half = StableDiffusionControlNetPipeline.from_pretrained(packed, safety_checker=None).to(dtype=torch.float32)
    control = torch.zeros(len(PROMPTS), 3, 64, 64)
    first, second = (draw(pipe, PROMPTS, CONTROLLED_GUIDANCE, steps, image=control) for pipe in (exact, half))
    return round(-10 * torch.log10(F.mse_loss(first, second)).item(), 2)


def write_figures(folder: Path, **figures: object) -> None:
    """Add to samples/figures.json."""
    write_json(folder / "samples" / "figures.json", {**read_figures(folder), **figures})


def read_figures(folder: Path) -> dict[str, object]:
    """What has been measured so far, by name."""
    path = folder / "samples" / "figures.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
