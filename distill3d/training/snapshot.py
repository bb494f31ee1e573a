"""All of a trainer that decides its future, as named tensors, and back.

There is no random state among it: draws are functions of seed, step, subject and name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distill3d.errors import WeightsError
from distill3d.renderer import Scene
from distill3d.training.trainer import Trainer

WEIGHTS, AVERAGED, STATE = "weights.safetensors", "averaged.safetensors", "state.safetensors"
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of Adam
SIDES = ("trained", "reference")


@dataclass(frozen=True)
class Snapshot:
    """What was read of a checkpoint, checked against the trainer that it is for."""

    weights: Mapping[str, Tensor]
    averaged: Mapping[str, Tensor] | None
    moments: Mapping[str, Mapping[str, Tensor]]  # by parameter; none of one that has had no gradient
    previous: tuple[Scene, Scene] | None  # of this process's subjects


def files_of(trainer: Trainer) -> dict[str, dict[str, Tensor]]:
    """The tensors of each file of a checkpoint, on the CPU. Several processes call it together."""
    previous = trainer.share.gather_subjects(_named_scenes(trainer.previous))
    moments = {
        f"adam/{name}/{key}": value
        for name, parameter in trainer.trained.items()
        for key, value in trainer.optimizer.state.get(parameter, {}).items()
    }
    # Copies of scenes: two entries may share storage, which safetensors does not store twice.
    state = _plain(moments) | {name: t.detach().cpu().clone().contiguous() for name, t in previous.items()}
    files = {WEIGHTS: _plain(trainer.trained), STATE: state}
    return files if trainer.averaged is None else {**files, AVERAGED: _plain(trainer.averaged)}


def read_snapshot(folder: Path, trainer: Trainer) -> Snapshot:
    """Read what `files_of` gave; nothing of the trainer changes.

    Raises:
        WeightsError: if a file is damaged, or its names or shapes are not those of this backbone and method.
    """
    state = load_tensors(folder / STATE)
    averaged = folder / AVERAGED
    wanted = trainer.averaged is not None and averaged.is_file()
    return Snapshot(
        fitting_tensors(folder / WEIGHTS, trainer.trained),
        fitting_tensors(averaged, trainer.trained) if wanted else None,
        {name: _moments(state, name, parameter, folder / STATE) for name, parameter in trainer.trained.items()},
        _previous(state, trainer),
    )


@torch.no_grad()
def restore(snapshot: Snapshot, trainer: Trainer) -> None:
    """Put it all in the place of what the trainer had."""
    for name, parameter in trainer.trained.items():
        parameter.copy_(snapshot.weights[name])
    if trainer.averaged is not None:  # one that was not kept so far starts from the weights
        for name, average in trainer.averaged.items():
            average.copy_((snapshot.averaged or snapshot.weights)[name])
    trainer.optimizer.state.clear()
    for name, parameter in trainer.trained.items():
        if moments := snapshot.moments[name]:
            trainer.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter) for key, value in moments.items()
            }
    trainer.previous = snapshot.previous


def load_tensors(path: Path) -> dict[str, Tensor]:
    """A safetensors file.

    Raises:
        WeightsError: if it is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise WeightsError(f"There is no file {path}.") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}.") from error


def fitting_tensors(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors, of the names and shapes of `wanted`.

    Raises:
        WeightsError: if the file is damaged, or its names, shapes or values do not fit.
    """
    saved = load_tensors(path)
    if saved.keys() != wanted.keys():
        odd = sorted(saved.keys() ^ wanted.keys())
        raise WeightsError(
            f"{path} was made for another backbone or another set of trained weights: {len(odd)} names differ, "
            f"the first is {odd[0]!r}."
        )
    for name, tensor in wanted.items():
        if saved[name].shape != tensor.shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(saved[name].shape)}, the backbone's is {tuple(tensor.shape)}."
            )
        if not saved[name].isfinite().all():
            raise WeightsError(f"{path}: {name} holds values that are not finite.")
    return saved


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _named_scenes(previous: tuple[Scene, Scene] | None) -> dict[str, Tensor]:
    sides = zip(SIDES, previous or ())
    return {f"previous/{side}/{name}": entry for side, scene in sides for name, entry in scene.items()}


def _moments(state: Mapping[str, Tensor], name: str, parameter: Tensor, path: Path) -> dict[str, Tensor]:
    moments = {key: state[f"adam/{name}/{key}"] for key in MOMENTS if f"adam/{name}/{key}" in state}
    fits = all(m.shape == parameter.shape for key, m in moments.items() if key != "step")
    if moments and not (fits and moments.keys() == set(MOMENTS)):
        raise WeightsError(f"{path} was made for another optimiser or backbone: the moments of {name} do not fit.")
    return moments


def _previous(state: Mapping[str, Tensor], trainer: Trainer) -> tuple[Scene, Scene] | None:
    """The rows of this process's subjects; None if there are none, or of a batch of another size."""
    device = next(iter(trainer.trained.values())).device
    rows = list(trainer.share.subjects(trainer.batch))
    trained, reference = (
        {
            key.removeprefix(f"previous/{side}/"): entry[rows].to(device)
            for key, entry in state.items()
            if key.startswith(f"previous/{side}/") and len(entry) == trainer.batch
        }
        for side in SIDES
    )
    return (trained, reference) if trained else None
