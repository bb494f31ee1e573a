"""What the trained model draws, as sheets to look at and as pictures to measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionControlNetPipeline, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from distill3d.tiny.train.diffusion.captions import GRID_WORDS, PHRASINGS
from distill3d.tiny.train.diffusion.controlnet import CONTROLS
from distill3d.tiny.train.diffusion.data import Subjects
from distill3d.tiny.train.diffusion.unet import build_scheduler
from distill3d.tiny.world.styles import STYLE_NAMES

STEPS = 20
GUIDANCE = (1.0, 4.0, 7.5)
PROMPTS = [PHRASINGS[style][0] for style in STYLE_NAMES]  # as the style catalogue writes them
COLUMNS = 6  # of a sheet of plain samples
CONTROLLED_GUIDANCE = 4.0


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


def plain_samples(folder: Path, each: int, steps: int = STEPS) -> dict[float, Tensor]:
    """For each guidance scale (styles, `each`, 3, 64, 64) in [0, 1], from the same noise; and their sheets.

    Rows are styles: one sheet for each guidance scale, one of 2 x 2 grids, one of front, side and back views.
    """
    pipe, drawn = unguided_pipeline(folder), {}
    for scale in GUIDANCE:
        rows = [draw(pipe, [prompt] * each, scale, steps, seed) for seed, prompt in enumerate(PROMPTS)]
        drawn[scale] = torch.stack(rows)
        shown = drawn[scale][:, :COLUMNS]
        write_sheet(folder / "samples" / f"guidance-{scale:g}.png", shown.flatten(0, 1), shown.shape[1])
    grids = [f"{prompt}, {GRID_WORDS}" for prompt in PROMPTS for _ in range(3)]
    write_sheet(folder / "samples" / "grids.png", draw(pipe, grids, CONTROLLED_GUIDANCE, steps), 3)
    views = [f"{view} of {prompt}" for prompt in PROMPTS for view in ("front view", "side view", "back view")]
    write_sheet(folder / "samples" / "views.png", draw(pipe, views, CONTROLLED_GUIDANCE, steps), 3)
    return drawn


def controlled_samples(
    pipe: StableDiffusionControlNetPipeline, name: str, held_out: Subjects, count: int, folder: Path, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Every style drawn on `count` held-out heads, and the sheets NAME.png and NAME-grids.png.

    The control is that of the head as a photo, as in a distillation. Columns of NAME.png: that photo, its control, and
    the styles; NAME-grids.png has the controls of four grids in its first row, and a style in each further row.

    Returns:
        (count, 3, 64, 64) control pictures and (count, styles, 3, 64, 64) samples, in [0, 1].
    """
    parts, single, grid = CONTROLS[name]
    views = {part: getattr(held_out, f"source_{part}")[:count].float() for part in parts}
    control = single({part: value[:, 0] for part, value in views.items()})
    drawn = torch.stack(
        [
            draw(pipe, PROMPTS, CONTROLLED_GUIDANCE, steps, place, image=picture.expand(len(PROMPTS), -1, -1, -1))
            for place, picture in enumerate(control)
        ]
    )
    photos = held_out.source_rgb[:count, 0].float() / 255
    rows = torch.cat([photos[:, None], control[:, None], drawn], 1)[:COLUMNS]
    write_sheet(folder / "samples" / f"{name}.png", rows.flatten(0, 1), rows.shape[1])
    tiles = grid({part: value[:4] for part, value in views.items()})
    prompts = [f"{prompt}, {GRID_WORDS}" for prompt in PROMPTS]
    four = [draw(pipe, [prompt] * len(tiles), CONTROLLED_GUIDANCE, steps, image=tiles) for prompt in prompts]
    write_sheet(folder / "samples" / f"{name}-grids.png", torch.cat([tiles, *four]), len(tiles))
    return control, drawn
