"""Everything that decides the rest of a run, in one folder that is there whole or not at all.

    checkpoints/step-000040/weights.safetensors    the trained tensors, by their names in the backbone
    checkpoints/step-000040/averaged.safetensors   their moving average, if the run keeps one
    checkpoints/step-000040/state.safetensors      Adam's moments, the scenes of the step before
    checkpoints/step-000040/state.json             step, counters, config, versions, checksums of the others

docs/checkpoints.md says what is promised of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from distill3d.config import DistillConfig
from distill3d.errors import RunError, WeightsError
from distill3d.files import aside_of, folder_written_aside, sha256
from distill3d.training.index import (
    INDEX,
    SCHEMA,
    Checkpoint,
    NewerCheckpointError,
    checked_index,
    read_index,
    read_json,
)
from distill3d.training.snapshot import WEIGHTS as WEIGHTS
from distill3d.training.snapshot import files_of, read_snapshot, restore
from distill3d.training.snapshot import load_tensors as load_tensors
from distill3d.training.trainer import Trainer

KEPT = 2


def save_checkpoint(
    folder: Path,
    trainer: Trainer,
    *,
    config: DistillConfig | None = None,
    versions: Mapping[str, str] | None = None,
    keep: int = KEPT,
    best: bool = False,
) -> Checkpoint | None:
    """Write the trainer's state to `folder` as step-NNNNNN; drop all but the last `keep` and the newest best one.

    Several processes call it together; the one that leads writes, the others get None.

    Args:
        config, versions: what the state belongs to, kept beside it.
        best: mark it as one to come back to.
    Raises:
        RunError: if it cannot be written; the earlier ones are intact.
    """
    files = files_of(trainer)
    if not trainer.share.leads:
        return None
    saved = Checkpoint(folder / f"step-{trainer.step_number:06d}", trainer.step_number)
    with folder_written_aside(saved.path) as aside:
        for name, tensors in files.items():
            save_file(tensors, aside / name)
        index = {
            "schema": SCHEMA,
            "step": trainer.step_number,
            "skipped_in_a_row": trainer.skipped_in_a_row,
            "best": best,
            "config": None if config is None else json.loads(config.to_json()),
            "versions": dict(versions or {"distill3d": version("distill3d")}),
            "sha256": {name: sha256(aside / name) for name in files},
        }
        (aside / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")
    _drop_old(folder, saved.step, keep)
    return saved


def _drop_old(folder: Path, step: int, keep: int) -> None:
    """What is later than `step` was damaged, else the run would not have come from before it."""
    past = [c for c in list_checkpoints(folder) if c.step <= step]
    kept = {c.path for c in past[-keep:]} | {c.path for c in _marked_best(past)[-1:]}
    for old in list_checkpoints(folder):
        if old.path not in kept:
            with suppress(OSError):  # renamed first: no kill leaves half of one under its name
                os.replace(old.path, aside_of(old.path))
    for stale in folder.glob(".step-*"):  # and what a kill left half-written
        shutil.rmtree(stale, ignore_errors=True)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """The complete checkpoints, oldest first; what a kill left half-written has another name."""
    found: dict[int, Checkpoint] = {}
    for path in folder.glob("*step-*"):
        name = re.fullmatch(r"step-(\d+)|\.step-(\d+)\.old\d+", path.name)
        if name and path.is_dir():
            step = int(name[1] or name[2])
            if name[1] or step not in found:  # .old: one that was about to be replaced when a kill came
                found[step] = Checkpoint(path, step)
    return sorted(found.values(), key=lambda c: c.step)


def latest_checkpoint(folder: Path) -> Checkpoint:
    """The newest complete one; it may have been damaged since.

    Raises:
        RunError: if there is none.
    """
    found = list_checkpoints(folder)
    if not found:
        raise RunError(f"There is no checkpoint in {folder}: nothing to continue from.")
    return found[-1]


def latest_good_checkpoint(folder: Path) -> tuple[Checkpoint, list[str]]:
    """The newest one whose checksums hold, and a sentence on each newer one that is damaged.

    Raises:
        RunError: if there is no checkpoint.
        WeightsError: if all are damaged, or the newest whole one was written by a newer distill3d.
    """
    latest_checkpoint(folder)
    said: list[str] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            checked_index(checkpoint)
        except NewerCheckpointError:
            raise
        except WeightsError as error:
            said.append(f"{error} It is passed over.")
        else:
            return checkpoint, said
    reasons = " ".join(sentence.removesuffix(" It is passed over.") for sentence in said)
    raise WeightsError(
        f"No checkpoint in {folder} is whole. {reasons} Restore one from a copy, or delete {folder} and continue: "
        "the run then begins again at its first step."
    )


def best_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest one that was marked best."""
    marked = _marked_best(list_checkpoints(folder))
    return marked[-1] if marked else None


def _marked_best(checkpoints: list[Checkpoint]) -> list[Checkpoint]:
    def is_marked(checkpoint: Checkpoint) -> bool:
        try:
            return read_json(checkpoint)["best"]
        except WeightsError:
            return False

    return [c for c in checkpoints if is_marked(c)]


def load_checkpoint(checkpoint: Checkpoint, trainer: Trainer) -> None:
    """Continue from there, bit for bit; nothing of the trainer changes if it cannot.

    Raises:
        WeightsError: if a file is damaged, or its names or shapes are not those of this backbone and method.
    """
    index = read_index(checkpoint)
    restore(read_snapshot(checkpoint.path, trainer), trainer)
    trainer.step_number, trainer.skipped_in_a_row = index["step"], index["skipped_in_a_row"]


def saved_config(checkpoint: Checkpoint) -> DistillConfig | None:
    """The config that the state belongs to; None of a checkpoint that does not say.

    Raises:
        ConfigError, WeightsError: if it is damaged or of a newer version.
    """
    config = read_json(checkpoint)["config"]
    return None if config is None else DistillConfig.from_json(json.dumps(config))


def config_difference(saved: DistillConfig, now: DistillConfig) -> list[str]:
    """What differs, as "lr: 0.008 -> 0.0001", without what does not decide the future: `DistillConfig.FREE`."""
    before, after = _flat(saved), _flat(now)
    names = [*before, *(name for name in after if name not in before)]
    return [
        f"{name}: {_shown(before, name)} -> {_shown(after, name)}"
        for name in names
        if (name in before) != (name in after) or before[name] != after[name]
    ]


def _flat(config: DistillConfig) -> dict[str, Any]:
    """Every setting as JSON keeps it; those of tables as table.name."""
    flat: dict[str, Any] = {}
    for name, value in json.loads(json.dumps(asdict(config))).items():
        if name in DistillConfig.FREE:
            continue
        flat.update({f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value})
    return flat


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name]) if name in settings else "not set"
