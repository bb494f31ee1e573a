"""A run's folder: what is in it, and the stylised renderer that comes out of it."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from distill3d.config import DistillConfig
from distill3d.errors import RunError, WeightsError
from distill3d.files import sha256, storing, write_text, written_aside
from distill3d.plugins import registry
from distill3d.renderer import Renderer
from distill3d.training.checkpoint import (
    WEIGHTS,
    latest_checkpoint,
    list_checkpoints,
    load_tensors,
    read_index,
    restore_weights,
)
from distill3d.training.loop import CHECKPOINTS

CONFIG, RUN, VERSIONS, LICENCES = "config.json", "run.json", "versions.json", "licences.json"


def publish_weights(folder: Path, step: int, finished: bool) -> None:
    """weights.safetensors beside config.json: all that somebody else needs of this run."""
    source = latest_checkpoint(folder / CHECKPOINTS).weights
    with written_aside(folder / WEIGHTS) as aside:
        aside.write_bytes(source.read_bytes())
    state = {"status": "finished" if finished else "stopped", "step": step, "sha256": sha256(source)}
    write_text(folder / RUN, json.dumps(state, indent=2) + "\n")


def claim_folder(folder: Path) -> None:
    """Make the folder, unless it holds a run.

    Raises:
        RunError: if it does, or cannot be written.
    """
    if (folder / CONFIG).exists():
        raise RunError(
            f"{folder} holds another run. Continue it with `distill3d run --resume {folder}`, "
            "or choose another folder with --out."
        )
    probe = folder / ".writable"
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()


def new_folder(config: DistillConfig) -> Path:
    """runs/STYLE-BACKBONE, with a number if that is taken."""
    name = re.sub(r"[^a-z0-9]+", "-", config.style.lower()).strip("-")[:40] or "run"
    first = Path("runs") / f"{name}-{config.backbone}"
    candidates = [first, *(first.with_name(f"{first.name}-{i}") for i in range(2, 1000))]
    return next(folder for folder in candidates if not folder.exists())


def read_config(folder: Path) -> DistillConfig:
    """config.json of a run folder.

    Raises:
        RunError: if it is not there.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RunError(f"{folder} is no run folder: it has no {CONFIG}.")
    return DistillConfig.from_json(path.read_text(encoding="utf-8"))


def load_run(folder: Path | str) -> Renderer:
    """The stylised renderer of a run folder: its backbone with the trained tensors in place.

    Raises:
        RunError, WeightsError: if the folder holds no run, or its weights are damaged.
    """
    return load_original_and_run(folder)[1]


def load_original_and_run(folder: Path | str) -> tuple[Renderer, Renderer]:
    """The backbone as it was, and as the run left it."""
    folder = Path(folder)
    config = read_config(folder)
    load = registry().find("backbone", config.backbone).load()
    path = trained_weights(folder)
    original, stylised = (load(config.weights, config.device).requires_grad_(False) for _ in range(2))
    parameters, saved = dict(stylised.named_parameters()), load_tensors(path).keys()
    strange = sorted(saved - parameters.keys())
    if strange:
        raise WeightsError(f"{path} was made for another backbone: {config.backbone!r} has no {strange[0]!r}.")
    restore_weights({name: parameters[name] for name in saved}, path)
    return original, stylised


def trained_weights(folder: Path) -> Path:
    """The newest trained tensors of a run, checked against their checksum."""
    path, state = folder / WEIGHTS, folder / RUN
    if path.is_file() and state.is_file():
        if sha256(path) != json.loads(state.read_text(encoding="utf-8"))["sha256"]:
            raise WeightsError(
                f"{path} is damaged: its checksum is not the one in {RUN}. Delete it to use the last checkpoint."
            )
        return path
    if not list_checkpoints(folder / CHECKPOINTS):
        raise RunError(f"The run in {folder} was stopped before its first checkpoint; it has no weights yet.")
    checkpoint = latest_checkpoint(folder / CHECKPOINTS)
    read_index(checkpoint)
    return checkpoint.weights


def versions() -> dict[str, str]:
    """What a run must be repeated with."""
    packages = ("distill3d", "torch", "diffusers", "transformers", "safetensors", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    commit = _commit()
    return {**found, "commit": commit} if commit else found


def _commit() -> str | None:
    """Of the source tree that this is run from, if it is one."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None
