"""The networks of a PanoHead step, full size or reduced, with random weights on any device, and their parts.

full     512 px, neural resolution 64, 48 + 48 samples, Stable Diffusion 1.5, two ControlNets
reduced  256 px, neural resolution 32, 12 + 12 samples, half of every width: about a sixteenth of each part's work,
         within 8 GB
"""

from __future__ import annotations

from typing import Any

import torch
from step_meter import Meter
from torch import Tensor

from distill3d.precision import dtypes_of
from distill3d.scorers.architectures import Size, sd15
from distill3d.scorers.diffusers import DiffusersScorer
from distill3d_eg3d.architecture import Architecture, architecture_of
from distill3d_eg3d.renderer import Look, TriplaneRenderer

GENERATOR: dict[Size, dict[str, Any]] = {
    "full": {"img_resolution": 512, "channel_base": 32768, "channel_max": 512},
    "reduced": {"img_resolution": 256, "channel_base": 8192, "channel_max": 256},
}
RENDERING: dict[Size, dict[str, Any]] = {
    "full": {
        "superresolution_module": "SuperresolutionHybrid8XDC",
        "triplane_size": 256,
        "depth_resolution": 48,
        "depth_resolution_importance": 48,
    },
    "reduced": {
        "superresolution_module": "SuperresolutionHybrid4X",
        "triplane_size": 128,
        "depth_resolution": 12,
        "depth_resolution_importance": 12,
    },
}
HEAD_IN_FULL = {  # PanoHead's options
    "triplane_depth": 3,
    "use_torgb_raw": True,
    "use_background": True,
    "decoder_activation": "none",
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "c_scale": 1,
    "avg_camera_radius": 2.7,
    "avg_camera_pivot": (0, 0, 0.2),
}
NEURAL_RESOLUTION: dict[Size, int] = {"full": 64, "reduced": 32}
FROZEN = ", frozen"


def panohead(size: Size) -> Architecture:
    init = {"z_dim": 512, "w_dim": 512, "c_dim": 25, "sr_num_fp16_res": 4, "mapping_kwargs": {"num_layers": 2}}
    rendering = {**HEAD_IN_FULL, **RENDERING[size]}
    return architecture_of({**init, **GENERATOR[size]}, rendering, NEURAL_RESOLUTION[size], None, panohead=True)


def make_renderer(size: Size, device: str = "cpu", *, reference: bool = False, **look: Any) -> TriplaneRenderer:
    """PanoHead with random weights, the same at every call; `reference` for the published convolutions literally."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(1)
        renderer = TriplaneRenderer(panohead(size), Look(**look), reference=reference)
    return _like_a_head(renderer.requires_grad_(False).eval())


def _like_a_head(renderer: TriplaneRenderer) -> TriplaneRenderer:
    """Dense, and pictures within about [-1, 1]: as they come, random weights give fog, up to +-6."""
    g = renderer.generator
    g.decoder.net[2].bias[0] += 5  # the density's
    for layer in (g.torgb, g.superresolution.block0.torgb, g.superresolution.block1.torgb):
        layer.weight *= 0.75
    return renderer


def make_scorer(size: Size, device: str = "cpu", precision: str = "float32", *, fast: bool = False) -> DiffusersScorer:
    """Stable Diffusion 1.5 with ControlNets for depth and edges, random weights, the same at every call."""
    dtype, vae_dtype = dtypes_of(precision)
    return sd15(size, fast=fast, dtype=dtype, vae_dtype=vae_dtype, device=device)


def watch_renderer(meter: Meter, renderer: TriplaneRenderer, suffix: str = "") -> None:
    """Planes, the flat background, volume rendering and super-resolution."""
    generator = renderer.generator
    meter.watch(generator, "planes", f"planes{suffix}", lambda ws, *_, **__: len(ws))
    meter.watch(generator, "flat_background", f"background{suffix}", lambda ws, *_, **__: len(ws))
    for method in ("render", "render_raw"):  # super-resolution, inside of `render`, is taken out of it below
        meter.watch(renderer, method, f"volume rendering{suffix}", lambda _, cameras, *__, **___: _views(cameras))
    meter.watch(generator.superresolution, "forward", f"super-resolution{suffix}", lambda raw, *_, **__: len(raw))


def _views(cameras: Any) -> int:
    return int(cameras.cam2world.shape[:2].numel())


def watch_scorer(meter: Meter, scorer: DiffusersScorer) -> None:
    def batch(x: Tensor, *_: Any, **__: Any) -> int:
        return len(x)

    meter.watch(scorer, "encode", "VAE encode", batch)
    meter.watch(scorer, "decode", "VAE decode", batch)
    meter.watch(scorer.text_encoder, "forward", "text encoder", lambda *_, **__: 1)
    meter.watch(scorer.unet, "forward", "UNet", batch)
    for controlnet in scorer.controlnets.values():
        meter.watch(controlnet, "forward", "ControlNet", batch)
