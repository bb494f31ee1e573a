"""One training loop for all four networks: seeded, resumable bit for bit, with an average of the weights."""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from distill3d.draws import Draws
from distill3d.errors import DivergedError
from distill3d.files import sha256, written_aside
from distill3d.provenance import source_commit
from distill3d.tiny.train.diffusion.optimizer import Optimizer

CHECKPOINT_SECONDS = 120.0  # of CPU time
SMOKE_STEPS, SMOKE_BATCH = 2, 4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained. The learning rate warms up, stays, and falls over the last part of each phase."""

    steps: int
    lr: float  # Muon's; orthogonal steps are of length 1, so rates are about ten times Adam's
    batch: int
    adam_share: float = 0.1  # Adam's rate divided by Muon's
    ema: float = 0.999
    warmup: int = 50
    decay_share: float = 0.4  # of a phase's steps
    last_lr: float = 0.02  # of `lr`
    seed: int = 0

    def rate(self, step: int, phases: list[int]) -> float:
        """The learning rate of `step`; each of `phases` (step counts) starts warm again at `lr`."""
        for length in phases[:-1]:
            if step < length:
                break
            step -= length
        else:
            length = phases[-1]
        fall = max(0.0, (step / length - (1 - self.decay_share)) / self.decay_share)
        return self.lr * min(1.0, (step + 1) / self.warmup) * (self.last_lr + (1 - self.last_lr) * (1 - min(fall, 1.0)))


@dataclass
class Progress:
    """What a checkpoint remembers besides tensors."""

    phases: list[int]
    step: int = 0
    cpu_seconds: float = 0.0
    losses: list[tuple[int, float]] = field(default_factory=list)  # step, mean since the last entry
    commit: str | None = None  # of the scripts, when the training began

    @property
    def total(self) -> int:
        return sum(self.phases)


class Training:
    """A network, its average, its optimiser, and the file that holds them."""

    def __init__(self, name: str, net: nn.Module, recipe: Recipe, folder: Path, extend: int = 0):
        """Start, or go on from `folder`/NAME.checkpoint.safetensors if it is there.

        Args:
            extend: steps of one more phase, begun only when all earlier phases are done; a phase under way goes on.
        """
        self.name, self.net, self.recipe = name, net, recipe
        self.path = folder / f"{name}.checkpoint.safetensors"
        self.average = copy.deepcopy(net).requires_grad_(False).eval()
        self.optimizer = Optimizer(net)
        self.progress = self._load(extend) if self.path.is_file() else Progress([recipe.steps], commit=source_commit())

    def run(
        self,
        loss: Callable[[int, torch.Generator], Tensor],
        save: Callable[[nn.Module], None],
        until: int | None = None,
    ) -> None:
        """Train to the last phase's end, or to step `until`; `save` gets the averaged network at each checkpoint.

        Args:
            loss: of a step, from the step's own random numbers.
        Raises:
            DivergedError: if a loss is not finite.
        """
        progress, start, window = self.progress, time.process_time(), []
        spent, saved = progress.cpu_seconds, time.process_time()
        last = progress.total if until is None else min(until, progress.total)
        while progress.step < last:
            window.append(self._step(loss))
            progress.step += 1
            progress.cpu_seconds = spent + time.process_time() - start
            if progress.step % 50 == 0 or progress.step == last:
                progress.losses.append((progress.step, round(sum(window) / len(window), 5)))
                self._report()
                window = []
            if time.process_time() - saved > CHECKPOINT_SECONDS:
                self._save(save)
                saved = time.process_time()
        self._save(save)

    def _step(self, loss: Callable[[int, torch.Generator], Tensor]) -> float:
        step, recipe = self.progress.step, self.recipe
        rate = recipe.rate(step, self.progress.phases)
        value = loss(step, Draws(recipe.seed, step, (0,), self.name).generator("step", 0))
        if not math.isfinite(value.item()):
            raise DivergedError(f"The loss of {self.name!r} is {value.item()} at step {step}; lower its learning rate.")
        self.net.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step(rate, rate * recipe.adam_share)
        share = 1 - min(recipe.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for average, new in zip(self.average.parameters(), self.net.parameters()):
                average.lerp_(new, share)
        return value.item()

    def _report(self) -> None:
        progress = self.progress
        step, loss = progress.losses[-1]
        pace = progress.cpu_seconds / progress.step
        clock = time.strftime("%H:%M:%S")
        print(
            f"{clock} {self.name} {step}/{progress.total} loss {loss:.4f} "
            f"lr {self.recipe.rate(step - 1, progress.phases):.2e} cpu {progress.cpu_seconds:.0f} s, {pace:.3f} a step",
            flush=True,
        )

    def _save(self, save: Callable[[nn.Module], None]) -> None:
        tensors = {f"net/{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self.average.state_dict().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in self.optimizer.state().items()}
        # The progress travels in the same file's header: one rename, so tensors and step count cannot disagree.
        with written_aside(self.path) as aside:
            save_file(
                {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()},
                aside,
                metadata={"progress": json.dumps(vars(self.progress))},
            )
        save(self.average)

    def _load(self, extend: int) -> Progress:
        with safe_open(self.path, framework="pt") as file:
            progress = Progress(**json.loads(file.metadata()["progress"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.net.load_state_dict(_under(tensors, "net"))
        self.average.load_state_dict(_under(tensors, "average"))
        self.optimizer.load(_under(tensors, "optimizer"))
        if extend and progress.step >= progress.total:
            progress.phases.append(extend)
        elif not extend and len(progress.phases) == 1:
            progress.phases = [self.recipe.steps]  # a budget may be changed under way
        return progress


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.split("/", 1)[1]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")}


def load_progress(path: Path) -> Progress:
    """The progress that a checkpoint holds, without its tensors."""
    with safe_open(path, framework="pt") as file:
        return Progress(**json.loads(file.metadata()["progress"]))


def add_recipe_options(parser: argparse.ArgumentParser, recipes: Mapping[str, Recipe], seed: int) -> None:
    """`--seed`, `--smoke`, and the steps of each network."""
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--smoke", action="store_true", help="two steps of everything, to see that it runs")
    for name, recipe in recipes.items():
        parser.add_argument(f"--{name}-steps", type=int, default=recipe.steps, help="default %(default)s")


def chosen_recipes(recipes: Mapping[str, Recipe], given: argparse.Namespace) -> dict[str, Recipe]:
    """The recipes with what `add_recipe_options` was told."""
    return {
        name: replace(recipe, steps=SMOKE_STEPS, batch=SMOKE_BATCH, seed=given.seed)
        if given.smoke
        else replace(recipe, steps=getattr(given, f"{name}_steps"), seed=given.seed)
        for name, recipe in recipes.items()
    }


def network_note(progress: Progress, weights: Path) -> dict[str, object]:
    """What a provenance file says of a network: steps, CPU time, last loss, and its file's hash."""
    return {
        "steps": progress.phases,
        "steps_done": progress.step,
        "cpu_seconds": round(progress.cpu_seconds),
        "last_loss": progress.losses[-1][1] if progress.losses else None,
        "sha256": sha256(weights),
    }
