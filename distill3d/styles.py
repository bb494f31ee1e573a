"""What a style is, and the catalogue."""

from __future__ import annotations

from dataclasses import dataclass

STRONGEST = 1.5  # how much of a style commands and pages give at most; in Python there is no limit
FRONT_RANGE = 60.0  # degrees of yaw within which a face is in sight and no view word is needed


@dataclass(frozen=True)
class Style:
    """A look, as words for the diffusion model."""

    name: str
    prompt: str
    negative_prompt: str = ""


# "Portrait of a werewolf" is the released script's prompt; the others follow its form.
CATALOGUE = {
    style.name: style
    for style in (
        Style("joker", "Portrait of the Joker"),
        Style("pixar", "Portrait of a person in Pixar style"),
        Style("sketch", "Pencil sketch portrait"),
        Style("statue", "Portrait of a marble statue"),
        Style("werewolf", "Portrait of a werewolf"),
        Style("zombie", "Portrait of a zombie"),
    )
}


def view_word(yaw: float) -> str:
    """The side of the head that a camera at `yaw` degrees sees: "front", "side" or "back"."""
    turned = abs((yaw + 180) % 360 - 180)
    return "front" if turned <= 45 else "side" if turned <= 135 else "back"


def with_view_words(prompt: str, yaw: float, yaw_range: float) -> str:
    """The prompt for one view: unchanged while all cameras see the face, else "side view of ..." (Poole et al. 2022).

    Args:
        yaw: of this view, degrees.
        yaw_range: +- degrees that the views are drawn from.
    """
    if yaw_range <= FRONT_RANGE or not prompt:
        return prompt
    return f"{view_word(yaw)} view of {prompt}"
