"""Weights out of files that somebody else wrote, and into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from distill3d.errors import WeightsError

FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a `.safetensors` file, or of a plain state dict that torch wrote; no code in it runs.

    Raises:
        WeightsError: if the file is missing, damaged, or holds anything else.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}.")
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is damaged: {_first_line(error)}") from error
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise WeightsError(f"{path} is not a plain state dict: {_first_line(error)}") from error
    if not (isinstance(found, dict) and all(isinstance(n, str) and _is_plain(t) for n, t in found.items())):
        raise WeightsError(f"{path} is not a plain state dict: names and tensors of floating numbers, nothing else.")
    return found


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _is_plain(value: object) -> bool:
    """Whether it is an ordinary tensor of floating numbers."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta and value.dtype in FLOATING


def check_state_dict(wanted: Mapping[str, Tensor], tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse tensors that are not exactly those that are wanted.

    Raises:
        WeightsError: naming what is missing, left over, of another shape, or not finite.
    """
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise WeightsError(f"{source} lacks {len(missing)} tensors, the first is {missing[0]}.")
    if strange := sorted(tensors.keys() - wanted.keys()):
        raise WeightsError(f"{source} has {len(strange)} tensors too many, the first is {strange[0]}.")
    for name, value in wanted.items():
        if tensors[name].shape != value.shape:
            raise WeightsError(
                f"{name} in {source} is {tuple(tensors[name].shape)}, this model's is {tuple(value.shape)}."
            )
        if not tensors[name].isfinite().all():
            raise WeightsError(f"{name} in {source} has numbers that are not finite.")


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put tensors into a module, float32, every one of them; the module may lie on the meta device.

    Raises:
        WeightsError: see `check_state_dict`.
    """
    check_state_dict(module.state_dict(), tensors, source)
    own = {name: value.float().contiguous() for name, value in tensors.items()}
    module.load_state_dict(own, assign=True)
