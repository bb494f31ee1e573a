"""What the parts of a run may be used for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """Somebody's weights that a run was made with."""

    role: str  # "backbone", "scorer", "controlnet depth", "metric face"
    name: str  # what others can get it by; "" where it has no name
    licence: str  # as its publisher calls it; "unknown"
