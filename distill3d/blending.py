"""Styles mixed like paint: theta = theta_0 + sum_i a_i (theta_i - theta_0).

Task arithmetic (Ilharco et al., ICLR 2023, arXiv:2212.04089); one style at a strength is its case of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import get_args

import torch
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.renderer import Parted, Renderer, StylePart

PARTS: tuple[StylePart, ...] = get_args(StylePart)
Amount = float | Mapping[str, float]  # of a style; or of its parts, those that are not named are left out
LARGEST = 100  # amount either way: far beyond, pictures are no numbers any more
AmountOf = Callable[[str], float]  # by the name of a parameter


def mix(original: Mapping[str, Tensor], styles: Sequence[tuple[Mapping[str, Tensor], AmountOf]]) -> dict[str, Tensor]:
    """Every tensor that any style changed, mixed.

    A tensor to which one style alone adds is interpolated by `torch.lerp`: at 0 and at 1 it is bit for bit the
    original's, and the style's.

    Args:
        original: by name.
        styles: each with its own tensors, and how much of each of them.
    """
    names = dict.fromkeys(name for tensors, _ in styles for name in tensors)
    return {name: _mixed(original[name], _added(name, styles)) for name in names}


def _added(name: str, styles: Sequence[tuple[Mapping[str, Tensor], AmountOf]]) -> list[tuple[float, Tensor]]:
    """What adds to this tensor, and how much of it."""
    found = [(amount_of(name), tensors[name]) for tensors, amount_of in styles if name in tensors]
    return [(amount, tensor) for amount, tensor in found if amount]


def _mixed(original: Tensor, added: Sequence[tuple[float, Tensor]]) -> Tensor:
    ends = [(amount, end.to(original)) for amount, end in added]
    if len(ends) == 1:
        return torch.lerp(original, ends[0][1], ends[0][0])
    return original + sum(amount * (end - original) for amount, end in ends)


def check_amount(name: str, amount: Amount) -> None:
    """Refuse what is no amount of a style.

    Raises:
        ConfigError: for what is no number, one far beyond all that was trained, or a part that there is not.
    """
    numbers = amount if isinstance(amount, Mapping) else {"": amount}
    for part, number in numbers.items():
        if part and part not in PARTS:
            raise ConfigError(f"A style has the parts {' and '.join(PARTS)}, got {part!r} for {name!r}.")
        if isinstance(number, bool) or not isinstance(number, Real) or not -LARGEST <= number <= LARGEST:
            raise ConfigError(
                f"The amount of {name!r} must be a number from {-LARGEST} to {LARGEST}, as 0.6, got {number!r:.60}."
            )


def times_parts(amount: float, geometry: float, texture: float) -> Amount:
    """An amount with a factor for each part; a plain number where both are 1, which every backbone takes."""
    return amount if geometry == texture == 1 else {"geometry": geometry * amount, "texture": texture * amount}


def amount_by_name(amount: Amount, renderer: Renderer) -> AmountOf:
    """How much of each parameter.

    Raises:
        ConfigError: for amounts of parts, if the backbone does not tell them apart.
    """
    if not isinstance(amount, Mapping):
        return lambda name: float(amount)
    if not isinstance(renderer, Parted):
        raise ConfigError(
            f"{type(renderer).__name__} does not tell geometry from texture; give one amount for the whole style."
        )
    return lambda name: float(amount.get(renderer.part_of(name), 0.0))
