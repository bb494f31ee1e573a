"""The published networks' shapes without their weights: what a step costs and needs follows from them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from distill3d.draws import Draws
from distill3d_lrm.encoder import Encoder
from distill3d_lrm.model import ReconstructionModel
from distill3d_lrm.openlrm import OpenLRM
from distill3d_lrm.preparation import Preparation
from distill3d_lrm.renderer import Look, LrmRenderer
from distill3d_lrm.subjects import Studio, Subjects
from distill3d_lrm.triposr import TripoSR


def shape_of_triposr(device: str = "meta", *, size: int | None = None, **look: Any) -> LrmRenderer:
    """TripoSR with random weights; settings as `load_triposr` takes them."""
    return _renderer(TripoSR, device, size, look)


def shape_of_openlrm(device: str = "meta", *, size: int | None = None, **look: Any) -> LrmRenderer:
    """OpenLRM 1.1 (mix, base) with random weights; settings as `load_openlrm` takes them."""
    return _renderer(OpenLRM, device, size, look)


def _renderer(
    build: Callable[[], ReconstructionModel], device: str, size: int | None, look: dict[str, Any]
) -> LrmRenderer:
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(0)
        with torch.device(device):
            model = build()
        return renderer_of(model, Look(**look), image_size=size)


def renderer_of(model: ReconstructionModel, look: Look, **settings: Any) -> LrmRenderer:
    """A renderer of pictures that are noise, which encodes every picture anew: no cache hides what that needs."""
    device = next(model.parameters()).device
    studio = Studio(Preparation(model.image_size, 1.0, "antialiased", None, quantised=False), "auto")
    renderer = LrmRenderer(model.eval(), studio, Noise(model.image_size), look, **settings)
    renderer.encoder = Forgetful(model, renderer.encoder.cache)
    return renderer.requires_grad_(False).eval().to(device)


class Noise(Subjects):
    """Pictures of nothing."""

    def __init__(self, image_size: int):
        self.shape = (3, image_size, image_size)

    def drawn(self, draws: Draws) -> Tensor:
        return draws.uniform("picture", *self.shape)

    def of_seed(self, seed: int) -> Tensor:
        return Draws(seed, 0, (0,)).uniform("picture", *self.shape)[0]


class Forgetful(Encoder):
    """Computes every stage each time; nothing is looked up, so no checksum is read either."""

    def _kept(
        self, stage: str, weights: dict[str, nn.Parameter], image: Tensor, compute: Callable[[], Tensor]
    ) -> Tensor:
        if torch.is_grad_enabled() and any(t.requires_grad for t in (image, *weights.values())):
            return compute()
        with torch.no_grad():
            return compute()
