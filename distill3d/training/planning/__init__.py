"""Memory on a budget: what a step needs, predicted from shapes, and the fastest way to compute it that fits."""

from distill3d.training.planning.apply import apply_plan, current_plan, not_offered
from distill3d.training.planning.budget import is_out_of_memory, parse_vram
from distill3d.training.planning.choose import choose_plan
from distill3d.training.planning.plan import LADDER, MemoryPlan, last_saving, next_smaller
from distill3d.training.planning.predict import Prediction, predict

__all__ = [
    "LADDER",
    "MemoryPlan",
    "Prediction",
    "apply_plan",
    "choose_plan",
    "current_plan",
    "is_out_of_memory",
    "last_saving",
    "next_smaller",
    "not_offered",
    "parse_vram",
    "predict",
]
