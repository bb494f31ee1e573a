"""CPU seconds and memory of the released schedule and of our methods' steps, one thread."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from released_step import ReleasedStep
from step_count import STYLE, make_trainer, scorer_of
from step_models import make_scorer
from torch import Tensor, nn

from distill3d.draws import Draws
from distill3d.renderer import Scene
from distill3d.training.trainer import Trainer

Gradients = dict[str, Tensor]


@dataclass
class Measured:
    """The best of several runs of one method's gradients."""

    seconds: float = float("inf")
    gib: float = 0.0


def peak_gib() -> float:
    """The largest resident size since `forget_peak`, of the whole process."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 2**20  # type: ignore[index]


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Second:
    """A trainer's second step, as often as one likes: the first knows no step before it.

    Args:
        wasted: a network that the released script leaves with requires_grad on, though it does not train it.
    """

    def __init__(self, trainer: Trainer, wasted: nn.Module | None = None):
        self.trainer, self.wasted = trainer, wasted
        trainer.step()
        self.previous: tuple[Scene, Scene] | None = trainer.previous

    def ours(self) -> Gradients:
        self.trainer.gradients()
        self.trainer.previous = self.previous
        return self._taken()

    def released(self) -> Gradients:
        """The released schedule at the same draws and weights."""
        trainer = self.trainer
        step = ReleasedStep(trainer.renderer, trainer.reference, scorer_of(trainer), STYLE.prompt)
        with wanting_gradients(self.wasted):
            step.gradients(Draws(trainer.seed, trainer.step_number, (0,)), self.previous)
        return self._taken()

    def _taken(self) -> Gradients:
        found = {name: p.grad for name, p in self.trainer.trained.items() if p.grad is not None}
        self.trainer.optimizer.zero_grad(set_to_none=True)
        return found


@contextmanager
def wanting_gradients(network: nn.Module | None) -> Iterator[None]:
    if network is not None:
        network.requires_grad_(True)
    yield
    if network is not None:
        network.requires_grad_(False).zero_grad(set_to_none=True)


def relative_difference(one: Gradients, other: Gradients) -> float:
    """Relative L2 over all trained tensors together; one that the other lacks counts in full."""
    names = one.keys() | other.keys()

    def of(gradients: Gradients, name: str) -> Tensor:
        like = one.get(name, other.get(name))
        assert like is not None
        return gradients.get(name, torch.zeros_like(like)).double()

    apart = sum(float((of(one, n) - of(other, n)).square().sum()) for n in names)
    return (apart / sum(float(of(other, n).square().sum()) for n in names)) ** 0.5


def measure_reduced(repeats: int) -> tuple[dict[str, Measured], float]:
    """Seconds and peak of each, and how far the gradient of `ld-released` is from the released schedule's."""
    scorer = make_scorer("reduced")
    trainers = [make_trainer(name, "reduced", "cpu", scorer) for name in ("ld-released", "ld")]
    released, ld = (Second(t, t.renderer.generator.decoder) for t in trainers)  # type: ignore[attr-defined]
    works: dict[str, Callable[[], Gradients]] = {
        "released": released.released,
        "ld-released": released.ours,
        "ld": ld.ours,
    }
    measured = {name: Measured() for name in works}
    gradients: dict[str, Gradients] = {}
    for _ in range(repeats):
        for name, work in works.items():
            forget_peak()
            started = time.process_time()
            gradients[name] = work()
            best = measured[name]
            best.seconds = min(best.seconds, time.process_time() - started)
            best.gib = max(best.gib, peak_gib())
    return measured, relative_difference(gradients["ld-released"], gradients["released"])
