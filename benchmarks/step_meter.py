"""Counts what a training step computes, by part, without computing it: every tensor is on the meta device.

The step is the real one: `Trainer.step` or the schedule of released_step.py, with networks whose weights have shapes
and no values. Three things make that possible.

`Unseen` answers whoever asks for a value (a figure for the log, a picture for OpenCV's edges, a timestep's place in a
table) with zero. What is computed does not depend on such answers, only on shapes.

`Meter` adds up floating-point operations by torch's own formulas (`torch.utils.flop_counter.flop_registry`: products
of matrices and convolutions, twice the multiplications), as `FlopCounterMode` does. It tells parts apart itself, also
in a backward and where autograd computes something again: `FlopCounterMode` cannot where a frozen network is given
what requires grad. An operation of a backward belongs to the part in whose forward its node was made, which the
node's sequence number says.

`plain` makes attention a product of matrices in every network, so that all of it is counted in one way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

OTHER = "other"


@dataclass
class Tally:
    """What one part did. A call may hold several pictures (UNet: branches)."""

    forward_flop: int = 0
    backward_flop: int = 0
    calls: int = 0
    backward_calls: int = 0
    pictures: int = 0
    backward_pictures: int = 0

    @property
    def tflop(self) -> float:
        return (self.forward_flop + self.backward_flop) / 1e12


class Unseen(TorchFunctionMode):
    """On the meta device every value is zero."""

    VALUES = (Tensor.item, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__bool__, Tensor.tolist)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = args[0] if args else None
        if isinstance(first, Tensor) and first.is_meta:
            if func in self.VALUES:
                return func(torch.zeros(first.shape, dtype=first.dtype))
            if func is Tensor.cpu or (func is Tensor.to and _names_cpu(*args[1:], *(kwargs or {}).values())):
                return torch.zeros(first.shape, dtype=first.dtype)
        return func(*args, **(kwargs or {}))


def _names_cpu(*wanted: Any) -> bool:
    places = [w.device if isinstance(w, Tensor) else w for w in wanted]
    return "cpu" in (str(place) for place in places)


@dataclass
class Meter(TorchDispatchMode):
    """Floating-point operations and calls of each part while it is entered."""

    parts: dict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))

    def __post_init__(self) -> None:
        super().__init__()
        self._inside = [OTHER]
        self._starts, self._owners = [0], [OTHER]  # from which sequence number on autograd's nodes are whose

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self._add(formula(*args, **(kwargs or {}), out_val=result))
        return result

    def _add(self, flop: int) -> None:
        node = torch._C._current_autograd_node()
        if node is not None and len(self._inside) == 1:
            self.parts[self._owner(node)].backward_flop += flop
        else:  # also what a backward computes again
            self.parts[self._inside[-1]].forward_flop += flop

    def _owner(self, node: Any) -> str:
        return self._owners[bisect_right(self._starts, node._sequence_nr()) - 1]

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is computed inside is this part's."""
        self._inside.append(name)
        self._mark()
        try:
            yield
        finally:
            self._inside.pop()
            self._mark()

    def _mark(self) -> None:
        self._starts.append(torch.autograd._get_sequence_nr())
        self._owners.append(self._inside[-1])

    def watch(self, owner: Any, method: str, name: str, pictures: Callable[..., int]) -> None:
        """Count the calls of a method as a part; `pictures` says from their arguments how many each holds."""
        function = getattr(owner, method)

        def counted(*args: Any, **options: Any) -> Any:
            held = pictures(*args, **options)
            with self.part(name):
                result = function(*args, **options)
            tally = self.parts[name]
            tally.calls, tally.pictures = tally.calls + 1, tally.pictures + held
            ends = [t for t in tensors_of(result) if t.requires_grad]
            if ends:
                register_multi_grad_hook(ends, lambda _: self._went_back(name, held), mode="any")
            return result

        setattr(owner, method, counted)

    def _went_back(self, name: str, pictures: int) -> None:
        tally = self.parts[name]
        tally.backward_calls, tally.backward_pictures = tally.backward_calls + 1, tally.backward_pictures + pictures


def tensors_of(value: Any) -> list[Tensor]:
    """All tensors in what a network returned."""
    if isinstance(value, Tensor):
        return [value]
    if hasattr(value, "tensors"):  # a Render
        value = value.tensors()
    if isinstance(value, dict):  # an output of diffusers or transformers too
        value = list(value.values())
    return [t for v in value for t in tensors_of(v)] if isinstance(value, (list, tuple)) else []


def plain(*networks: nn.Module) -> None:
    """Attention as products of matrices."""
    for network in networks:
        for module in network.modules():
            if hasattr(module, "set_attn_processor") and hasattr(module, "attn_processors"):
                module.set_attn_processor(AttnProcessor())
            elif hasattr(module, "set_attn_implementation"):
                module.set_attn_implementation("eager")
