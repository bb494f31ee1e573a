"""Open the judges that ship with the package, or those of a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill3d.errors import WeightsError
from distill3d.tiny.judges.networks import FACE_INPUT, PICTURE, DepthNet, FaceNet, Layout, StyleNet, fit
from distill3d.tiny.world.styles import STYLE_NAMES

JUDGES_FOLDER = Path(__file__).resolve().parents[1] / "weights" / "judges"
STYLE_ANSWERS = (*STYLE_NAMES, "off-distribution")
ADVICE = "Make the judges with: python -m distill3d.tiny.train judges --work DIR --install"


@dataclass(frozen=True)
class TextImageJudge:
    """A CLIP of its own, which no diffusion model has read."""

    model: Any  # transformers' CLIPModel
    tokenizer: Any

    @torch.no_grad()
    def images(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1], any size, to (B, E) of unit length."""
        seen = self.model.vision_model(pixel_values=fit(image.float(), PICTURE)).pooler_output
        return F.normalize(self.model.visual_projection(seen), dim=-1)

    @torch.no_grad()
    def texts(self, texts: list[str]) -> Tensor:
        """N prompts to (N, E) of unit length."""
        lowered = [text.lower() for text in texts]
        ids = self.tokenizer(lowered, padding="max_length", truncation=True, return_tensors="pt").input_ids
        read = self.model.text_model(input_ids=ids).pooler_output
        return F.normalize(self.model.text_projection(read), dim=-1)


@dataclass(frozen=True)
class Judges:
    """Four judges, trained on drawn heads alone. None passes gradients; equal pictures get equal answers."""

    face: Callable[[Tensor], Tensor]
    """(B, 3, H, W) in [-1, 1], any size, to (B, E) of unit length: the cosine says how alike two identities are."""
    style: Callable[[Tensor], Tensor]
    """(B, 3, H, W) in [-1, 1], any size, to (B, 8) log-probabilities, ordered as `STYLE_ANSWERS`."""
    clip: TextImageJudge
    depth: Callable[[Tensor], Tensor]
    """(B, 3, H, W) in [-1, 1], any size, to (B, 1, 64, 64) in [0, 1]: the depth picture, near is bright."""
    features: Callable[[Tensor], list[Tensor]]
    """(B, 3, H, W) to the style judge's maps (B, C, h, w), fine to coarse: for a perceptual distance."""


def load_judges(folder: Path | None = None) -> Judges:
    """The judges of a folder that `python -m distill3d.tiny.train judges` wrote; by default the installed ones.

    Raises:
        WeightsError: if a file is missing, damaged, or belongs to something else.
    """
    folder = folder or JUDGES_FOLDER
    face = load_network(folder, "face", FaceNet)
    style = load_network(folder, "style", StyleNet)
    depth = load_network(folder, "depth", DepthNet)
    return Judges(
        face=_frozen(lambda image: F.normalize(face(fit(fit(image, PICTURE), FACE_INPUT)), dim=-1)),
        style=_frozen(lambda image: F.log_softmax(style(fit(image, PICTURE)), -1)),
        clip=load_clip(folder / "clip"),
        depth=_frozen(lambda image: depth(fit(image, PICTURE)).sigmoid()),
        features=_frozen(lambda image: style.features(fit(image, PICTURE))),
    )


def _frozen(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    @torch.no_grad()
    def judge(image: Tensor) -> Any:
        return function(image.float())

    return judge


def load_network(folder: Path, name: str, kind: Callable[[Layout], nn.Module]) -> Any:
    """`kind` with the sizes of `folder`/NAME.json and the weights of NAME.safetensors, in float32.

    Raises:
        WeightsError: see `load_judges`.
    """
    for path in (folder / f"{name}.json", folder / f"{name}.safetensors"):
        if not path.is_file():
            raise WeightsError(f"There is no file {path}. {ADVICE}")
    try:
        network = kind(Layout.read(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))))
        network.load_state_dict({k: v.float() for k, v in load_file(folder / f"{name}.safetensors").items()})
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"The judge {folder / name} is damaged ({reason}). {ADVICE}") from error
    return network.requires_grad_(False).eval()


def load_clip(folder: Path) -> TextImageJudge:
    """The CLIP of a folder, in float32.

    Raises:
        WeightsError: see `load_judges`.
    """
    from transformers import CLIPModel, CLIPTokenizer  # seconds to import, and only this judge needs it

    for name in ("config.json", "model.safetensors", "vocab.json", "merges.txt"):
        if not (folder / name).is_file():
            raise WeightsError(f"There is no file {folder / name}. {ADVICE}")
    try:
        load_file(folder / "model.safetensors")  # its own complaint about a damaged file is hard to read
        loaded: Any = CLIPModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        model, found = loaded
        if found["missing_keys"]:
            raise ValueError(f"{len(found['missing_keys'])} tensors are missing")
        return TextImageJudge(model.requires_grad_(False).eval(), CLIPTokenizer.from_pretrained(folder))
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"The judge {folder} is damaged ({reason}). {ADVICE}") from error
