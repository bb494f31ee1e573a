"""A generator as one safetensors file: its tensors by their official names, its architecture and origin beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill3d.errors import WeightsError
from distill3d.files import sha256, written_aside
from distill3d_eg3d.architecture import Architecture, architecture_of
from distill3d_eg3d.pickles import PickledGenerator, read_generator

METADATA = "distill3d-eg3d"  # the one key: several would be written in no fixed order
LICENCES = {
    "eg3d": "NVIDIA Source Code License for EG3D: research and evaluation, no commercial use",
    "panohead": "NVIDIA Source Code License for EG3D, on which PanoHead builds: no commercial use",
}


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds."""

    architecture: Architecture
    tensors: dict[str, Tensor]
    source: str  # name of the file that it was converted from
    source_sha256: str
    licence: str


def convert(source: Path, target: Path) -> Checkpoint:
    """An official checkpoint to safetensors; nothing in it is executed.

    Args:
        source: a `.pkl` of EG3D or PanoHead.
        target: the file to write, whole or not at all.
    Raises:
        WeightsError: if the source is missing, damaged, or holds no such generator, or the target is no `.safetensors`.
    """
    if target.suffix != ".safetensors":
        raise WeightsError(f"A converted checkpoint is written as .safetensors, got {target.name!r}.")
    pickled = read_generator(source)
    architecture = architecture_of(
        pickled.init_kwargs,
        pickled.rendering_kwargs,
        pickled.neural_rendering_resolution,
        pickled.plane_axes,
        panohead=_is_panohead(pickled),
    )
    found = Checkpoint(
        architecture,
        {name: tensor.contiguous() for name, tensor in pickled.tensors.items()},
        source.name,
        sha256(source),
        LICENCES[architecture.family],
    )
    save(found, target)
    return found


def _is_panohead(pickled: PickledGenerator) -> bool:
    """By what only PanoHead has: a second mapping network, for its camera's shift."""
    return any(name.startswith("t_mapping.") for name in pickled.tensors)


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Write a file that `load` reads."""
    notes = {
        "architecture": checkpoint.architecture.plain(),
        "source": checkpoint.source,
        "source_sha256": checkpoint.source_sha256,
        "licence": checkpoint.licence,
    }
    with written_aside(path) as aside:
        save_file(checkpoint.tensors, aside, {METADATA: json.dumps(notes, sort_keys=True)})


def load(path: Path) -> Checkpoint:
    """Read a converted checkpoint.

    Raises:
        WeightsError: if the file is missing, damaged or something else.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if METADATA not in metadata:
            raise WeightsError(
                f"{path} is not a converted EG3D or PanoHead checkpoint. "
                "Make one from the official file: distill3d eg3d convert FILE.pkl OUT.safetensors"
            )
        notes = json.loads(metadata[METADATA])
        return Checkpoint(
            Architecture.from_plain(notes["architecture"]),
            tensors,
            str(notes["source"]),
            str(notes["source_sha256"]),
            str(notes["licence"]),
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error}). Convert the official checkpoint again.") from error
