"""Train the tiny generator: `python -m distill3d.tiny.train generator --work DIR`.

Reads DIR/data/photo.safetensors and photo128.safetensors, writes DIR/generator/: the checkpoint, sheets of held-out
subjects, generator.safetensors (half precision) and provenance.json. A run that was stopped goes on from its
checkpoint and ends with the same bits: every random number is a function of the seed and the step.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from distill3d.errors import ConfigError, DivergedError
from distill3d.files import sha256, written_aside
from distill3d.provenance import source_commit
from distill3d.tiny.generator import WEIGHTS, TinyArchitecture, TinyTriplane, save_tiny
from distill3d.tiny.train.generator_losses import Photos, field_loss, render_loss, superres_loss
from distill3d.tiny.train.generator_sheet import held_out_psnr, write_sheet
from distill3d.tiny.train.store import write_json

HELD_OUT, HELD_OUT_128 = 256, 64
LOSSES = {"field": field_loss, "render": render_loss, "superres": superres_loss}
RATES = {"field": (1.5e-2, 4.5e-3), "render": (4.5e-3, 1.5e-4), "superres": (4e-3, 2e-4)}  # first, last
WARM_UP = 50  # steps
MAPPING_SPEED = 20.0  # the layers of the mapping learn slowly by design, for adversarial training; here that starves it
SMOKE_PHASES = "field=2,render=2,superres=2"
DEFAULT_PHASES = "field=4000,render=6500,superres=1200"


@dataclass(frozen=True)
class Phase:
    """So many steps of one loss; the learning rate falls along half a cosine."""

    name: str
    steps: int
    speed: float = 1.0  # factor of the learning rate; less than 1 for a phase that comes again

    def rate(self, done: int) -> float:
        first, last = RATES[self.name]
        return (
            self.speed
            * min(1.0, (done + 1) / WARM_UP)
            * (last + (first - last) * (1 + math.cos(math.pi * done / self.steps)) / 2)
        )


def read_phases(text: str) -> tuple[Phase, ...]:
    """ "field=900,render=4000@0.5" as phases; the number behind @ is a factor of the learning rate."""
    phases = []
    for part in text.split(","):
        found = re.fullmatch(rf"({'|'.join(LOSSES)})=([1-9][0-9]*)(?:@([0-9.]+))?", part)
        if not found:
            raise ConfigError(f"A phase is written field=900, render=4000@0.5 or superres=800, got {part!r}.")
        phases.append(Phase(found[1], int(found[2]), float(found[3] or 1)))
    return tuple(phases)


@dataclass
class State:
    """Where a run stands."""

    seed: int
    phases: tuple[Phase, ...]
    half: bool = False  # planes in bfloat16
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

    def begun(self) -> tuple[Phase, ...]:
        """The phases that are done or under way."""
        starts = [sum(p.steps for p in self.phases[:i]) for i in range(len(self.phases))]
        return tuple(phase for phase, start in zip(self.phases, starts) if start < self.step)

    @property
    def total(self) -> int:
        return sum(phase.steps for phase in self.phases)


class Training:
    """Weights, their running mean, the optimiser of the current phase, and where the run stands."""

    def __init__(self, state: State, architecture: TinyArchitecture | None = None):
        torch.manual_seed(state.seed)
        self.state = state
        self.renderer = TinyTriplane(architecture)
        self.mean = copy.deepcopy(self.renderer).requires_grad_(False)
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Adam:
        phase, _ = self.state.place()
        whole = {"field": ("mapping", "synthesis", "decoder"), "superres": ("superresolution", "decoder.second")}
        moving = whole["field" if phase.name != "superres" else "superres"]
        for name, parameter in self.renderer.named_parameters():
            parameter.requires_grad_(name.startswith(moving))
        mapping = [p for p in self.renderer.mapping.parameters() if p.requires_grad]
        others = [p for n, p in self.renderer.named_parameters() if p.requires_grad and not n.startswith("mapping.")]
        groups = [{"params": others, "speed": 1.0}, {"params": mapping, "speed": MAPPING_SPEED}]
        return torch.optim.Adam([g for g in groups if g["params"]], betas=(0.8, 0.99), fused=True)

    def step(self, data: dict[str, Photos]) -> dict[str, float]:
        """One step of the current phase."""
        phase, done = self.state.place()
        if done == 0:  # a phase begins from the mean of the last one, with a fresh optimiser
            self.renderer.load_state_dict(self.mean.state_dict())
            self.optimizer = self._optimizer()
        digest = hashlib.blake2b(f"{self.state.seed}|{self.state.step}".encode(), digest_size=4).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        loss, logged = LOSSES[phase.name](self.renderer, data[phase.name], generator, self.state.half)
        if not torch.isfinite(loss):
            raise DivergedError(f"The loss is not finite at step {self.state.step}; lower the learning rate.")
        self.optimizer.zero_grad()
        loss.backward()
        if phase.name == "superres":  # density and colours stay: only the rows of the features move
            for parameter in self.renderer.decoder.second.parameters():
                if parameter.grad is not None:
                    parameter.grad[:4] = 0
        for group in self.optimizer.param_groups:
            group["lr"] = group["speed"] * phase.rate(done)
        self.optimizer.step()
        self._average(done)
        self.state.step += 1
        return {"loss": loss.item(), **logged}

    def _average(self, done: int) -> None:
        keep = min(0.997, (1 + done) / (10 + done))
        with torch.no_grad():
            for mean, now in zip(self.mean.parameters(), self.renderer.parameters()):
                mean.lerp_(now, 1 - keep)

    def save(self, path: Path) -> None:
        """Everything that the next step reads, in one file."""
        tensors = {f"now.{k}": v for k, v in self.renderer.state_dict().items()}
        tensors |= {f"mean.{k}": v for k, v in self.mean.state_dict().items()}
        for name, parameter in self.renderer.named_parameters():
            moments = self.optimizer.state.get(parameter, {})
            tensors |= {f"adam.{name}.{k}": v for k, v in moments.items()}
        with written_aside(path) as aside:
            save_file({k: v.contiguous() for k, v in tensors.items()}, aside, {"state": json.dumps(asdict(self.state))})

    @classmethod
    def load(cls, path: Path, extend: tuple[Phase, ...] = (), architecture: TinyArchitecture | None = None) -> Training:
        """Go on from a file that `save` wrote; `extend` replaces the phases that have not begun."""
        with safe_open(path, "pt") as file:
            stored = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        state = State(phases=tuple(Phase(**p) for p in stored.pop("phases")), **stored)
        if extend:
            state.phases = (*state.begun(), *extend)
        training = cls(state, architecture)
        for prefix, module in (("now.", training.renderer), ("mean.", training.mean)):
            module.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
        if training.state.place()[1] == 0:
            return training  # a phase begins with a fresh optimiser
        for name, parameter in training.renderer.named_parameters():
            start = f"adam.{name}."
            if moments := {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}:
                training.optimizer.state[parameter] = moments
        return training


def provenance(training: Training, weights: Path, held_out: dict[str, float]) -> dict[str, object]:
    """How the weight file came about."""
    state = training.state
    return {
        "file": weights.name,
        "sha256": sha256(weights),
        "script": "python -m distill3d.tiny.train generator",
        "commit": source_commit() or "unknown",
        "seed": state.seed,
        "bfloat16": state.half,
        "phases": ",".join(f"{p.name}={p.steps}" + (f"@{p.speed}" if p.speed != 1 else "") for p in state.phases),
        "steps": state.step,
        "cpu_seconds": round(state.cpu_seconds),
        "parameters": sum(p.numel() for p in training.mean.parameters()),
        "held_out_psnr": held_out,
    }


def checkpoint(training: Training, out: Path, held: Photos, held_128: Photos | None) -> None:
    """Save, measure, draw."""
    training.save(out / "checkpoint.safetensors")
    save_tiny(training.mean, out / "generator.safetensors")
    measured = {"psnr64": held_out_psnr(training.mean, held)}
    write_sheet(training.mean, held, out / "sheet.png")
    if held_128 is not None:
        measured["psnr128"] = held_out_psnr(training.mean, held_128, len(held_128))
        write_sheet(training.mean, held_128, out / "sheet128.png")
    training.state.history.append({"step": training.state.step, **measured})
    print(f"  held out: {_line(measured)}; cpu {training.state.cpu_seconds:.0f} s", flush=True)


def _line(numbers: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def train(training: Training, work: Path, every: float) -> None:
    """Run to the end of the last phase.

    Args:
        work: holds data/; generator/ is written.
        every: CPU seconds between checkpoints.
    """
    out = work / "generator"
    out.mkdir(parents=True, exist_ok=True)
    learnt, held = Photos.read(work / "data" / "photo.safetensors").split(HELD_OUT)
    data, held_128 = {"field": learnt, "render": learnt}, None
    if any(phase.name == "superres" for phase in training.state.phases):
        data["superres"], held_128 = Photos.read(work / "data" / "photo128.safetensors").split(HELD_OUT_128)
    state, began, saved = training.state, time.process_time(), 0.0
    before = state.cpu_seconds
    while state.step < state.total:
        phase, done = state.place()
        logged = training.step(data)
        state.cpu_seconds = before + time.process_time() - began
        if done % 100 == 0:
            print(f"{phase.name} {done}/{phase.steps}: {_line(logged)}; cpu {state.cpu_seconds:.0f} s", flush=True)
        if state.cpu_seconds - before - saved > every or done + 1 == phase.steps:
            checkpoint(training, out, held, held_128 if phase.name == "superres" else None)
            saved = state.cpu_seconds - before
    measured = {"psnr64": held_out_psnr(training.mean, held, len(held), 3)}
    if held_128 is not None:
        measured["psnr128"] = held_out_psnr(training.mean, held_128, len(held_128))
    write_json(out / "provenance.json", provenance(training, out / "generator.safetensors", measured))
    print(f"done: {_line(measured)}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m distill3d.tiny.train generator", description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder with data/; generator/ is written there")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", default=DEFAULT_PHASES, help="phases of a new run (default: %(default)s)")
    parser.add_argument(
        "--extend", help="phases to follow the current one of a run that exists, instead of those that have not begun"
    )
    parser.add_argument("--full", action="store_true", help="planes in float32: faster on CPUs without AMX")
    parser.add_argument("--every", type=float, default=120.0, help="CPU seconds between checkpoints")
    parser.add_argument("--smoke", action="store_true", help="two steps of each phase, to see that it runs")
    parser.add_argument("--install", action="store_true", help="copy the generator into the package")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)  # several threads are slower on pictures this small
    torch.set_flush_denormal(True)  # solid heads hide samples so well that their gradients underflow: 2.5 times slower
    stored = args.work / "generator" / "checkpoint.safetensors"
    if stored.is_file():
        training = Training.load(stored, read_phases(args.extend) if args.extend else ())
        print(f"going on from step {training.state.step} of {training.state.total}")
    else:
        phases = read_phases(SMOKE_PHASES if args.smoke else args.steps)
        training = Training(State(args.seed, phases, half=not args.full))
    train(training, args.work, args.every)
    if args.install:
        install(args.work / "generator")


def install(source: Path, target: Path = WEIGHTS) -> None:
    """Replace the generator that ships with the package, and the note of how it came about, by those of `source`."""
    for name, place in (("generator.safetensors", target), ("provenance.json", target.with_suffix(".provenance.json"))):
        with written_aside(place) as aside:
            shutil.copyfile(source / name, aside)


if __name__ == "__main__":
    main()
