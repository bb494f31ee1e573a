"""The judges one after the other, and the command line that makes them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from transformers import CLIPTokenizer

from distill3d.tiny.judges.networks import DepthNet, StyleNet
from distill3d.tiny.train.diffusion.loop import Recipe, Training, add_recipe_options, chosen_recipes
from distill3d.tiny.train.diffusion.text import build_clip
from distill3d.tiny.train.diffusion.tokenizer import build_tokenizer
from distill3d.tiny.train.judges import clip, depth, face, pack, style
from distill3d.tiny.train.judges.faces import Faces, load_held_out, load_training

SEED = 11  # not the diffusion model's: its CLIP and the judges' have nothing in common
RECIPES = {"style": style.RECIPE, "depth": depth.RECIPE, "clip": clip.RECIPE, "face": face.RECIPE}
STAGES = (*RECIPES, "pack")


class Chain:
    """The judges of one work folder."""

    def __init__(self, work: Path, recipes: dict[str, Recipe]):
        self.work, self.folder, self.recipes = work, work / "judges" / "training", recipes

    @cached_property
    def faces(self) -> Faces:
        """The training heads."""
        return load_training(self.work)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """The judges' own; numbered as the diffusion model's, but no file is shared."""
        folder = self.folder / "tokenizer"
        return CLIPTokenizer.from_pretrained(folder) if folder.is_dir() else build_tokenizer(folder)

    def run(self, stage: str, until: int | None = None) -> None:
        """Run one of `STAGES`, going on from its checkpoint; `until`: stop (with a checkpoint) at that step."""
        torch.set_num_threads(1)  # two are slower at this size
        torch.set_flush_denormal(True)
        self.folder.mkdir(parents=True, exist_ok=True)
        if stage == "pack":
            made = self.work / "generator" / "generator.safetensors"
            generator = made if made.is_file() else None
            pack.pack(self.folder, self.work / "judges", load_held_out(self.work), self.recipes, generator)
        else:
            getattr(self, stage)(until)

    def _training(self, name: str, network: nn.Module) -> Training:
        return Training(name, network, self.recipes[name], self.folder)

    def _seed(self, name: str) -> None:
        torch.manual_seed(self.recipes[name].seed)  # initial weights; everything later is drawn per step

    def face(self, until: int | None) -> None:
        """Train the identity judge."""
        self._seed("face")
        trainee = face.FaceTrainee()
        training = self._training("face", trainee)
        loss = face.face_loss(trainee, self.faces, training.recipe.batch)
        training.run(loss, lambda net: pack.save_network(self.folder, "face", net.judge), until)

    def style(self, until: int | None) -> None:
        """Train the style judge."""
        self._seed("style")
        judge = StyleNet(style.LAYOUT)
        training = self._training("style", judge)
        loss = style.style_loss(judge, self.faces, training.recipe.batch)
        training.run(loss, lambda net: pack.save_network(self.folder, "style", net), until)

    def depth(self, until: int | None) -> None:
        """Train the depth judge."""
        self._seed("depth")
        judge = DepthNet(depth.LAYOUT)
        training = self._training("depth", judge)
        loss = depth.depth_loss(judge, self.faces, training.recipe.batch)
        training.run(loss, lambda net: pack.save_network(self.folder, "depth", net), until)

    def clip(self, until: int | None) -> None:
        """Train the second CLIP."""
        self._seed("clip")
        judge = build_clip(self.tokenizer, clip.SIZE)
        training = self._training("clip", judge)
        loss = clip.clip_loss(judge, self.tokenizer, self.faces, training.recipe.batch)
        training.run(loss, lambda net: pack.save_clip(self.folder, net, self.tokenizer), until)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m distill3d.tiny.train judges", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with data/; results go to judges/ in it")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--install", action="store_true", help="copy the judges into the package")
    add_recipe_options(parser, RECIPES, SEED)
    return parser


def main(argv: Sequence[str]) -> None:
    """Train, measure and pack the judges; see the package's docstring.

    Args:
        argv: the command line after `python -m distill3d.tiny.train judges`.
    """
    given = _parser().parse_args(list(argv))
    chain = Chain(given.work, chosen_recipes(RECIPES, given))
    for stage in STAGES if given.stage == "all" else (given.stage,):
        chain.run(stage)
    if given.install:
        pack.install(given.work / "judges")
        print(f"Installed {pack.JUDGES_FOLDER}")
