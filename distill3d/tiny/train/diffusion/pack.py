# diffusers loads its classes lazily: to mypy they are untyped names.
# mypy: disable-error-code="attr-defined"
"""The trained parts as one Stable Diffusion pipeline with a ControlNet, in half precision."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionControlNetPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from distill3d.files import folder_written_aside
from distill3d.provenance import source_commit
from distill3d.tiny.train.diffusion.figures import read_figures
from distill3d.tiny.train.diffusion.loop import load_progress, network_note
from distill3d.tiny.train.diffusion.unet import build_scheduler
from distill3d.tiny.train.store import write_json

INSTALLED = Path(__file__).resolve().parents[2] / "weights" / "diffusion"
# The folder of each trained part, and the loop that trained it.
TRAINED = {"vae": "vae", "text_encoder": "clip", "unet": "unet", "controlnet": "depth", "controlnet-canny": "canny"}
OTHER_CONTROLS = ("canny",)  # beside the pipeline's own, which is depth


def assemble(folder: Path, control: str = "depth") -> StableDiffusionControlNetPipeline:
    """The pipeline of the parts that lie in `folder`, float32, with the ControlNet for "depth" or "canny"."""
    return StableDiffusionControlNetPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        controlnet=ControlNetModel.from_pretrained(folder / f"controlnet-{control}"),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def pack(folder: Path, seed: int) -> Path:
    """Write `folder`/pipeline, check that it loads, and return it."""
    aside, target = folder / "pipeline.part", folder / "pipeline"
    shutil.rmtree(aside, ignore_errors=True)
    assemble(folder).to(dtype=torch.float16).save_pretrained(aside, safe_serialization=True)
    for name in OTHER_CONTROLS:
        other = ControlNetModel.from_pretrained(folder / f"controlnet-{name}")
        other.to(dtype=torch.float16).save_pretrained(aside / f"controlnet-{name}", safe_serialization=True)
    for name in ("vocab.json", "merges.txt", "known_words.json"):  # for readers of either kind of tokenizer file
        shutil.copyfile(folder / "tokenizer" / name, aside / "tokenizer" / name)
    for config in aside.glob("*/config.json"):
        _drop_origin(config)
    _drop_origin(aside / "model_index.json")
    write_provenance(folder, aside, seed)
    StableDiffusionControlNetPipeline.from_pretrained(aside, safety_checker=None)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    return target


def _drop_origin(config: Path) -> None:
    """Remove the note of which folder a part was loaded from: it means nothing to others."""
    lines = config.read_text().splitlines(keepends=True)
    config.write_text("".join(line for line in lines if '"_name_or_path"' not in line))


def write_provenance(folder: Path, packed: Path, seed: int) -> None:
    """Write `packed`/provenance.json: where each network comes from, and what has been measured.

    Of each network: the scripts' commit when its training began, steps, CPU time, last loss, and its file's hash.
    """
    networks = {}
    for part, loop in TRAINED.items():
        progress = load_progress(folder / f"{loop}.checkpoint.safetensors")
        note = network_note(progress, next((packed / part).glob("*.safetensors")))
        networks[part] = {"commit": progress.commit or "unknown", **note}
    origin = {
        "made_by": "python -m distill3d.tiny.train diffusion",
        "commit": source_commit() or "unknown",
        "seed": seed,
        "data": "procedural heads of distill3d.tiny.world, no photographs",
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "networks": networks,
        "figures": read_figures(folder),
    }
    write_json(packed / "provenance.json", origin)


def install(packed: Path, target: Path = INSTALLED) -> None:
    """Replace the weights that ship with the package by `packed`."""
    with folder_written_aside(target) as aside:
        shutil.copytree(packed, aside, dirs_exist_ok=True)
