"""The gradient microscope: what a step of a run saw, and what it made of it."""

from distill3d.explain.microscope import explain, explain_step

__all__ = ["explain", "explain_step"]
