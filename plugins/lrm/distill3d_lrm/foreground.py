"""The subject of a photo, cut out of what is behind it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from distill3d.errors import ConfigError
from distill3d_lrm.backdrop import backdrop, soft, stands_out, subject
from distill3d_lrm.preparation import Pixels

Removal = Literal["auto", "keep", "plain", "rembg"]
INSTALL = "pip install 'distill3d-lrm[rembg]'"
SEEN = 128  # alpha from which on something is there
_sessions: list[tuple[ModuleType, Any]] = []  # of rembg, which otherwise loads its network for every photo


def with_alpha(rgba: Pixels, how: Removal, path: Path) -> Pixels:
    """The picture with alpha 0 where the background is.

    Transparency that it has is taken as it is, whatever `how` says.

    Args:
        rgba: (H, W, 4) uint8.
        how: "auto" keys out a backdrop of one colour, and leaves everything else to rembg, if it is installed;
            "plain" keys out the border's commonest colour without looking whether it is a backdrop; "rembg" always
            asks rembg; "keep" takes the whole picture.
        path: of the picture, for errors.
    Raises:
        ConfigError: if nothing is left, or rembg is needed and missing or fails.
    """
    if how not in get_args(Removal):
        raise ConfigError(f"A background is removed by one of {', '.join(get_args(Removal))}, not by {how!r}.")
    if rgba[..., 3].min() == 255 and how != "keep":
        rgba = _cut_out(rgba, how, path)
    if rgba[..., 3].max() < SEEN:
        raise ConfigError(
            f"{path} has no foreground: nothing in it is opaque or stands out. Give a picture of one subject, "
            "or a PNG with transparency around it."
        )
    return rgba


def _cut_out(rgba: Pixels, how: Removal, path: Path) -> Pixels:
    if how == "rembg":
        return _by_rembg(rgba, path)
    behind = backdrop(rgba)
    if how == "auto" and not behind.even:
        return _by_rembg(rgba, path)
    mask = subject(behind)
    if how == "auto" and mask.any() and not stands_out(behind, mask):
        return _by_rembg(rgba, path)
    return np.dstack([rgba[..., :3], soft(mask)])


def _by_rembg(rgba: Pixels, path: Path) -> Pixels:
    try:
        import rembg

        cut = rembg.remove(Image.fromarray(rgba).convert("RGB"), session=_session(rembg))
        found = np.array(cut.convert("RGBA"))
    except (ImportError, SystemExit) as error:  # it exits where its own runtime is missing
        raise ConfigError(
            f"The subject of {path} must be found by rembg, which is not installed, or not wholly. Install it with: "
            f"{INSTALL}. Or give a PNG with transparency around the subject, or a photo before a plain backdrop."
        ) from error
    except Exception as error:  # its network is downloaded at first, and run by another library
        raise ConfigError(
            f"rembg could not cut out {path} ({error or type(error).__name__}). It downloads its network at first "
            "use; without that, give a PNG with transparency."
        ) from error
    if found.shape != rgba.shape:
        raise ConfigError(f"rembg gave another size for {path}. Give a PNG with transparency.")
    return found


def _session(rembg: ModuleType) -> Any:
    if not _sessions or _sessions[0][0] is not rembg:
        _sessions[:] = [(rembg, rembg.new_session())]
    return _sessions[0][1]
