"""How subjects are drawn and shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from distill3d.errors import ConfigError

Background = Literal["learnt", "white", "none"]
Noise = Literal["const", "none"]
Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How subjects are drawn and shown; nothing that a checkpoint decides."""

    psi: float = 0.75  # truncation of w: 1 for none, 0 for the mean subject
    cutoff: int | None = 14  # rows of ws that are truncated; None for all
    background: Background = "learnt"  # "white" and "none" keep the volume alone; what EG3D learnt is part of it
    noise: Noise = "const"  # of the planes' synthesis
    precision: Precision = "float32"  # of super-resolution's features; the official code has half on a GPU
    compiled: bool = False  # super-resolution by torch.compile: pays on a GPU, not on the CPU (docs/eg3d.md)
    low_memory: bool = False  # with gradients: keep no ray and no block of super-resolution, compute them twice
    rays_at_once: int = 4096  # without gradients, and in low memory

    def __post_init__(self) -> None:
        if not 0 <= self.psi <= 1:
            raise ConfigError(f"Truncation psi lies in [0, 1], got {self.psi}.")
        if (self.cutoff is not None and self.cutoff < 0) or self.rays_at_once < 1:
            raise ConfigError(f"cutoff is at least 0 and rays_at_once 1, got {self.cutoff} and {self.rays_at_once}.")
        for name, kind in (("background", Background), ("noise", Noise), ("precision", Precision)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(f"{name} is {', '.join(get_args(kind))}, got {getattr(self, name)!r}.")
