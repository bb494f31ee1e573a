"""A run's folder: what is in it, and the stylised renderer that comes out of it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError, WeightsError
from distill3d.files import as_file_name, reading, sha256, storing, write_text, written_aside
from distill3d.licences import Part, parts_of_run
from distill3d.options import checked_options
from distill3d.packs.config import ADAPTER
from distill3d.plugins import registry
from distill3d.provenance import source_commit
from distill3d.renderer import Renderer
from distill3d.run_files import BASE, CONFIG, RUN, RUNS, VERSIONS
from distill3d.stylisation import Backbone, Stylisation
from distill3d.training.checkpoint import WEIGHTS, Checkpoint, list_checkpoints, read_index
from distill3d.training.loop import CHECKPOINTS
from distill3d.training.snapshot import fitting_tensors


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
    return numbered_folder(Path(RUNS) / f"{as_file_name(config.style) or 'run'}-{config.backbone}")


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
        RunError: if it is not there, or cannot be read.
    """
    path = folder / CONFIG
    with reading(path):
        if not path.is_file():
            hint = "" if folder.exists() else " Only a run that lies here can go on, no style pack of the Hub."
            raise RunError(f"{folder} is no run folder: it has no {CONFIG}.{hint}")
        if (folder / ADAPTER).is_file():
            raise RunError(f"{folder} is a style pack, not a run: it has no checkpoints to go on from or to look into.")
        text = path.read_text(encoding="utf-8", errors="replace")
    return DistillConfig.from_json(text)


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


def load_backbone(config: DistillConfig, device: str | None = None) -> Renderer:
    """The config's backbone as it was published; `device` takes the place of the config's own.

    Raises:
        UnknownNameError, ConfigError, WeightsError: what is wrong, and what to do.
    """
    return open_backbone(config.backbone, config.weights, device or config.device, config.backbone_options)


def open_backbone(name: str, weights: str | None, device: str, options: Mapping[str, Any]) -> Renderer:
    """A backbone by its name."""
    load = registry().find("backbone", name).load()
    return load(weights, device, **checked_options("Backbone", name, load, options))


class RunFolder(Stylisation):
    """A run on this machine.

    Raises:
        RunError, ConfigError: if the folder holds none, or its config cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder, self.name = folder, folder.resolve().name
        self.config = read_config(folder)

    @property
    def style(self) -> str:
        return self.config.style

    @property
    def backbone(self) -> Backbone:
        config = self.config
        return Backbone(config.backbone, config.weights, config.backbone_options, noted_base(self.folder))

    @property
    def train(self) -> str:
        return self.config.train or "default"

    @property
    def device(self) -> str:
        return self.config.device

    @property
    def parts(self) -> tuple[Part, ...]:
        return parts_of_run(self.folder)

    def tensors(self, original: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Stylisation.tensors`."""
        return fitting_tensors(trained_weights(self.folder), original)


def step_of_weights(folder: Path) -> int:
    """After how many steps a run's newest trained tensors were saved."""
    if trained_weights(folder) == folder / WEIGHTS:
        return _read_state(folder / RUN)["step"]
    return list_checkpoints(folder / CHECKPOINTS)[-1].step


def trained_weights(folder: Path) -> Path:
    """The newest trained tensors of a run, checked against their checksum."""
    path, checkpoints = folder / WEIGHTS, list_checkpoints(folder / CHECKPOINTS)
    published = _read_state(folder / RUN) if path.is_file() and (folder / RUN).is_file() else None
    ended = published and (published["halted"] or not checkpoints or published["step"] >= checkpoints[-1].step)
    if published and ended:
        with reading(path):
            whole = sha256(path) == published["sha256"]
        if not whole:
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


def noted_base(folder: Path) -> str | None:
    """The fingerprint of the backbone that the run started from; None of a run that did not note it.

    Raises:
        WeightsError: if the note is damaged.
        RunError: if it cannot be read.
    """
    path = folder / BASE
    if not path.is_file():
        return None
    try:
        with reading(path):
            text = path.read_text(encoding="utf-8")
        return str(json.loads(text)["backbone_sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged: it does not say which backbone the run started from.") from error


def check_base(folder: Path, base: str) -> None:
    """Refuse a backbone whose fingerprint is not that of the one that the run started from.

    Raises:
        WeightsError: if they are not.
    """
    if noted_base(folder) not in (None, base):
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
