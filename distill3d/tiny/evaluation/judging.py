"""Who judges: networks that no distillation sees, each as a function of pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from distill3d.errors import WeightsError

CHUNK = 32  # pictures at a time
SOURCE_PROMPT = "portrait photo of a person"  # what an untouched subject is


class Clip(Protocol):
    """A CLIP: embeddings of length 1."""

    def images(self, images: Tensor, /) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to (B, E)."""

    def texts(self, texts: list[str], /) -> Tensor:
        """To (T, E)."""


class Panel(Protocol):
    """What the protocol asks of judges; `distill3d.tiny.judges` is one. Pictures are (B, 3, H, W) in [-1, 1]."""

    @property
    def face(self) -> Callable[[Tensor], Tensor]:
        """To (B, E): who it is, whatever the style and the camera."""

    @property
    def style(self) -> Callable[[Tensor], Tensor]:
        """To log-probabilities (B, 8): the world's styles in their order, and "off-distribution"."""

    @property
    def clip(self) -> Clip:
        """Not the scorer's."""

    @property
    def features(self) -> Callable[[Tensor], Sequence[Tensor]]:
        """To feature maps, for a perceptual distance."""


@torch.no_grad()
def in_chunks(function: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """`function` of (S, 3, H, W), a few pictures at a time."""
    return torch.cat([function(part) for part in pictures.split(CHUNK)])


class TrainingClip:
    """The CLIP whose text half conditions the diffusion model. The wheel has only that half."""

    def __init__(self, folder: Path | str):
        if not (Path(folder) / "model.safetensors").is_file():
            raise WeightsError(
                f"{folder} holds no CLIP. Give the folder clip/ that `python -m distill3d.tiny.train diffusion` "
                "leaves in its work folder; the package ships the text half alone."
            )
        from transformers import CLIPModel, CLIPTokenizer  # seconds to import

        self.model = CLIPModel.from_pretrained(folder, local_files_only=True).requires_grad_(False).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)

    def images(self, images: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [-1, 1] to (B, E) of length 1."""
        return self._embed(images, self.texts_ids(["a person"]))[0]

    def texts(self, texts: list[str]) -> Tensor:
        """To (T, E) of length 1."""
        size = self.model.config.vision_config.image_size
        return self._embed(torch.zeros(1, 3, size, size), self.texts_ids(texts))[1]

    def texts_ids(self, texts: list[str]) -> Tensor:
        """(T, L) int64, lowered and padded as in training."""
        length = self.model.config.text_config.max_position_embeddings
        words = [text.lower() for text in texts]
        options = {"padding": "max_length", "truncation": True, "max_length": length, "return_tensors": "pt"}
        return self.tokenizer(words, **options).input_ids

    @torch.no_grad()
    def _embed(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        # The whole model: releases of transformers differ in what its halves return by themselves.
        output = self.model(input_ids=ids, pixel_values=images)
        return output.image_embeds, output.text_embeds


def load_clip(folder: Path | str) -> TrainingClip:
    """The diffusion model's own CLIP, from the work folder of its training.

    Raises:
        WeightsError: if there is none.
    """
    return TrainingClip(folder)
