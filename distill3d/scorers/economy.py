"""Time for memory: networks that wait in main memory, activations that are computed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(blocks: Iterable[nn.Module]) -> Iterator[None]:
    """What these compute inside keeps only its inputs, and is computed again in the backward, block by block."""
    blocks = list(blocks)
    for block in blocks:
        again = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn
        block.forward = again
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # its class's again


class Offload:
    """Of some frozen networks the one in use is on the device; the weights of the others wait in main memory.

    They are copied there once, and never written back.

    Args:
        networks: by name, all on `device`; they are sent away at once.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device):
        self.device = device
        self.here: str | None = None
        self.weights = {
            name: [(weight, self._waiting(weight)) for weight in [*network.parameters(), *network.buffers()]]
            for name, network in networks.items()
        }
        for name in self.weights:
            self._send_away(name)

    @staticmethod
    def helps(device: torch.device) -> bool:
        """Whether the device has a memory of its own."""
        return device.type not in ("cpu", "meta")

    def bring(self, name: str) -> None:
        """Have this network on the device, and no other."""
        if name == self.here:
            return
        if self.here is not None:
            self._send_away(self.here)
        self._fetch(name)
        self.here = name

    def bring_before_backward(self, result: Tensor, name: str) -> None:
        """Have this network on the device again when a gradient arrives at what it made.

        Autograd keeps the weights themselves, not their numbers, so a graph outlives a network that is away.
        """
        if result.requires_grad:
            result.register_hook(lambda gradient: self.bring(name))

    def end(self) -> None:
        """Everything on the device, for good."""
        for name in self.weights:
            if name != self.here:
                self._fetch(name)
        self.weights = {}

    def _waiting(self, weight: Tensor) -> Tensor:
        """A copy in main memory, locked there for a GPU, which reads it several times faster."""
        copy = weight.detach().to("cpu")
        return copy.pin_memory() if self.device.type == "cuda" else copy

    def _send_away(self, name: str) -> None:
        for weight, waiting in self.weights[name]:
            weight.data = waiting

    def _fetch(self, name: str) -> None:
        for weight, waiting in self.weights[name]:
            weight.data = waiting.to(self.device, non_blocking=True)
