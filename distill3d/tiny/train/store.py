"""Files of tensors and of notes, whole or absent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from distill3d.files import write_text, written_aside


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, so that a reader never meets half of it."""
    with written_aside(path) as aside:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, by name."""
    return load_file(path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")
