"""Procedural heads: identity and style in, pictures, depth and masks out, exact from every camera."""

from distill3d.tiny.world.identity import CODE_SIZE, IDENTITY_NAMES, identity_from_codes, sample_identity
from distill3d.tiny.world.render import BACKGROUND, BACKGROUND_DEPTH, Tracer, render_heads
from distill3d.tiny.world.styles import STYLE_KEYS, STYLE_NAMES, style_rows

__all__ = [
    "BACKGROUND",
    "BACKGROUND_DEPTH",
    "CODE_SIZE",
    "IDENTITY_NAMES",
    "STYLE_KEYS",
    "STYLE_NAMES",
    "Tracer",
    "identity_from_codes",
    "render_heads",
    "sample_identity",
    "style_rows",
]
