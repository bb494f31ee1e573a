"""Everything that decides the rest of a run, in one folder that is there whole or not at all.

    checkpoints/step-000040/weights.safetensors   the trained tensors, by their names in the backbone
    checkpoints/step-000040/state.safetensors     Adam's moments, the scenes of the step before
    checkpoints/step-000040/state.json            step, counters, checksums of the two

There is no random state to save: draws are functions of seed, step, subject and name.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distill3d.errors import RunError, WeightsError
from distill3d.files import folder_written_aside, sha256
from distill3d.training.trainer import Trainer

SCHEMA = 1
WEIGHTS, STATE, INDEX = "weights.safetensors", "state.safetensors", "state.json"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    path: Path
    step: int

    @property
    def weights(self) -> Path:
        return self.path / WEIGHTS


def save_checkpoint(folder: Path, trainer: Trainer) -> Checkpoint:
    """Write the trainer's state to `folder` as step-NNNNNN and drop all but the last two.

    Raises:
        RunError: if it cannot be written; the earlier ones are intact.
    """
    path = folder / f"step-{trainer.step_number:06d}"
    with folder_written_aside(path) as aside:
        save_file(_plain(trainer.trained), aside / WEIGHTS)
        save_file(_optimiser_state(trainer) | _previous_state(trainer), aside / STATE)
        index = {
            "schema": SCHEMA,
            "step": trainer.step_number,
            "skipped_in_a_row": trainer.skipped_in_a_row,
            "sha256": {name: sha256(aside / name) for name in (WEIGHTS, STATE)},
        }
        (aside / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    for old in list_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old.path)
    for stale in folder.glob(".step-*"):  # what a kill left half-written
        shutil.rmtree(stale, ignore_errors=True)
    return Checkpoint(path, trainer.step_number)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints, oldest first; what a kill left half-written has another name."""
    named = ((re.fullmatch(r"step-(\d+)", p.name), p) for p in folder.glob("step-*") if p.is_dir())
    return sorted((Checkpoint(p, int(m[1])) for m, p in named if m), key=lambda c: c.step)


def load_checkpoint(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Continue from there, bit for bit.

    Raises:
        WeightsError: if a file is damaged, or its names or shapes are not those of this backbone and method.
    """
    index = read_index(checkpoint)
    restore_weights(trainer.trained, checkpoint.weights)
    state = load_tensors(checkpoint.path / STATE)
    for parameter, name in zip(trainer.trained.values(), trainer.trained):
        moments = {key: state[f"adam/{name}/{key}"] for key in _MOMENTS if f"adam/{name}/{key}" in state}
        if moments:
            trainer.optimizer.state[parameter] = {
                key: value if key == "step" else value.to(parameter) for key, value in moments.items()
            }
    trainer.previous = _read_previous(state, trainer)
    trainer.step_number, trainer.skipped_in_a_row = index["step"], index["skipped_in_a_row"]


def read_index(checkpoint: Checkpoint) -> dict:
    """state.json, with the files that it names checked against their checksums."""
    path = checkpoint.path / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        schema, checksums = index["schema"], index["sha256"]
        index["step"], index["skipped_in_a_row"] = int(index["step"]), int(index["skipped_in_a_row"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path} is missing or damaged. Delete {checkpoint.path} to fall back on an older one."
        ) from error
    if schema != SCHEMA:
        raise WeightsError(f"{path} has version {schema}, this distill3d reads version {SCHEMA}.")
    for name, expected in checksums.items():
        file = checkpoint.path / name
        if not file.is_file() or sha256(file) != expected:
            raise WeightsError(
                f"{file} is missing or damaged: its checksum is not the one in {INDEX}. "
                f"Delete {checkpoint.path} to fall back on an older checkpoint."
            )
    return index


def restore_weights(trained: Mapping[str, nn.Parameter], path: Path) -> None:
    """Copy saved tensors into parameters of the same names.

    Raises:
        WeightsError: if the file is damaged, or its names, shapes or values do not fit.
    """
    saved = load_tensors(path)
    if saved.keys() != trained.keys():
        odd = sorted(saved.keys() ^ trained.keys())
        raise WeightsError(
            f"{path} was made for another backbone or another set of trained weights: {len(odd)} names differ, "
            f"the first is {odd[0]!r}."
        )
    for name, parameter in trained.items():
        if saved[name].shape != parameter.shape:
            raise WeightsError(
                f"{path}: {name} has shape {tuple(saved[name].shape)}, the backbone's is {tuple(parameter.shape)}."
            )
        if not saved[name].isfinite().all():
            raise WeightsError(f"{path}: {name} holds values that are not finite.")
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(saved[name])


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


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _optimiser_state(trainer: Trainer) -> dict[str, Tensor]:
    return _plain(
        {
            f"adam/{name}/{key}": value
            for name, parameter in trainer.trained.items()
            for key, value in trainer.optimizer.state.get(parameter, {}).items()
        }
    )


def _previous_state(trainer: Trainer) -> dict[str, Tensor]:
    if trainer.previous is None:
        return {}
    sides = zip(("trained", "reference"), trainer.previous)
    # A copy: both scenes may share storage, which safetensors does not store twice.
    return {
        f"previous/{side}/{name}": t.cpu().clone().contiguous() for side, scene in sides for name, t in scene.items()
    }


def _read_previous(state: Mapping[str, Tensor], trainer: Trainer):
    like = next(iter(trainer.trained.values()))
    sides = tuple(
        {
            key.removeprefix(f"previous/{side}/"): t.to(like.device)
            for key, t in state.items()
            if f"previous/{side}/" in key
        }
        for side in ("trained", "reference")
    )
    return sides if sides[0] else None


def latest_checkpoint(folder: Path) -> Checkpoint:
    """The newest complete one.

    Raises:
        RunError: if there is none.
    """
    found = list_checkpoints(folder)
    if not found:
        raise RunError(f"There is no checkpoint in {folder}: nothing to continue from.")
    return found[-1]
