"""Views to a picture, to latents, to a noised one, to a noise prediction for every branch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from distill3d.draws import Draws
from distill3d.errors import ConfigError, MissingExtraError
from distill3d.objectives.controls import CONTROLS, control_needs
from distill3d.objectives.term import Needs, Side, StepBatch
from distill3d.renderer import Stage
from distill3d.scorer import Condition, Scorer, encode_at_unit_scale
from distill3d.styles import with_view_words
from distill3d.views import View, ViewLayout

Timesteps = Callable[[Draws], Tensor]  # (S,) int64; annealing reads draws.step


def pick(choices: Sequence[int]) -> Timesteps:
    """Each subject draws its own timestep from `choices`."""
    table = torch.tensor(list(choices))
    return lambda draws: table[draws.integers("timestep", len(table))]


@dataclass(frozen=True)
class Prediction:
    """What the scorer said about one picture per subject."""

    latents: Tensor  # (S, C, h, w), with a graph to the pixels
    noise: Tensor
    noisy: Tensor
    timestep: Tensor  # (S,)
    branches: dict[str, Tensor]
    conditions: dict[str, Condition]


@dataclass(eq=False)
class Denoising:
    """The recipe of a prediction. Terms that are given the same object share its forward pass."""

    scorer: Scorer
    layout: ViewLayout
    prompts: Mapping[str, str]  # of each branch
    timesteps: Timesteps
    stage: Stage = "image"
    controls: tuple[str, ...] = ()
    join: Literal["images", "latents"] = "images"  # where views are joined; "latents" encodes each view by itself
    sampled_posterior: bool = False
    draw: str = "score"  # denoisings of equal `draw` see equal noise and timesteps

    def __post_init__(self) -> None:
        unknown = [name for name in self.controls if name not in self.scorer.controls]
        if unknown:
            raise ConfigError(
                f"This scorer has no ControlNet for {', '.join(unknown)}. It has: "
                f"{', '.join(self.scorer.controls) or 'none'}."
            )
        if "canny" in self.controls and importlib.util.find_spec("cv2") is None:
            raise MissingExtraError("The canny control (leave it out with --set control=off)", "control")

    @property
    def needs(self) -> Needs:
        """The layout's views with gradient; what the controls read of the reference."""
        hidden = frozenset(self.layout.views) - frozenset(self.layout.shown)
        # Joined on images, a view that is not shown gives its derivative alone; latents are encoded from its values.
        blind = hidden if self.join == "images" else frozenset[View]()
        views = Needs(dict.fromkeys(self.layout.views, self.stage), blind=blind)
        return views | control_needs(self.controls, self.layout, self.stage)

    def predict(self, batch: StepBatch) -> Prediction:
        """Of the trained side, once in a step."""
        return batch.once((self, "prediction"), lambda: self._predict(batch))

    def _predict(self, batch: StepBatch) -> Prediction:
        draws = batch.draws.scoped(self.draw)
        latents = self._encode(batch.trained, draws)
        with torch.no_grad():
            noise = draws.normal("noise", *latents.shape[1:]).to(latents)
            timestep = self.timesteps(draws).to(latents.device)
            noisy = self.scorer.schedule.add_noise(latents, noise, timestep)
            conditions = self.conditions(batch)
            branches = self.scorer.predict_noise(noisy, timestep, conditions)
        return Prediction(latents, noise, noisy, timestep, branches, conditions)

    @torch.no_grad()
    def opposite(self, prediction: Prediction) -> Prediction:
        """What the scorer says of the same picture under the negative of the same noise."""
        noisy = self.scorer.schedule.add_noise(prediction.latents, -prediction.noise, prediction.timestep)
        branches = self.scorer.predict_noise(noisy, prediction.timestep, prediction.conditions)
        return replace(prediction, noise=-prediction.noise, noisy=noisy, branches=branches)

    def _encode(self, side: Side, draws: Draws) -> Tensor:
        tiles = side.tiles(self.layout.views, self.stage, self.layout.tile(self.scorer.image_size))
        if self.join == "images":
            return self._encode_picture(self.layout.join(tiles), draws, "posterior0")
        each = [self._encode_picture(tile, draws, f"posterior{i}") for i, tile in enumerate(tiles.unbind(1))]
        return self.layout.join(torch.stack(each, 1))

    def _encode_picture(self, picture: Tensor, draws: Draws, name: str) -> Tensor:
        if not self.sampled_posterior:
            return encode_at_unit_scale(self.scorer, picture)
        factor = self.scorer.image_size // self.scorer.latent_size
        shape = (self.scorer.latent_channels, picture.shape[-2] // factor, picture.shape[-1] // factor)
        return encode_at_unit_scale(self.scorer, picture, draws.normal(name, *shape).to(picture))

    def conditions(self, batch: StepBatch) -> dict[str, Condition]:
        """What each branch is conditioned on, for the pictures of this step."""
        size = self.scorer.image_size
        controls = {name: CONTROLS[name](batch.reference, self.layout, self.stage, size) for name in self.controls}
        return {name: self.scorer.condition(self._texts(name, batch), controls=controls) for name in self.prompts}

    def _texts(self, branch: str, batch: StepBatch) -> list[str]:
        """One text per subject.

        View words go to the "prompt" branch alone: in both they would cancel in the guidance difference. A picture of
        several views (the grid) keeps the plain text, but for a scorer that was taught words for grids.
        """
        prompt = self.prompts[branch]
        if branch != "prompt":
            return [prompt] * len(batch.codes)
        if len(self.layout.shown) > 1:
            words = self.scorer.grid_words
            return [f"{prompt}, {words}" if words and prompt else prompt] * len(batch.codes)
        (view,) = self.layout.shown
        yaws = torch.rad2deg(batch.cameras[view].yaw()[:, 0]).tolist()
        return [with_view_words(prompt, yaw, view.prior.yaw) for yaw in yaws]
