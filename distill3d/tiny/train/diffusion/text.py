"""A small CLIP, trained on renders and captions; its text half is the pipeline's text encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTextModel, CLIPTokenizer

from distill3d.tiny.train.diffusion.data import Subjects, flip_some, grid, to_image
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.diffusion.tokenizer import MAX_LENGTH, token_ids

RECIPE = Recipe(steps=1_200, lr=0.01, batch=64, ema=0.99)
TEXT_WIDTH = 64
GRID_SHARE = 8  # one picture in eight is a grid, so that "four views" gets a meaning


@dataclass(frozen=True)
class ClipSize:
    """Widths, layers and heads of the two halves of a small CLIP; what lies between two layers is twice as wide."""

    text: tuple[int, int, int]
    vision: tuple[int, int, int]


SIZE = ClipSize(text=(TEXT_WIDTH, 3, 4), vision=(96, 2, 4))


def build_clip(tokenizer: CLIPTokenizer, size: ClipSize = SIZE) -> CLIPModel:
    """An untrained CLIP: pictures of 64 pixels in patches of 8, captions of at most `MAX_LENGTH` tokens."""

    def half(width: int, layers: int, heads: int) -> dict[str, int]:
        return {
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "projection_dim": size.text[0],
        }

    text = {
        **half(*size.text),
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**half(*size.vision), "image_size": 64, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=size.text[0]))


def clip_loss(
    clip: CLIPModel, tokenizer: CLIPTokenizer, subjects: Subjects, batch: int
) -> Callable[[int, torch.Generator], Tensor]:
    """Symmetric cross-entropy; every caption that is true of a picture is a right answer for it."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(subjects), (batch,), generator=generator)
        views = torch.randint(4, (batch,), generator=generator)
        flipped = torch.rand(batch, generator=generator) < 0.5
        grids = batch // GRID_SHARE
        images = torch.cat(
            [
                grid(to_image(subjects.rgb[chosen[:grids]])),
                to_image(subjects.rgb[chosen[grids:], views[grids:]]),
            ]
        )
        pictures = [(int(s), None if place < grids else int(v)) for place, (s, v) in enumerate(zip(chosen, views))]
        captions = [subjects.caption(subject, view, generator) for subject, view in pictures]
        truths = [subjects.truth(subject, view) for subject, view in pictures]
        fits = torch.tensor([[caption.fits(*truth) for caption in captions] for truth in truths]).float()
        output = clip(
            input_ids=token_ids(tokenizer, [caption.text for caption in captions]),
            pixel_values=flip_some(images, flipped),
        )
        return contrast(output.logits_per_image, fits)

    return loss


def contrast(logits: Tensor, fits: Tensor) -> Tensor:
    """Mean cross-entropy of (B pictures, B captions) logits both ways; right answers share the probability."""
    each_picture = -(fits / fits.sum(1, keepdim=True) * F.log_softmax(logits, 1)).sum(1)
    each_caption = -(fits / fits.sum(0, keepdim=True) * F.log_softmax(logits, 0)).sum(0)
    return (each_picture.mean() + each_caption.mean()) / 2


def finish_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Save the CLIP, and its text half beside it, as the pipeline's text encoder."""
    clip.save_pretrained(folder / "clip")
    tokenizer.save_pretrained(folder / "clip")
    text_half(clip).save_pretrained(folder / "text_encoder")


def text_half(clip: CLIPModel) -> CLIPTextModel:
    """The frozen text encoder that a Stable Diffusion pipeline takes."""
    encoder = CLIPTextModel(clip.text_model.config)
    names = dict(encoder.named_parameters())
    weights = clip.text_model.state_dict()
    # Releases of transformers differ in whether a text model wraps another one of the same name.
    prefix = "text_model." if any(name.startswith("text_model.") for name in names) else ""
    encoder.load_state_dict({f"{prefix}{name}": weight for name, weight in weights.items()}, strict=False)
    missing = [name for name in names if name.removeprefix(prefix) not in weights]
    assert not missing, missing
    return encoder.requires_grad_(False).eval()


@torch.no_grad()
def clip_accuracy(clip: CLIPModel, tokenizer: CLIPTokenizer, subjects: Subjects, prompts: list[str]) -> float:
    """The share of held-out views whose style's prompt (one for each style, in order) wins."""
    images = to_image(subjects.rgb.flatten(0, 1))
    logits = clip(input_ids=token_ids(tokenizer, prompts), pixel_values=images).logits_per_image
    return (logits.argmax(1) == subjects.style.repeat_interleave(4)).float().mean().item()
