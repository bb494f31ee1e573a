"""The network that reads planes: from a point's features to density and colour."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill3d.errors import ShapeError
from distill3d.volume import sample_planes
from distill3d.volume.planes import Axes, Lookup


def decode(network: nn.Sequential, planes: Tensor, points: Tensor, axes: Axes, box_side: float) -> Tensor:
    """What `network` makes of the planes' features, concatenated plane by plane, at points (S, N, 3): (S, N, outputs).

    Channels come first on the way, as the look-up leaves them: a layer is a product of a small matrix with long rows,
    and nothing is copied.
    """
    if points.ndim != 3 or len(points) != len(planes):
        raise ShapeError(f"Points of {len(planes)} subjects are (S, N, 3), got {tuple(points.shape)}.")
    features = sample_planes(planes, points, axes, box_side, lookup=lookup_of(planes)).flatten(1, 2)  # (S, P * C, N)
    # One by one: mm is several times faster backwards than bmm with an expanded weight.
    return torch.cat([_applied(network, one).T[None] for one in features])


def lookup_of(planes: Tensor) -> Lookup:
    """The slower look-up where torch was told to repeat every bit: on CUDA the other one cannot go backwards then."""
    return "deterministic" if planes.is_cuda and torch.are_deterministic_algorithms_enabled() else "fast"


def _applied(network: nn.Sequential, x: Tensor) -> Tensor:
    """(inputs, N) to (outputs, N)."""
    for layer in network:
        x = torch.mm(layer.weight, x).add_(layer.bias[:, None]) if isinstance(layer, nn.Linear) else layer(x)
    return x


def decode_literally(network: nn.Sequential, planes: Tensor, points: Tensor, axes: Axes, box_side: float) -> Tensor:
    """The same as published: features last."""
    features = sample_planes(planes, points, axes, box_side)  # (S, P, C, N)
    return network(features.flatten(1, 2).transpose(1, 2))
