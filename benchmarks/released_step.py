"""The schedule of the released script, literally, with our modules: what every saving is measured against.

Its default step, as far as it costs anything: every view makes its planes anew; mirrored grid views are rendered and
never read; grid views go through super-resolution though only their raw pictures are used; the VAE's weights have
requires_grad left on; the grid's estimate is decoded for a log; the text is embedded in every call; the third backward
runs through the first view once more.

Random numbers are those of `Trainer` at the same draws, and what the trainer's `ld-released` computes in another form
on purpose is taken from there: the score's arithmetic, and views resized by `fit`. `depth` and `perceptual` are the
two networks that `ld-released` does without. With neither, the control is the reference's own depth and the gradient
is that of `ld-released`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.draws import Draws
from distill3d.objectives.controls import CONTROLS
from distill3d.objectives.denoising import pick
from distill3d.objectives.guidance import guidance_table, guide
from distill3d.objectives.score import LDLoss, ScoreDistillation, variant
from distill3d.objectives.term import Side
from distill3d.renderer import Render, Renderer, Scene
from distill3d.scorers.diffusers import DiffusersCondition, DiffusersScorer
from distill3d.views import Grid, Mirror, View, fit

Network = Callable[..., Tensor]


@dataclass
class Noised:
    """A picture's latents and what the networks said about them."""

    latents: list[Tensor]  # of the view, and of its mirror image; with graphs
    noise: Tensor
    noisy: Tensor
    timestep: Tensor
    branches: dict[str, Tensor]


class ReleasedStep:
    """Fills `.grad` of the trained weights as one step of the released script does.

    Args:
        depth: images (B, 3, H, W) in [-1, 1] to depth (B, h, w), near bright; None for the reference's own.
        perceptual: two pictures to their distance; None for no such loss.
    """

    def __init__(
        self,
        renderer: Renderer,
        reference: Renderer,
        scorer: DiffusersScorer,
        prompt: str,
        *,
        depth: Network | None = None,
        perceptual: Network | None = None,
    ):
        self.renderer, self.reference, self.scorer, self.prompt = renderer, reference, scorer, prompt
        self.depth, self.perceptual = depth, perceptual
        self.objective: ScoreDistillation = LDLoss.released(scorer)
        self.mirror = Mirror(View("main", renderer.defaults.front), self.objective.mirror_weights)
        self.grid = Grid(2, 2, renderer.defaults.around)

    def gradients(self, draws: Draws, previous: tuple[Scene, Scene] | None) -> None:
        """One step.

        Args:
            previous: scenes of the step before, trained and reference.
        """
        self.scorer.vae.requires_grad_(True)  # never asked for, as in the script: gradients for nothing
        codes = self.renderer.sample_codes(draws.scoped("subject"))
        view, mirrored = self.mirror.views
        scene, render = self._pass(self.renderer, codes, view, draws)
        _, render_mirrored = self._pass(self.renderer, codes, mirrored, draws)
        with torch.no_grad():
            scene0, render0 = self._pass(self.reference, codes, view, draws)
            self._pass(self.reference, codes, mirrored, draws)  # never read
        estimate = self._single_view([render, render_mirrored], render0, draws)
        self._grid(codes, draws)
        self._others(render, estimate, (scene, scene0), previous)
        self.scorer.vae.requires_grad_(False).zero_grad(set_to_none=True)

    def _pass(self, renderer: Renderer, codes: Tensor, view: View, draws: Draws) -> tuple[Scene, Render]:
        """The whole backbone, planes and super-resolution included, for one view."""
        scene = renderer.scene(codes)
        cameras = view.cameras(draws).to(scene["planes"])
        return scene, renderer.render(scene, cameras, draws=draws.scoped(f"render/{view.name}"))

    def _single_view(self, renders: list[Render], render0: Render, draws: Draws) -> Tensor:
        """The first backward; returns the denoised estimate (1, 3, H, W) in [-1, 1]."""
        size, view = self.scorer.image_size, self.mirror.view
        pictures = [fit(render.stage("image"), size)[:, 0] for render in renders]
        edges = CONTROLS["canny"](Side({}, {view: render0}), self.mirror, "image", size)
        noised = self._noised(pictures, {"canny": edges}, draws.scoped("score"))
        mask = fit(renders[0].opacity, self.scorer.latent_size)[:, 0].detach()
        d = self.objective.latent_gradient(noised.branches, noised.noise, noised.timestep, mask)
        own, other = self.objective.mirror_weights
        torch.autograd.backward(noised.latents, [own * d, other * d.flip(-1)], retain_graph=True)
        return self._decoded(noised)

    def _grid(self, codes: Tensor, draws: Draws) -> None:
        """The second backward."""
        renders, renders0 = [], {}
        for view in self.grid.views:
            renders.append(self._pass(self.renderer, codes, view, draws)[1])
            self._pass(self.renderer, codes, View(view.name, view.prior, mirrored=True), draws)  # never read
            with torch.no_grad():
                renders0[view] = self._pass(self.reference, codes, view, draws)[1]
        tile = self.grid.tile(self.scorer.image_size)
        picture = self.grid.join(fit(torch.cat([render.raw for render in renders], 1), tile))
        side = Side({}, renders0)
        noised = self._noised([picture], {"depth": self._depth_control(side)}, draws.scoped("grid"))
        mask = self.grid.join(side.opacity(self.grid.views, self.grid.tile(self.scorer.latent_size)))
        d = variant(self.objective, rank_weights=None).latent_gradient(
            noised.branches, noised.noise, noised.timestep, mask
        )
        torch.autograd.backward(noised.latents, [d], retain_graph=True)
        self._decoded(noised)  # for a log

    def _depth_control(self, side: Side) -> Tensor:
        size = self.scorer.image_size
        if self.depth is None:
            return CONTROLS["depth"](side, self.grid, "raw", size)
        maps = []
        for view in self.grid.views:
            with torch.no_grad():
                depth = self.depth(fit(side.views[view].stage("image"), 518)[:, 0])
            low, high = depth.amin((-1, -2), keepdim=True), depth.amax((-1, -2), keepdim=True)
            maps.append(fit(((depth - low) / (high - low))[:, None, None], self.grid.tile(size)))
        return self.grid.join(torch.cat(maps, 1)).expand(-1, 3, -1, -1)

    def _noised(self, pictures: list[Tensor], controls: Mapping[str, Tensor], draws: Draws) -> Noised:
        latents = [self._encoded(picture, draws, f"posterior{i}") for i, picture in enumerate(pictures)]
        with torch.no_grad():
            noise = draws.normal("noise", *latents[0].shape[1:]).to(latents[0])
            timestep = pick(self.objective.timestep_choices())(draws).to(noise.device)
            noisy = self.scorer.schedule.add_noise(latents[0], noise, timestep)
            texts = {"prompt": self.prompt, "empty": ""}
            conditions = {name: DiffusersCondition(self._embedded(text), controls) for name, text in texts.items()}
            branches = self.scorer.predict_noise(noisy, timestep, conditions)
        return Noised(latents, noise, noisy, timestep, branches)

    def _encoded(self, picture: Tensor, draws: Draws, name: str) -> Tensor:
        scorer = self.scorer
        noise = draws.normal(name, scorer.latent_channels, scorer.latent_size, scorer.latent_size)
        return scorer.encode(picture, noise.to(picture))

    def _embedded(self, text: str) -> Tensor:
        tokenizer = self.scorer.tokenizer
        length = tokenizer.model_max_length
        ids = tokenizer([text], padding="max_length", truncation=True, max_length=length).input_ids
        return self.scorer.text_encoder(torch.tensor(ids, device=self.scorer.device))[0]

    @torch.no_grad()
    def _decoded(self, noised: Noised) -> Tensor:
        table = guidance_table("full", self.objective.guidance_scale)
        noise_pred = torch.stack(guide(noised.branches, table)).sum(0)
        denoised = self.scorer.schedule.denoised(noised.noisy, noise_pred, noised.timestep)
        return self.scorer.decode(denoised).clamp(-1, 1)

    def _others(
        self, render: Render, estimate: Tensor, scenes: tuple[Scene, Scene], previous: tuple[Scene, Scene] | None
    ) -> None:
        """The third backward: Tweedie distance, LPIPS and LDIS."""
        picture = fit(render.stage("image"), self.scorer.image_size)[:, 0]
        loss = 0.1 * ((picture - estimate) / 2).square().mean()
        if self.perceptual is not None:
            loss = loss + 0.05 * self.perceptual(estimate, picture).mean()
        if previous is not None:
            moved, moved0 = (
                (now["planes"] - before["planes"]).square().sum(1) for now, before in zip(scenes, previous)
            )
            loss = loss + (moved / (moved0 + 1e-8) - 1).abs().mean()
        loss.backward()


