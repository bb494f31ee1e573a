"""A run's folder: what is in it, and the stylised renderer that comes out of it."""

from __future__ import annotations

import copy
import hashlib
import json
import platform
import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError, WeightsError
from distill3d.files import sha256, storing, write_text, written_aside
from distill3d.options import checked_options
from distill3d.plugins import registry
from distill3d.provenance import source_commit
from distill3d.renderer import Renderer
from distill3d.training.checkpoint import (
    WEIGHTS,
    Checkpoint,
    list_checkpoints,
    load_tensors,
    read_index,
    restore_weights,
)
from distill3d.training.loop import CHECKPOINTS

CONFIG, RUN, VERSIONS, LICENCES, BASE = "config.json", "run.json", "versions.json", "licences.json", "base.json"


def publish_weights(folder: Path, checkpoint: Checkpoint, finished: bool, halted: str | None = None) -> None:
    """weights.safetensors beside config.json: all that somebody else needs of this run.

    Args:
        halted: why the run ended before its last step, if it was not well.
    """
    source = checkpoint.weights
    (folder / RUN).unlink(missing_ok=True)  # without it the checkpoint counts, so a kill in between does no harm
    with written_aside(folder / WEIGHTS) as aside:
        aside.write_bytes(source.read_bytes())
    status = "finished" if finished else "halted" if halted else "stopped"
    state = {"status": status, "step": checkpoint.step, "sha256": sha256(source)}
    if halted:
        state["reason"] = halted
    write_text(folder / RUN, json.dumps(state, indent=2) + "\n")


def claim_folder(folder: Path) -> None:
    """Make the folder, unless it holds a run.

    Raises:
        RunError: if it does, or cannot be written.
    """
    probe = folder / ".writable"
    with storing(folder):
        if (folder / CONFIG).exists():
            raise RunError(
                f"{folder} holds another run. Continue it with `distill3d run --resume {folder}`, "
                "or choose another folder with --out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


def new_folder(config: DistillConfig) -> Path:
    """runs/STYLE-BACKBONE, with a number if that is taken."""
    return numbered_folder(Path("runs") / f"{as_file_name(config.style) or 'run'}-{config.backbone}")


def as_file_name(text: str) -> str:
    """A short name of small letters, digits and dashes; empty if the text has no such."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]


def numbered_folder(first: Path) -> Path:
    """`first`, with a number if that is taken; made here, so that nobody else can take it."""
    candidates = [first, *(first.with_name(f"{first.name}-{i}") for i in range(2, 1000))]
    for folder in candidates:
        with storing(folder):
            try:
                folder.mkdir(parents=True)
            except FileExistsError:
                continue
        return folder
    raise RunError(f"There are 999 folders called {first} already. Choose a folder with --out.")


def read_config(folder: Path) -> DistillConfig:
    """config.json of a run folder.

    Raises:
        RunError: if it is not there.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RunError(f"{folder} is no run folder: it has no {CONFIG}.")
    return DistillConfig.from_json(path.read_text(encoding="utf-8", errors="replace"))


def check_device(name: str) -> None:
    """Refuse a device that is not here.

    Raises:
        ConfigError: naming those that are.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise ConfigError(
            f"There is no device {name!r} here. There is: {', '.join(here)}. Choose with --device."
        ) from error


def without_subjects(config: DistillConfig) -> DistillConfig:
    """The config without the paths that `--subjects` gave."""
    return replace(config, backbone_options={k: v for k, v in config.backbone_options.items() if k != "subjects"})


def load_backbone(config: DistillConfig, device: str | None = None) -> Renderer:
    """The config's backbone as it was published; `device` takes the place of the config's own.

    Raises:
        UnknownNameError, ConfigError, WeightsError: what is wrong, and what to do.
    """
    load = registry().find("backbone", config.backbone).load()
    options = checked_options("Backbone", config.backbone, load, config.backbone_options)
    return load(config.weights, device or config.device, **options)


def load_run(folder: Path | str, device: str | None = None) -> Renderer:
    """The stylised renderer of a run folder: its backbone with the trained tensors in place.

    Raises:
        RunError, WeightsError: if the folder holds no run, or its weights are damaged.
    """
    return load_original_and_run(folder, device)[1]


def load_original_and_run(
    folder: Path | str, device: str | None = None, *, subjects: bool = True
) -> tuple[Renderer, Renderer]:
    """The backbone as it was, and as the run left it.

    Args:
        device: takes the place of the run's own.
        subjects: False leaves out the files of subjects that the run was trained on, for who brings others.
    Raises:
        ConfigError, RunError, WeightsError: for a device that is not here, no run, or damaged weights.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not subjects:
        config = without_subjects(config)
    check_device(device or config.device)
    path = trained_weights(folder)
    original = load_backbone(config, device).requires_grad_(False)
    check_base(folder, fingerprint(original))
    stylised = copy.deepcopy(original)
    stylised.trainable(config.train or "default")  # a group may add parameters of its own
    parameters, saved = dict(stylised.named_parameters()), load_tensors(path).keys()
    strange = sorted(saved - parameters.keys())
    if strange:
        raise WeightsError(f"{path} was made for another backbone: {config.backbone!r} has no {strange[0]!r}.")
    restore_weights({name: parameters[name] for name in saved}, path)
    return original, stylised


def trained_weights(folder: Path) -> Path:
    """The newest trained tensors of a run, checked against their checksum."""
    path, checkpoints = folder / WEIGHTS, list_checkpoints(folder / CHECKPOINTS)
    published = _read_state(folder / RUN) if path.is_file() and (folder / RUN).is_file() else None
    ended = published and (published["halted"] or not checkpoints or published["step"] >= checkpoints[-1].step)
    if published and ended:
        if sha256(path) != published["sha256"]:
            raise WeightsError(
                f"{path} is damaged: its checksum is not the one in {RUN}. Delete it to use the last checkpoint."
            )
        return path
    if not checkpoints:
        raise RunError(f"The run in {folder} was stopped before its first checkpoint; it has no weights yet.")
    read_index(checkpoints[-1])
    return checkpoints[-1].weights


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        halted = state.get("status") == "halted"  # then the checkpoints after it are not well
        return {"step": int(state["step"]), "sha256": str(state["sha256"]), "halted": halted}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged. Delete it to use the last checkpoint.") from error


def fingerprint(renderer: Renderer) -> str:
    """A checksum of all of a backbone's tensors with their names: which base a run's weights belong to."""
    digest = hashlib.sha256()
    for name, tensor in sorted(renderer.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write_base(folder: Path, base: str) -> None:
    """Note the fingerprint of the backbone that the run starts from."""
    write_text(folder / BASE, json.dumps({"backbone_sha256": base}, indent=2) + "\n")


def check_base(folder: Path, base: str) -> None:
    """Refuse a backbone whose fingerprint is not that of the one that the run started from.

    Raises:
        WeightsError: if they are not.
    """
    path = folder / BASE
    if not path.is_file():
        return
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))["backbone_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged: it does not say which backbone the run started from.") from error
    if noted != base:
        raise WeightsError(
            f"The run in {folder} started from other weights of its backbone than those that are installed or given. "
            f"{VERSIONS} says which distill3d made it."
        )


def versions() -> dict[str, str]:
    """What a run must be repeated with."""
    packages = ("distill3d", "torch", "diffusers", "transformers", "safetensors", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    commit = source_commit()
    return {**found, "commit": commit} if commit else found
