"""The published networks' shapes without their weights: what a step costs and needs follows from them alone.

Read from the public training commands and scripts; a checkpoint may say otherwise of itself, as of its neural
resolution.
"""

from __future__ import annotations

from typing import Any

import torch

from distill3d_eg3d.architecture import Architecture, Family, architecture_of
from distill3d_eg3d.renderer import Look, TriplaneRenderer

INIT: dict[str, Any] = {
    "z_dim": 512,
    "w_dim": 512,
    "c_dim": 25,
    "img_resolution": 512,
    "sr_num_fp16_res": 4,
    "mapping_kwargs": {"num_layers": 2},
}
RENDERING: dict[str, Any] = {
    "superresolution_module": "SuperresolutionHybrid8XDC",
    "depth_resolution": 48,
    "depth_resolution_importance": 48,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "c_scale": 1,
    "avg_camera_radius": 2.7,
    "avg_camera_pivot": (0, 0, 0.2),
}
FULL_HEADS: dict[str, Any] = {  # PanoHead's
    "use_torgb_raw": True,
    "use_background": True,
    "decoder_activation": "none",
    "triplane_depth": 3,
    "triplane_size": 256,
    "avg_camera_pivot": (0, 0, 0),
}
NEURAL_RESOLUTION: dict[Family, int] = {"eg3d": 128, "panohead": 64}


def published(family: Family) -> Architecture:
    """That of the family's default checkpoint, 512 px."""
    panohead = family == "panohead"
    rendering = {**RENDERING, **(FULL_HEADS if panohead else {})}
    return architecture_of(INIT, rendering, NEURAL_RESOLUTION[family], None, panohead=panohead)


def shape_of_eg3d(device: str = "meta", **look: Any) -> TriplaneRenderer:
    """EG3D's FFHQ heads with random weights; settings as `load_eg3d` takes them."""
    return _renderer(published("eg3d"), device, look)


def shape_of_panohead(device: str = "meta", **look: Any) -> TriplaneRenderer:
    """PanoHead with random weights; settings as `load_panohead` takes them."""
    return _renderer(published("panohead"), device, look)


def _renderer(architecture: Architecture, device: str, look: dict[str, Any]) -> TriplaneRenderer:
    with torch.random.fork_rng([]), torch.device(device):
        torch.default_generator.manual_seed(0)
        renderer = TriplaneRenderer(architecture, Look(**look))
    return renderer.requires_grad_(False).eval()
