"""The loop: phases, checkpoints, what is measured on held-out heads."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill3d.errors import ConfigError, DivergedError
from distill3d.files import sha256, written_aside
from distill3d.provenance import source_commit
from distill3d.tiny.generator import load_tiny
from distill3d.tiny.train.generator_losses import Photos
from distill3d.tiny.train.store import write_json
from distill3d_lrm.tiny import TINY, save_model
from distill3d_lrm.train.data import teacher_planes
from distill3d_lrm.train.losses import World, decoder_loss, planes_loss, render_loss
from distill3d_lrm.train.sheet import held_out_psnr, write_sheet
from distill3d_lrm.train.start import start_from
from distill3d_lrm.triposr import TripoSR

LOSSES = {"decoder": decoder_loss, "planes": planes_loss, "render": render_loss}
RATES = {"decoder": (4e-3, 2e-4), "planes": (1.2e-3, 1e-4), "render": (6e-4, 3e-5)}  # first, last
MOVING = {"decoder": ("decoder.",), "planes": ("image_tokenizer.", "tokenizer.", "backbone.", "post_processor.")}
WARM_UP = 60  # steps
DEFAULT_PHASES = "decoder=600,planes=2600,render=2000"
SMOKE_PHASES = "decoder=2,planes=2,render=2"
HELD_OUT = 256
LARGEST_GRADIENT = 1.0  # longer ones are shortened to this


@dataclass(frozen=True)
class Phase:
    """So many steps of one loss; the learning rate falls along half a cosine."""

    name: str
    steps: int
    speed: float = 1.0

    def rate(self, done: int) -> float:
        first, last = RATES[self.name]
        warm = min(1.0, (done + 1) / WARM_UP)
        return self.speed * warm * (last + (first - last) * (1 + math.cos(math.pi * done / self.steps)) / 2)


def read_phases(text: str) -> tuple[Phase, ...]:
    """ "planes=900,render=400@0.5" as phases; the number behind @ is a factor of the learning rate."""
    phases = []
    for part in text.split(","):
        found = re.fullmatch(rf"({'|'.join(LOSSES)})=([1-9][0-9]*)(?:@([0-9]*\.?[0-9]+))?", part)
        if not found:
            raise ConfigError(f"A phase is written decoder=900, planes=4000 or render=800@0.5, got {part!r}.")
        phases.append(Phase(found[1], int(found[2]), float(found[3] or 1)))
    return tuple(phases)


@dataclass
class State:
    """Where a run stands."""

    seed: int
    phases: tuple[Phase, ...]
    step: int = 0
    cpu_seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)  # held-out PSNR

    def place(self) -> tuple[Phase, int]:
        """The phase that the next step belongs to, and the steps done in it."""
        done = self.step
        for phase in self.phases:
            if done < phase.steps:
                return phase, done
            done -= phase.steps
        return self.phases[-1], self.phases[-1].steps

    @property
    def total(self) -> int:
        return sum(phase.steps for phase in self.phases)


class Training:
    """Weights, their running mean, the optimiser of the current phase, and where the run stands."""

    def __init__(self, state: State, world: World, held: Photos):
        torch.manual_seed(state.seed)
        self.state, self.world, self.held = state, world, held
        self.model = TripoSR(TINY)
        self._start()
        self.mean = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = self._optimizer()

    @classmethod
    def begin_or_resume(cls, work: Path, seed: int, phases: tuple[Phase, ...], more: tuple[Phase, ...]) -> Training:
        """From DIR/lrm/checkpoint.safetensors if it is there; `more` phases follow those that it was begun with."""
        photos, held = Photos.read(work / "data" / "photo.safetensors").split(HELD_OUT)
        teacher = load_tiny().requires_grad_(False)
        some = teacher_planes(teacher, photos.z[:64])
        world = World(photos, teacher, some.square().mean((0, 3, 4)).sqrt()[..., None, None])
        path = work / "lrm" / "checkpoint.safetensors"
        if not path.is_file():
            return cls(State(seed, phases + more), world, held)
        with safe_open(path, "pt") as file:
            stored = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = State(phases=tuple(Phase(**p) for p in stored.pop("phases")) + more, **stored)
        training = cls(state, world, held)
        training._restore(tensors)
        return training

    def _start(self) -> None:
        if self.state.step == 0:
            planes = teacher_planes(self.world.teacher, self.world.photos.z[:64]) / self.world.spread
            start_from(self.model, planes)

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        for prefix, module in (("now.", self.model), ("mean.", self.mean)):
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        if self.state.place()[1] == 0:
            return  # a phase begins with a fresh optimiser
        for name, parameter in self.model.named_parameters():
            start = f"adam.{name}."
            if moments := {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}:
                self.optimizer.state[parameter] = moments

    def _optimizer(self) -> torch.optim.Optimizer:
        moving = MOVING.get(self.state.place()[0].name, ("",))
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name.startswith(moving) and ".pooler." not in name)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        return torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01, fused=True)

    def step(self) -> dict[str, float]:
        """One step of the current phase."""
        phase, done = self.state.place()
        if done == 0:  # a phase begins from the mean of the last one, with a fresh optimiser
            self.model.load_state_dict(self.mean.state_dict())
            self.optimizer = self._optimizer()
        digest = hashlib.blake2b(f"{self.state.seed}|{self.state.step}".encode(), digest_size=4).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        loss, logged = LOSSES[phase.name](self.model, self.world, generator)
        if not torch.isfinite(loss):
            raise DivergedError(f"The loss is not finite at step {self.state.step}; lower the learning rate.")
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], LARGEST_GRADIENT)
        for group in self.optimizer.param_groups:
            group["lr"] = phase.rate(done)
        self.optimizer.step()
        keep = min(0.995, (1 + done) / (10 + done))
        with torch.no_grad():
            for mean, now in zip(self.mean.parameters(), self.model.parameters()):
                mean.lerp_(now, 1 - keep)
        self.state.step += 1
        return {"loss": loss.item(), **logged}

    def save(self, path: Path) -> None:
        """Everything that the next step reads, in one file."""
        tensors = {f"now.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"mean.{k}": v for k, v in self.mean.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {f"adam.{name}.{k}": v for k, v in self.optimizer.state.get(parameter, {}).items()}
        with written_aside(path) as aside:
            save_file({k: v.contiguous() for k, v in tensors.items()}, aside, {"state": json.dumps(asdict(self.state))})


def checkpoint(training: Training, out: Path) -> None:
    """Save, measure, draw."""
    training.save(out / "checkpoint.safetensors")
    save_model(training.mean, out / "tiny_lrm.safetensors")
    quality = held_out_psnr(training.mean, training.held, 24)
    write_sheet(training.mean, training.held, out / "sheet.png")
    training.state.history.append({"step": training.state.step, "psnr": quality})
    print(f"  held out: {quality:.2f} dB; cpu {training.state.cpu_seconds:.0f} s", flush=True)


def train(training: Training, work: Path, every: float) -> None:
    """Run to the end of the last phase.

    Args:
        work: holds data/; lrm/ is written.
        every: CPU seconds between checkpoints.
    """
    out = work / "lrm"
    out.mkdir(parents=True, exist_ok=True)
    state, began, saved = training.state, time.process_time(), 0.0
    before = state.cpu_seconds
    while state.step < state.total:
        phase, done = state.place()
        logged = training.step()
        state.cpu_seconds = before + time.process_time() - began
        if done % 50 == 0:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in logged.items())
            print(f"{phase.name} {done}/{phase.steps}: {figures}; cpu {state.cpu_seconds:.0f} s", flush=True)
        if state.cpu_seconds - before - saved > every or done + 1 == phase.steps:
            checkpoint(training, out)
            saved = state.cpu_seconds - before
    write_json(out / "provenance.json", provenance(training, out / "tiny_lrm.safetensors"))


def provenance(training: Training, weights: Path) -> dict[str, object]:
    """How the weight file came about."""
    state = training.state
    return {
        "file": weights.name,
        "sha256": sha256(weights),
        "script": "python -m distill3d_lrm.train",
        "commit": source_commit() or "unknown",
        "seed": state.seed,
        "phases": ",".join(f"{p.name}={p.steps}" + (f"@{p.speed}" if p.speed != 1 else "") for p in state.phases),
        "steps": state.step,
        "cpu_seconds": round(state.cpu_seconds),
        "parameters": sum(p.numel() for p in training.mean.parameters()),
        "held_out_psnr": held_out_psnr(training.mean, training.held, HELD_OUT),
    }
