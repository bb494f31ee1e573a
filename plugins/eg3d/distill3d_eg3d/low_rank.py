"""Low-rank changes of a generator's convolutions: put in, and made weights again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from distill3d.errors import WeightsError
from distill3d_eg3d.layers import LowRank, SynthesisLayer

RANK = 8
MARK = ".low_rank."  # in the names of what is added


def add_low_rank(generator: nn.Module, networks: tuple[str, ...]) -> None:
    """Changes at every 3x3 convolution of these networks, nothing at first; a second call does nothing."""
    for name, layer in generator.named_modules():
        if isinstance(layer, SynthesisLayer) and name.startswith(networks) and layer.low_rank is None:
            layer.low_rank = LowRank(layer.weight.shape, RANK, name, layer.weight)


@torch.no_grad()
def folded(weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """See `Folding.folded`: each pair of factors as the weight that a layer makes with it, bit for bit.

    Args:
        weights: of the generator, by name; whether changes were put in does not matter.
    Raises:
        WeightsError: if a factor is alone, or does not fit its weight.
    """
    found = {name: value for name, value in tensors.items() if MARK not in name}
    for layer in dict.fromkeys(name.partition(MARK)[0] for name in tensors if MARK in name):
        name, up, down = (f"{layer}{end}" for end in (".weight", f"{MARK}up", f"{MARK}down"))
        if name not in weights or up not in tensors or down not in tensors:
            raise WeightsError(f"The low-rank change of {layer} is not whole, or this generator has no such layer.")
        whole, tall, wide = weights[name], tensors[up], tensors[down]
        rank = len(wide) if wide.ndim else 0
        if tall.shape != (len(whole), rank) or wide.shape != (rank, whole[0].numel()):
            raise WeightsError(f"The low-rank change of {layer} does not fit {name}, which is {tuple(whole.shape)}.")
        found[name] = whole + (tall.to(whole) @ wide.to(whole)).view(whole.shape)
    return found
