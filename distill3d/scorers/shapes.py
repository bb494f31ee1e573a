"""The default diffusion models' shapes without their weights, as `load_diffusers` would make them."""

from __future__ import annotations

from distill3d.precision import dtypes_of
from distill3d.scorers.architectures import sd15
from distill3d.scorers.diffusers import DiffusersScorer


def shape_of_diffusers(device: str = "meta", *, precision: str = "float32", fast: bool = False) -> DiffusersScorer:
    """Stable Diffusion 1.5 with two ControlNets and random weights; settings as `load_diffusers` takes them."""
    networks, vae = dtypes_of(precision)
    return sd15("full", fast=fast, dtype=networks, vae_dtype=vae, device=device)