class DepthAnything(torch.nn.Module):
    """Depth Anything V2's base network with random weights (518 px)."""

    def __init__(self) -> None:
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

        super().__init__()
        trunk = Dinov2Config(
            hidden_size=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            image_size=518,
            patch_size=14,
            out_indices=[3, 6, 9, 12],
            apply_layernorm=True,
            reshape_hidden_states=False,
        )
        config = DepthAnythingConfig(
            backbone_config=trunk,
            reassemble_hidden_size=768,
            patch_size=14,
            neck_hidden_sizes=[96, 192, 384, 768],
            fusion_hidden_size=128,
            head_in_index=-1,
        )
        self.net = DepthAnythingForDepthEstimation(config).requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 518, 518) to (B, 518, 518)."""
        return self.net(images).predicted_depth


class AlexDistance(torch.nn.Module):
    """LPIPS on AlexNet's five convolutions (Zhang et al., CVPR 2018) with random weights."""

    LAYERS = ((3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1))
    POOLED = (1, 2)  # places of the layers whose input is pooled

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Conv2d(*shape) for shape in self.LAYERS)
        self.weights = torch.nn.ModuleList(torch.nn.Conv2d(shape[1], 1, 1, bias=False) for shape in self.LAYERS)
        self.requires_grad_(False)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two (B, 3, H, W) to (B,)."""
        pairs = zip(self._features(one), self._features(other), self.weights)
        return sum(weigh((a - b).square()).mean((1, 2, 3)) for a, b, weigh in pairs)  # type: ignore[return-value]

    def _features(self, x: Tensor) -> list[Tensor]:
        found = []
        for place, layer in enumerate(self.layers):
            x = F.relu(layer(F.max_pool2d(x, 3, 2) if place in self.POOLED else x))
            found.append(F.normalize(x, dim=1))
        return found
