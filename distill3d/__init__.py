"""distill3d: distil the score of a text-to-image diffusion model into a 3D generator.

    from distill3d import LDLoss

Names are imported when they are first used, so that `import distill3d` and `distill3d --help` need no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "CSDLoss": "distill3d.objectives",
    "Cameras": "distill3d.cameras",
    "CameraPrior": "distill3d.cameras",
    "DistillConfig": "distill3d.config",
    "Draws": "distill3d.draws",
    "Grid": "distill3d.views",
    "LDLoss": "distill3d.objectives",
    "Method": "distill3d.methods",
    "Mirror": "distill3d.views",
    "Render": "distill3d.renderer",
    "Renderer": "distill3d.renderer",
    "RunDefaults": "distill3d.renderer",
    "SDSLoss": "distill3d.objectives",
    "Schedule": "distill3d.schedule",
    "ScoreDistillation": "distill3d.objectives",
    "Scorer": "distill3d.scorer",
    "Single": "distill3d.views",
    "Style": "distill3d.styles",
    "Trainer": "distill3d.training.trainer",
    "View": "distill3d.views",
    "distill": "distill3d.recipe",
    "find_model": "distill3d.models",
    "load": "distill3d.models",
}

__all__ = [
    "__version__",
    "CSDLoss",
    "CameraPrior",
    "Cameras",
    "DistillConfig",
    "Draws",
    "Grid",
    "LDLoss",
    "Method",
    "Mirror",
    "Render",
    "Renderer",
    "RunDefaults",
    "SDSLoss",
    "Schedule",
    "ScoreDistillation",
    "Scorer",
    "Single",
    "Style",
    "Trainer",
    "View",
    "distill",
    "find_model",
    "load",
]

if TYPE_CHECKING:
    from distill3d.cameras import CameraPrior, Cameras
    from distill3d.config import DistillConfig
    from distill3d.draws import Draws
    from distill3d.methods import Method
    from distill3d.models import find_model, load
    from distill3d.objectives import CSDLoss, LDLoss, ScoreDistillation, SDSLoss
    from distill3d.recipe import distill
    from distill3d.renderer import Render, Renderer, RunDefaults
    from distill3d.schedule import Schedule
    from distill3d.scorer import Scorer
    from distill3d.styles import Style
    from distill3d.training.trainer import Trainer
    from distill3d.views import Grid, Mirror, Single, View


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'distill3d' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
