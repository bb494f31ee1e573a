"""Networks that wait on the host, played through: which one is on the device is counted, nothing is copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from distill3d.scorer import Economical, Scorer


class PlayedOffload:
    """Stands in for `scorers.economy.Offload`, whose copies in main memory a rehearsal must not make.

    Args:
        networks: by name, all on the device; they are sent away at once.
        count: told by how many bytes the device's memory changes.
    """

    def __init__(self, networks: dict[str, nn.Module], device: torch.device, count: Callable[[int], None]):
        self.device, self.count = device, count
        self.here: str | None = None
        self.sizes = {
            name: sum(t.nbytes for t in [*network.parameters(), *network.buffers()])
            for name, network in networks.items()
        }
        self.count(-sum(self.sizes.values()))

    def bring(self, name: str) -> None:
        """See `Offload.bring`: the one that is there goes before the other comes."""
        if name != self.here:
            self.count(self.sizes[name] - (self.sizes[self.here] if self.here else 0))
            self.here = name

    def bring_before_backward(self, result: Tensor, name: str) -> None:
        """See `Offload.bring_before_backward`."""
        if result.requires_grad:
            result.register_hook(lambda gradient: self.bring(name))


def play_offload(scorer: Scorer, count: Callable[[int], None]) -> int:
    """Let a copy of a scorer that was told to offload do so; return the bytes that were on the device before."""
    if not isinstance(scorer, Economical) or not scorer.economy.offload or not hasattr(scorer, "_offload"):
        return 0
    parts = {name: part for name, part in scorer.named_children() if not isinstance(part, nn.ModuleDict)}
    for name, group in scorer.named_children():
        if isinstance(group, nn.ModuleDict):
            parts |= {f"{name}.{key}": part for key, part in group.items()}
    device = next(scorer.parameters()).device
    scorer.economise(replace(scorer.economy, offload=False))  # if the real one is at work, it ends
    played = PlayedOffload(parts, device, count)
    scorer._offload = played  # type: ignore[assignment]
    return sum(played.sizes.values())
