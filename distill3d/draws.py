"""Random numbers without a random state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers as a function of (seed, step, subject, name).

    No state exists, so a resumed run and a run on several devices draw what the uninterrupted one draws. Numbers are
    made on the CPU, with one generator for each subject and name, and moved by the caller: they are the same on every
    device, for every split of the subjects over processes, and for every order of calls.
    """

    seed: int
    step: int
    subjects: tuple[int, ...]  # places in the global batch
    scope: str = ""

    def scoped(self, name: str) -> Draws:
        """The same draws under a longer name, so that two users of "noise" do not see the same numbers."""
        return replace(self, scope=f"{self.scope}{name}/")

    def generator(self, name: str, subject: int) -> torch.Generator:
        key = f"{self.seed}|{self.step}|{subject}|{self.scope}{name}".encode()
        digest = hashlib.blake2b(key, digest_size=4).digest()  # torch's CPU generator reads 32 bits of a seed, no more
        return torch.Generator().manual_seed(int.from_bytes(digest, "little"))

    def each(self, name: str, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
        """(S, ...): `draw` called with each subject's own generator."""
        return torch.stack([draw(self.generator(name, subject)) for subject in self.subjects])

    def normal(self, name: str, *shape: int) -> Tensor:
        """(S, *shape), float32."""
        return self.each(name, lambda g: torch.randn(shape, generator=g))

    def uniform(self, name: str, *shape: int) -> Tensor:
        """(S, *shape) in [0, 1), float32."""
        return self.each(name, lambda g: torch.rand(shape, generator=g))

    def integers(self, name: str, high: int) -> Tensor:
        """(S,) in [0, high), int64."""
        return self.each(name, lambda g: torch.randint(high, (), generator=g))
