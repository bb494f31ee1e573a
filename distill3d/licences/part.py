"""Somebody's weights in a run."""

from __future__ import annotations

from dataclasses import dataclass

EMBEDDED = "embedded"  # name of weights that come with distill3d


@dataclass(frozen=True)
class Part:
    """Somebody's weights that a run was made with."""

    role: str  # "backbone", "scorer", "controlnet depth", "autoencoder", "metric face"
    name: str  # what others can get it by; "" where it has no name
    licence: str  # as its publisher calls it; "unknown"

    @property
    def measured_only(self) -> bool:
        """Whether it judged the result and nothing of the result comes from it."""
        return self.role.split()[:1] == ["metric"]
