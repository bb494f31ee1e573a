"""The trained judges in half precision, with what they reach and how they came about written beside them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import CLIPTokenizer

from distill3d.files import folder_written_aside
from distill3d.provenance import source_commit
from distill3d.tiny.generator import load_tiny
from distill3d.tiny.judges.loading import JUDGES_FOLDER, Judges, load_judges
from distill3d.tiny.train.diffusion.loop import Recipe, load_progress, network_note
from distill3d.tiny.train.judges import generated, measure
from distill3d.tiny.train.judges.faces import Faces
from distill3d.tiny.train.store import write_json, write_tensors

NETWORKS = {"face": "face.safetensors", "style": "style.safetensors", "depth": "depth.safetensors"}
WEIGHTS = {**NETWORKS, "clip": "clip/model.safetensors"}
CLIP_FILES = ("config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer_config.json")


def save_network(folder: Path, name: str, network: Any) -> None:
    """`folder`/NAME.safetensors in half precision, and the sizes as NAME.json."""
    write_tensors(folder / f"{name}.safetensors", _halved(network))
    write_json(folder / f"{name}.json", network.layout.stored())


def save_clip(folder: Path, clip: Any, tokenizer: CLIPTokenizer) -> None:
    """`folder`/clip: the configuration, the weights in half precision, and the tokenizer's files."""
    with folder_written_aside(folder / "clip") as aside:
        clip.config.save_pretrained(aside)
        write_tensors(aside / "model.safetensors", _halved(clip))
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            shutil.copyfile(folder / "tokenizer" / name, aside / name)


def _halved(network: nn.Module) -> dict:
    return {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}


def pack(
    training: Path, target: Path, held_out: Faces, recipes: Mapping[str, Recipe], generator: Path | None = None
) -> None:
    """Copy the judges from `training` to `target`, measure them there as a user would load them, and note it all.

    Args:
        generator: weights of a tiny generator, whose pictures of the held-out heads the identity judge is shown too.
    """
    copy(training, target)
    judges = load_judges(target)
    figures = ceilings(judges, held_out)
    if generator is not None:
        seen = generated.generated_top1(judges.face, load_tiny(str(generator)), held_out)
        figures["face"] |= {"generated": seen}
    write_json(target / "provenance.json", provenance(training, target, recipes, figures))
    for name, values in figures.items():
        print(name, json.dumps(values), flush=True)


def copy(source: Path, target: Path) -> None:
    """The files of the judges, and nothing else that lies beside them."""
    (target / "clip").mkdir(parents=True, exist_ok=True)
    files = [*NETWORKS.values(), *(f"{name}.json" for name in NETWORKS), *(f"clip/{name}" for name in CLIP_FILES)]
    for name in files:
        shutil.copyfile(source / name, target / name)


def ceilings(judges: Judges, held_out: Faces) -> dict[str, dict[str, float]]:
    """What each judge makes of the truth; see `measure`."""
    style = measure.style_ceiling(judges.style, held_out)
    style["green photos taken for zombies"] = measure.green_photos(judges.style, held_out)
    return {
        "face": measure.face_ceiling(judges.face, held_out),
        "style": style,
        "clip": measure.clip_ceiling(judges.clip, held_out),
        "depth": measure.depth_ceiling(judges.depth, held_out),
    }


def provenance(
    training: Path, target: Path, recipes: Mapping[str, Recipe], figures: dict[str, dict[str, float]]
) -> dict[str, object]:
    """Where each judge comes from: script, seed, steps, CPU time, last loss, its file's hash, and its ceiling."""
    networks = {}
    for name, file in WEIGHTS.items():
        note = network_note(load_progress(training / f"{name}.checkpoint.safetensors"), target / file)
        networks[name] = {**note, "seed": recipes[name].seed, "ceiling": figures[name]}
    return {
        "made_by": "python -m distill3d.tiny.train judges",
        "commit": source_commit() or "unknown",
        "data": "procedural heads of distill3d.tiny.world: trained on set `styles`, measured on set `faces`, whose "
        "heads no network is trained on",
        "networks": networks,
    }


def install(source: Path, target: Path = JUDGES_FOLDER) -> None:
    """Replace the judges that ship with the package by those of `source`."""
    with folder_written_aside(target) as aside:
        copy(source, aside)
        shutil.copyfile(source / "provenance.json", aside / "provenance.json")
