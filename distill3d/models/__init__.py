"""From what a user calls a model to a renderer in its style: a run here, a style pack, and mixtures of them."""

from distill3d.models.finding import Told, find_model, find_run, tell_log
from distill3d.models.loading import load, load_mixture, load_palette, load_stylised
from distill3d.models.palette import Palette, Stylised, pristine_of, put

__all__ = [
    "Palette",
    "Stylised",
    "Told",
    "find_model",
    "find_run",
    "load",
    "load_mixture",
    "load_palette",
    "load_stylised",
    "pristine_of",
    "put",
    "tell_log",
]
