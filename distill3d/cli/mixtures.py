"""Styles and how much of each, as the command line writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill3d.errors import ConfigError

if TYPE_CHECKING:
    from distill3d.blending import Amount

STRONGEST = 1.5


def mixture(
    run: str | None, packs: Sequence[str], strength: float = 1.0, geometry: float = 1.0, texture: float = 1.0
) -> dict[str, Amount]:
    """Amounts by model: of one run, or of the packs that --pack names.

    Args:
        packs: as "zombie:0.6"; without a number, 1.
        strength: a factor of all of them.
        geometry, texture: factors of their parts.
    Raises:
        ConfigError: for no style at all, two ways of naming one, or an amount that is none.
    """
    if (run is None) == (not packs):
        raise ConfigError("Say which style: either RUN, or --pack NAME:AMOUNT once or more.")
    whole = {run: 1.0} if run is not None else dict(_name_and_amount(text) for text in packs)
    if packs and len(whole) < len(packs):
        raise ConfigError(f"A style is named twice: --pack {' --pack '.join(packs)}.")
    amounts = {name: strength * amount for name, amount in whole.items()}
    if geometry == texture == 1:
        return dict(amounts)
    return {name: {"geometry": geometry * a, "texture": texture * a} for name, a in amounts.items()}


def _name_and_amount(text: str) -> tuple[str, float]:
    name, colon, number = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        amount = float(number)
    except ValueError:
        return text, 1.0  # a colon of the name, as of a drive
    if not 0 <= amount <= STRONGEST or not name:
        raise ConfigError(f"--pack takes NAME:AMOUNT with an amount from 0 to {STRONGEST}, got {text!r}.")
    return name, amount
