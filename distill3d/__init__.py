"""distill3d: distil the score of a text-to-image diffusion model into a 3D generator."""

__version__ = "0.1.0"
