# diffusers loads its classes lazily: to mypy they are untyped names.
# mypy: disable-error-code="arg-type,operator,return-value"
"""The stages in order, and the command line that runs them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from distill3d.errors import WeightsError
from distill3d.tiny.judges import JUDGES_FOLDER, Judges, load_judges
from distill3d.tiny.train.diffusion import controlnet, figures, pack, samples, text, unet, vae
from distill3d.tiny.train.diffusion.data import Subjects, load_subjects
from distill3d.tiny.train.diffusion.loop import Recipe, Training, add_recipe_options, chosen_recipes
from distill3d.tiny.train.diffusion.tokenizer import build_tokenizer

TRAINED = ("vae", "clip", "unet", "depth", "canny")
STAGES = (*TRAINED, "pack", "samples")
RECIPES = {"vae": vae.RECIPE, "clip": text.RECIPE, "unet": unet.RECIPE} | dict.fromkeys(
    controlnet.CONTROLS, controlnet.RECIPE
)

SAMPLE_COUNT = 24  # plain samples of each style at each guidance scale, and heads that every style is drawn on


class Chain:
    """The stages of one work folder; each reads what the earlier ones left there."""

    def __init__(
        self,
        work: Path,
        recipes: dict[str, Recipe],
        seed: int = 0,
        sample_steps: int = samples.STEPS,
        sample_count: int = SAMPLE_COUNT,
    ):
        self.work, self.folder, self.recipes = work, work / "diffusion", recipes
        self.seed, self.sample_steps, self.sample_count = seed, sample_steps, sample_count

    @cached_property
    def subjects(self) -> tuple[Subjects, Subjects]:
        """Training and held-out heads."""
        return load_subjects(self.work)

    @cached_property
    def tokenizer(self) -> CLIPTokenizer:
        """Built once in a work folder: the networks are trained on its numbering."""
        folder = self.folder / "tokenizer"
        return CLIPTokenizer.from_pretrained(folder) if folder.is_dir() else build_tokenizer(folder)

    def run(self, stage: str, extend: int = 0, until: int | None = None) -> None:
        """Run one of `STAGES`, going on from its checkpoint; a finished one only saves its result again.

        Args:
            extend: steps of a further phase with a warm restart of the learning rate.
            until: stop (with a checkpoint) at that step.
        """
        torch.set_num_threads(1)  # two are slower at this size
        self.folder.mkdir(parents=True, exist_ok=True)
        getattr(self, stage)(*((extend, until) if stage in TRAINED else ()))

    def _train(self, name: str, build: Callable[[], nn.Module], extend: int) -> Training:
        torch.manual_seed(self.seed)  # initial weights; everything later is drawn per step
        return Training(name, build(), self.recipes[name], self.folder, extend)

    def vae(self, extend: int, until: int | None) -> None:
        """Train the autoencoder and measure it."""
        train, held_out = self.subjects
        training = self._train("vae", vae.build_vae, extend)
        loss = vae.vae_loss(training.net, train, training.recipe.batch)
        training.run(loss, lambda net: vae.finish_vae(net, train, self.folder / "vae"), until)
        figures.write_figures(self.folder, vae_psnr=figures.vae_figures(self.folder, held_out))

    def clip(self, extend: int, until: int | None) -> None:
        """Train the CLIP and measure it."""
        train, held_out = self.subjects
        training = self._train("clip", lambda: text.build_clip(self.tokenizer), extend)
        loss = text.clip_loss(training.net, self.tokenizer, train, training.recipe.batch)
        training.run(loss, lambda net: text.finish_clip(net, self.tokenizer, self.folder), until)
        figures.write_figures(self.folder, clip=figures.clip_figures(self.folder, held_out))

    def _batches(self) -> unet.Batches:
        train, _ = self.subjects
        autoencoder = AutoencoderKL.from_pretrained(self.folder / "vae").eval()
        encoder = CLIPTextModel.from_pretrained(self.folder / "text_encoder").eval()
        latents = unet.cached_latents(autoencoder, train, self.folder)
        return unet.Batches(train, latents, encoder, self.tokenizer)

    def unet(self, extend: int, until: int | None) -> None:
        """Train the denoiser."""
        training = self._train("unet", unet.build_unet, extend)
        loss = unet.unet_loss(training.net, self._batches(), training.recipe.batch)
        training.run(loss, lambda net: net.save_pretrained(self.folder / "unet"), until)

    def depth(self, extend: int, until: int | None) -> None:
        """Train the depth ControlNet on the finished denoiser."""
        self._controlnet("depth", extend, until)

    def canny(self, extend: int, until: int | None) -> None:
        """Train the edge ControlNet on the finished denoiser."""
        self._controlnet("canny", extend, until)

    def _controlnet(self, name: str, extend: int, until: int | None) -> None:
        denoiser = UNet2DConditionModel.from_pretrained(self.folder / "unet").eval()
        training = self._train(name, lambda: controlnet.build_controlnet(denoiser), extend)
        loss = controlnet.controlnet_loss(name, training.net, denoiser, self._batches(), training.recipe.batch)
        training.run(loss, lambda net: net.save_pretrained(self.folder / f"controlnet-{name}"), until)

    def pack(self) -> None:
        """Write the half-precision pipeline."""
        pack.pack(self.folder, self.seed)

    def samples(self) -> None:
        """Draw all sheets, measure what has been trained so far, and note it in the pipeline's provenance."""
        _, held_out = self.subjects
        judges, steps, each = self._judges(), self.sample_steps, self.sample_count
        plain = samples.plain_samples(self.folder, each, steps)
        measured: dict[str, object] = {"vae_psnr": figures.vae_figures(self.folder, held_out)}
        if judges:
            measured["plain"] = {f"guidance {s:g}": figures.style_figures(judges, drawn) for s, drawn in plain.items()}
        packed = self.folder / "pipeline"
        for name in controlnet.CONTROLS if packed.is_dir() else ():
            exact = pack.assemble(self.folder, name)
            _, drawn = samples.controlled_samples(exact, name, held_out, min(each, len(held_out)), self.folder, steps)
            if judges:
                measured[name] = {
                    "depth": figures.depth_figures(judges, held_out, drawn),
                    "style": figures.style_figures(judges, drawn.transpose(0, 1)),
                }
            if name == "depth":
                measured["half_precision_psnr"] = figures.half_precision_psnr(exact, packed, steps)
        figures.write_figures(self.folder, **measured)
        if packed.is_dir():
            pack.write_provenance(self.folder, packed, self.seed)

    def _judges(self) -> Judges | None:
        """Those of the work folder, or else of the package; without any, samples are only drawn."""
        for folder in (self.work / "judges", JUDGES_FOLDER):
            try:
                return load_judges(folder)
            except WeightsError as error:
                print(f"Not measured by the judges of {folder}: {error}", flush=True)
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m distill3d.tiny.train diffusion", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with data/; results go to diffusion/ in it")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--extend", type=int, default=0, metavar="STEPS", help="train a finished stage further")
    parser.add_argument("--install", action="store_true", help="copy the packed pipeline into the package")
    add_recipe_options(parser, RECIPES, seed=0)
    return parser


def main(argv: Sequence[str]) -> None:
    """Train, pack and sample the embedded diffusion model; see the module's docstring.

    Args:
        argv: the command line after `python -m distill3d.tiny.train diffusion`.
    """
    parser = _parser()
    given = parser.parse_args(list(argv))
    if given.extend and given.stage not in TRAINED:
        parser.error(f"--extend needs one trained stage: --stage {'|'.join(TRAINED)}")
    few = {"sample_steps": 2, "sample_count": 2} if given.smoke else {}
    chain = Chain(given.work, chosen_recipes(RECIPES, given), given.seed, **few)
    for stage in STAGES if given.stage == "all" else (given.stage,):
        chain.run(stage, given.extend)
    if given.install:
        pack.install(chain.folder / "pipeline")
        print(f"Installed {pack.INSTALLED}")
