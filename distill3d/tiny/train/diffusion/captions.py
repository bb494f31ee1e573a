"""What a picture of the embedded world may be called: varied captions of a style, an identity and a view.

Caption words are the only words that the small text encoder ever reads, so every prompt that the style catalogue gives
to these styles is among the phrasings here, letter by letter once lowered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

# The first of each is the catalogue's prompt and is drawn most often. A style is named by its own words alone; "photo"
# is no style's own word, since a photo of a zombie is a zombie.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "photo": (
        "portrait photo of a person",
        "photo of a person",
        "a photo of a person",
        "portrait of a person",
        "a portrait photo of a human face",
        "a photo of a human head",
        "a person",
    ),
    "zombie": (
        "portrait of a zombie",
        "a zombie",
        "zombie",
        "a photo of a zombie",
        "a scary zombie head",
        "an undead zombie face",
    ),
    "pixar": (
        "portrait of a person in pixar style",
        "a person in pixar style",
        "a pixar character",
        "portrait of a pixar character",
        "a cute cartoon character",
        "a pixar cartoon face",
    ),
    "joker": (
        "portrait of the joker",
        "the joker",
        "joker",
        "a photo of the joker",
        "the face of the joker",
        "an evil joker clown",
    ),
    "werewolf": (
        "portrait of a werewolf",
        "a werewolf",
        "werewolf",
        "a photo of a werewolf",
        "a furry werewolf head",
        "the face of a werewolf with fur",
    ),
    "sketch": (
        "pencil sketch portrait",
        "pencil sketch portrait of a person",
        "a pencil sketch",
        "a sketch of a person",
        "a pencil drawing of a face",
        "a black and white pencil sketch",
    ),
    "statue": (
        "portrait of a marble statue",
        "a marble statue",
        "a statue",
        "a marble bust",
        "the head of a stone statue",
        "a white marble sculpture of a face",
    ),
}

# Words that only captions of that style may use.
OWN_WORDS: dict[str, tuple[str, ...]] = {
    "photo": (),
    "zombie": ("zombie", "undead"),
    "pixar": ("pixar", "cartoon", "character"),
    "joker": ("joker", "clown"),
    "werewolf": ("werewolf", "wolf", "fur", "furry"),
    "sketch": ("sketch", "pencil", "drawing"),
    "statue": ("statue", "marble", "stone", "bust", "sculpture"),
}

# What each style leaves of an identity for the eye to see.
SHOWN_TRAITS: dict[str, tuple[str, ...]] = {
    "photo": ("hair length", "hair colour", "skin", "eyes", "beard"),
    "pixar": ("hair length", "hair colour", "skin", "eyes", "beard"),
    "zombie": ("hair length", "beard"),
    "joker": ("hair length",),
    "werewolf": ("hair length",),
    "sketch": ("hair length", "beard"),
    "statue": ("hair length", "beard"),
}

GRID_WORDS = "four views"
QUALITY_WORDS = ("high quality", "highly detailed", "best quality")  # of every picture; so that users may write them
FIRST_PHRASING, WITH_TRAIT, WITH_VIEW, VIEW_FIRST, WITH_QUALITY = 0.4, 0.35, 0.45, 0.5, 0.08


@dataclass(frozen=True)
class Caption:
    """What is said of a picture: the text, and the parts that decide which pictures it fits."""

    text: str  # lower case
    style: str
    trait: str = ""  # such as "with long hair"
    view: str = ""  # such as "side view"; "four views" for a grid

    def fits(self, style: str, shown: Mapping[str, str], views: Sequence[str]) -> bool:
        """Whether the caption is true of a picture of that style, those `traits` and those `view_words`."""
        trait_fits = not self.trait or self.trait in shown.values()
        return self.style == style and trait_fits and (not self.view or self.view in views)


def traits(style: str, identity: Mapping[str, float]) -> dict[str, str]:
    """What can be said about a head in that style: kind of trait to words such as "with long hair".

    Args:
        style: a key of `PHRASINGS`.
        identity: the numbers in [0, 1] by the names of `IDENTITY_NAMES`; in-between values are not spoken of.
    """
    said: dict[str, str] = {}
    bald = identity["hair_volume"] < 0.07
    if bald:
        said["hair length"] = "bald"
    elif identity["hair_length"] > 0.65:
        said["hair length"] = "with long hair"
    elif identity["hair_length"] < 0.35:
        said["hair length"] = "with short hair"
    if not bald and (colour := _hair_colour(identity["hair_darkness"], identity["hair_redness"])):
        said["hair colour"] = f"with {colour} hair"
    for kind, name, low, high in (
        ("skin", "skin_tone", "with light skin", "with dark skin"),
        ("eyes", "eye_colour", "with blue eyes", "with brown eyes"),
        ("beard", "beard", "", "with a beard"),
    ):
        words = low if identity[name] < 0.3 else high if identity[name] > 0.75 else ""
        if words:
            said[kind] = words
    return {kind: words for kind, words in said.items() if kind in SHOWN_TRAITS[style]}


def _hair_colour(darkness: float, redness: float) -> str:
    if darkness > 0.75:
        return "dark"
    if redness > 0.7 and darkness < 0.55:
        return "red"
    if redness < 0.35 and darkness < 0.3:
        return "blond"
    return "brown" if 0.5 < darkness < 0.7 and redness < 0.6 else ""


def view_words(yaw: float) -> tuple[str, ...]:
    """The words that fit a camera at `yaw` radians, 0 = front; overlapping, and the same for a mirrored picture."""
    away = abs(math.remainder(yaw, 2 * math.pi))
    spans = (("front view", 0.0, 0.75), ("three quarter view", 0.4, 1.1), ("side view", 0.75, 2.3))
    return tuple(words for words, low, high in spans if low <= away < high) or ("back view",)


def caption(style: str, identity: Mapping[str, float], yaw: float | None, generator: torch.Generator) -> Caption:
    """One caption, drawn from `generator`.

    Args:
        style: a key of `PHRASINGS`.
        identity: see `traits`.
        yaw: radians, 0 = front; None for a grid of four views, whose caption names no view but "four views".
    """
    uniform = iter(torch.rand(8, generator=generator, dtype=torch.float64).tolist())
    phrasings = PHRASINGS[style]
    text = phrasings[0] if next(uniform) < FIRST_PHRASING else _pick(phrasings, next(uniform))
    trait = view = ""
    if (shown := list(traits(style, identity).values())) and next(uniform) < WITH_TRAIT:
        trait = _pick(shown, next(uniform))
        text = f"{text} {trait}" if trait.startswith("with") else f"{text}, {trait}"
    if next(uniform) < WITH_VIEW or yaw is None:  # a grid always says so, else plain prompts would give some
        view = GRID_WORDS if yaw is None else _pick(view_words(yaw), next(uniform))
        view_first = next(uniform) < VIEW_FIRST and yaw is not None
        text = f"{view} of {text}" if view_first else f"{text}, {view}"
    quality = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
    if quality[0] < WITH_QUALITY:
        text = f"{text}, {_pick(QUALITY_WORDS, quality[1])}"
    return Caption(text, style, trait, view)


def _pick(choices: Sequence[str], uniform: float) -> str:
    return choices[min(int(uniform * len(choices)), len(choices) - 1)]


def all_words() -> tuple[str, ...]:
    """Every whole word that a caption can hold, sorted: what the text encoder has learnt."""
    trait_words = "bald with long short dark red blond brown hair light skin blue brown eyes a beard"
    views = f"front view three quarter view side view back view of {GRID_WORDS}"
    texts = [phrase for phrasings in PHRASINGS.values() for phrase in phrasings]
    return tuple(sorted({word for text in [*texts, *QUALITY_WORDS, trait_words, views] for word in text.split()}))
