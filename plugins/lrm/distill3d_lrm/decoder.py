"""The network that reads planes: what a point's features become, by the literal recipe or folded into the planes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill3d.volume import mean_of_planes, sample_planes
from distill3d.volume.planes import Axes


def folded(first: nn.Linear, planes: Tensor) -> Tensor:
    """Planes (S, P, C, h, w) that hold what `first` makes of them, (S, P, outputs, h, w), without its bias.

    A linear layer commutes with linear interpolation: it need not be computed at every point. The features of P planes
    are concatenated plane by plane.
    """
    weight = first.weight.unflatten(1, planes.shape[1:3])  # (outputs, P, C)
    return torch.einsum("opc,spchw->spohw", weight, planes)


def decode_folded(network: nn.Sequential, planes: Tensor, points: Tensor, axes: Axes, box_side: float) -> Tensor:
    """`network` of the features at points (S, N, 3), whose first layer is in the `folded` planes: (S, N, outputs)."""
    first = network[0]
    assert isinstance(first, nn.Linear)
    hidden = mean_of_planes(planes, points, axes, box_side) * len(axes) + first.bias
    return network[1:](hidden)


def decode(network: nn.Sequential, planes: Tensor, points: Tensor, axes: Axes, box_side: float) -> Tensor:
    """The same as published: look up every plane, concatenate, apply the network; planes as the model made them."""
    features = sample_planes(planes, points, axes, box_side)  # (S, P, C, N)
    return network(features.flatten(1, 2).transpose(1, 2))
