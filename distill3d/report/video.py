"""Subjects that move, as a file that pages and players show."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from torch import Tensor

from distill3d.errors import ConfigError, MissingExtraError
from distill3d.files import written_aside
from distill3d.report.pictures import to_uint8
from distill3d.report.turntable import save_turntable

VideoFormat = Literal["webp", "gif", "mp4"]
FORMATS: tuple[VideoFormat, ...] = get_args(VideoFormat)


def check_format(format: str) -> None:
    """Refuse what cannot be written here, before anything is made that should be.

    Raises:
        ConfigError: for a format that there is not.
        MissingExtraError: for "mp4" without the `video` extra.
    """
    if format not in FORMATS:
        raise ConfigError(f"A video is one of {', '.join(FORMATS)}, got {format!r}.")
    if format == "mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("An .mp4", "video") from error


def save_video(frames: Tensor, path: Path, *, fps: float = 12) -> None:
    """Write frames (T, S, 3, H, W) in [-1, 1], the subjects side by side; .webp and .gif loop for ever.

    Args:
        path: its ending decides the format, .webp, .gif or .mp4.
    Raises:
        ConfigError, MissingExtraError: see `check_format`.
        RunError: if the place cannot be written.
    """
    format = path.suffix.removeprefix(".")
    check_format(format)
    if format == "mp4":
        _save_mp4(frames, path, fps)
    else:
        save_turntable(frames, path, fps=fps)


def _save_mp4(frames: Tensor, path: Path, fps: float) -> None:
    from imageio_ffmpeg import write_frames

    strips = [_even(np.concatenate(to_uint8(subjects), axis=1)) for subjects in frames]
    height, width = strips[0].shape[:2]
    with written_aside(path) as aside:
        writer = write_frames(str(aside), (width, height), fps=fps, quality=8, macro_block_size=1)
        try:
            writer.send(None)
            for strip in strips:
                writer.send(strip)
        finally:
            writer.close()


def _even(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) with an even number of pixels on each side: colours of an .mp4 are stored for two by two of them."""
    height, width = picture.shape[:2]
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
