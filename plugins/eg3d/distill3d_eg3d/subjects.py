"""Subjects from W+ files, as projectors write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distill3d.errors import ConfigError, WeightsError

KEY = "w"


def read_subjects(places: Sequence[str]) -> Tensor:
    """All codes in these files and folders, in order, (n, num_ws, w_dim) float32.

    Args:
        places: `.npz` files that hold "w", (n, num_ws, w_dim) or (num_ws, w_dim), or folders of such files.
    Raises:
        ConfigError: if a place is missing, or a folder has none.
        WeightsError: for a file that is damaged, holds no "w", or other numbers than codes.
    """
    codes = [_read(path) for place in places for path in _files(Path(place))]
    if len({code.shape[1:] for code in codes}) > 1:
        raise WeightsError(f"The subjects differ in shape: {', '.join(str(tuple(c.shape[1:])) for c in codes)}.")
    return torch.cat(codes)


def _files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        raise ConfigError(
            f"There are no subjects at {place}. Give a .npz file that holds W+ codes, or a folder of them."
        )
    found = sorted(place.glob("*.npz"))
    if not found:
        raise ConfigError(f"The folder {place} holds no .npz file with W+ codes.")
    return found


def _read(path: Path) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as content:
            codes = content[KEY] if KEY in content.files else None
    except Exception as error:  # whatever a damaged file makes of numpy's and zlib's readers
        raise WeightsError(f"{path} cannot be read as a .npz file of W+ codes ({type(error).__name__}).") from error
    if codes is None:
        raise WeightsError(f"{path} holds no codes: an array called {KEY!r} is wanted, as projectors write it.")
    plain = isinstance(codes, np.ndarray) and codes.ndim in (2, 3) and np.issubdtype(codes.dtype, np.floating)
    if plain and codes.size:
        with np.errstate(over="ignore"):
            codes = codes.astype(np.float32)
    if not plain or not codes.size or not np.isfinite(codes).all():
        raise WeightsError(f"{KEY!r} in {path} is no W+ code: finite numbers (n, num_ws, w_dim).")
    return torch.from_numpy(codes).reshape(-1, *codes.shape[-2:])
