"""Styles and how much of each, as the command line writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distill3d.errors import ConfigError
from distill3d.styles import STRONGEST

if TYPE_CHECKING:
    from distill3d.blending import Amount


def mixture(
    run: str | None, packs: Sequence[str], strength: float = 1.0, geometry: float = 1.0, texture: float = 1.0
) -> dict[str, Amount]:
    """Amounts by model: of one run, or of the packs that --pack names.

    Args:
        packs: as "zombie:0.6"; without a number, 1.
        strength: a factor of all of them.
        geometry, texture: factors of their parts.
    Raises:
        ConfigError: for no style at all, two ways of naming one, or an amount that is none, or too much of one.
    """
    if (run is None) == (not packs):
        raise ConfigError("Say which style: either RUN, or --pack NAME:AMOUNT once or more.")
    whole = {run: 1.0} if run is not None else dict(_name_and_amount(text) for text in packs)
    if packs and len(whole) < len(packs):
        raise ConfigError(f"A style is named twice: --pack {' --pack '.join(packs)}.")
    factor = strength * max(geometry, texture)
    for name, amount in whole.items():
        if round(factor * amount, 6) > STRONGEST:  # 1.5 itself, however its factors were rounded
            raise ConfigError(
                f"That is {factor * amount:.3g} of {name}: --strength, --geometry and --texture are factors of an "
                f"amount, and together they make at most {STRONGEST}."
            )
    from distill3d.blending import times_parts

    return {name: times_parts(strength * amount, geometry, texture) for name, amount in whole.items()}


def _name_and_amount(text: str) -> tuple[str, float]:
    name, colon, number = text.rpartition(":")
    if not colon:
        return text, 1.0
    try:
        amount = float(number)
    except ValueError:
        if number.startswith(("\\", "/")):  # the colon of a drive
            return text, 1.0
        amount = -1.0
    if not 0 <= amount <= STRONGEST or not name:
        raise ConfigError(f"--pack takes NAME:AMOUNT with an amount from 0 to {STRONGEST}, got {text!r}.")
    return name, amount
