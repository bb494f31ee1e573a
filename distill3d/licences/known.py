"""The licences and models that are known here, with where it is written; `docs/licences.md` shows them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from distill3d.licences.part import Part

Commercial = Literal["yes", "with conditions", "no", "unknown"]
STRICTNESS: tuple[Commercial, ...] = ("yes", "with conditions", "unknown", "no")  # the last is the strictest
OPEN: tuple[Commercial, ...] = ("yes", "with conditions")
HUB = "https://huggingface.co/"


@dataclass(frozen=True)
class Licence:
    """A licence of weights, and what it says on commercial use."""

    id: str  # the Hub's identifier, or a name of that form where the Hub has none
    name: str  # as people call it
    commercial: Commercial
    source: str  # where its text, or its publisher's word, is
    says: str  # on use
    spellings: tuple[str, ...] = ()  # by which parts call it, beside its id and name
    on_hub: bool = True  # whether `id` is one of the Hub's identifiers
    includes: tuple[str, ...] = ()  # ids of licences whose conditions are among its own
    notice_only: bool = False  # asks for no more than that its notice is kept, so it binds nothing derived from it

    @property
    def strictness(self) -> int:
        """The more, the less it allows."""
        return STRICTNESS.index(self.commercial)


UNKNOWN = Licence("unknown", "unknown", "unknown", "", "nobody said which it is, so nothing is granted")

RAIL = "uses that its attachment A lists are forbidden, and that goes for everything derived from it"


def _notice_only(identifier: str, name: str, source: str, says: str) -> Licence:
    return Licence(identifier, name, "yes", source, says, notice_only=True)


_LICENCES = (
    _notice_only("apache-2.0", "Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", "keep its notices"),
    _notice_only("mit", "MIT", "https://opensource.org/license/mit", "keep its notice"),
    _notice_only("bsd-3-clause", "BSD-3-Clause", "https://opensource.org/license/bsd-3-clause", "keep its notice"),
    _notice_only("bsd-2-clause", "BSD-2-Clause", "https://opensource.org/license/bsd-2-clause", "keep its notice"),
    _notice_only("cc0-1.0", "CC0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/", "no condition"),
    Licence("cc-by-4.0", "CC-BY-4.0", "yes", "https://creativecommons.org/licenses/by/4.0/", "name its authors"),
    Licence(
        "creativeml-openrail-m",
        "CreativeML OpenRAIL-M",
        "with conditions",
        f"{HUB}spaces/CompVis/stable-diffusion-license",
        RAIL,
        ("CreativeML Open RAIL-M",),
        includes=("openrail",),
    ),
    Licence(
        "openrail++",
        "CreativeML Open RAIL++-M",
        "with conditions",
        f"{HUB}stabilityai/stable-diffusion-2/blob/main/LICENSE-MODEL",
        RAIL,
        includes=("openrail",),
    ),
    Licence("openrail", "OpenRAIL", "with conditions", f"{HUB}blog/open_rail", RAIL),
    Licence(
        "cc-by-nc-4.0",
        "CC-BY-NC-4.0",
        "no",
        "https://creativecommons.org/licenses/by-nc/4.0/",
        "name its authors; nothing that is meant for money",
    ),
    Licence(
        "cc-by-nc-sa-4.0",
        "CC-BY-NC-SA-4.0",
        "no",
        "https://creativecommons.org/licenses/by-nc-sa/4.0/",
        "name its authors; nothing that is meant for money; what is derived from it under the same licence",
    ),
    Licence(
        "nvidia-source-code-license-for-eg3d",
        "NVIDIA Source Code License for EG3D",
        "no",
        "https://github.com/NVlabs/eg3d/blob/main/LICENSE.txt",
        "research and evaluation only, also for what is derived from it (sections 3.2 and 3.3)",
        ("NVIDIA Source Code License for EG3D: research and evaluation only",),
        on_hub=False,
    ),
    Licence(
        "cc-by-nc-sa-4.0-and-nvidia-source-code-license-for-eg3d",
        "CC-BY-NC-SA-4.0 and NVIDIA Source Code License for EG3D",
        "no",
        "https://github.com/SizheAn/PanoHead/tree/main/LICENSES",
        "research and evaluation only; a badge on its page says CC-BY-4.0, the folder of its licences does not",
        ("see the page; it builds on EG3D, whose licence allows research and evaluation only",),
        on_hub=False,
        includes=("nvidia-source-code-license-for-eg3d", "cc-by-nc-sa-4.0"),
    ),
    Licence(
        "insightface-non-commercial",
        "insightface: non-commercial research",
        "no",
        "https://pypi.org/project/insightface/",
        "non-commercial research only, of all its model packs; its code is MIT",
        on_hub=False,
    ),
)
LICENCES: Mapping[str, Licence] = {licence.id: licence for licence in _LICENCES}


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9+.]+", "-", text.casefold()).strip("-")


_BY_SPELLING = {_plain(text): known for known in _LICENCES for text in (known.id, known.name, *known.spellings)}


def known_licence(text: str) -> Licence:
    """The licence that a part means by this text; `UNKNOWN` if it is none of those that are known here."""
    return _BY_SPELLING.get(_plain(text), UNKNOWN)


@dataclass(frozen=True)
class Model:
    """A model whose licence was looked up."""

    name: str  # its Hub id, or what else it is published as
    licence: str  # an id
    source: str


def _on_hub(licence: str, *names: str) -> tuple[Model, ...]:
    return tuple(Model(name, licence, HUB + name) for name in names)


_EG3D = (
    "ffhqrebalanced512-128",
    "ffhqrebalanced512-64",
    "ffhq512-128",
    "ffhq512-64",
    "afhqcats512-128",
    "shapenetcars128-64",
)
_OPENLRM = tuple(f"zxhezexin/openlrm-{on}-{size}-1.1" for on in ("mix", "obj") for size in ("small", "base", "large"))
_OPENLRM_CARD = "https://github.com/3DTopia/OpenLRM/blob/main/model_card.md"

_MODELS = (
    *_on_hub(
        "creativeml-openrail-m",
        "SG161222/Realistic_Vision_V5.1_noVAE",
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "runwayml/stable-diffusion-v1-5",
        "CompVis/stable-diffusion-v1-4",
    ),
    *_on_hub("openrail++", "stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1-base"),
    *_on_hub(
        "openrail",
        "lllyasviel/sd-controlnet-canny",
        "lllyasviel/sd-controlnet-depth",
        "lllyasviel/control_v11p_sd15_canny",
        "lllyasviel/control_v11f1p_sd15_depth",
    ),
    *_on_hub("mit", "madebyollin/taesd", "stabilityai/sd-vae-ft-ema", "stabilityai/TripoSR"),
    *_on_hub("apache-2.0", "facebook/dino-vitb16", "facebook/dinov2-base", "facebook/dinov2-large"),
    Model("openai/clip-vit-large-patch14", "mit", "https://github.com/openai/CLIP/blob/main/LICENSE"),
    *(Model(name, "cc-by-nc-4.0", _OPENLRM_CARD) for name in _OPENLRM),
    *(
        Model(name, "nvidia-source-code-license-for-eg3d", "https://github.com/NVlabs/eg3d/blob/main/LICENSE.txt")
        for name in _EG3D
    ),
    Model(
        "panohead-easy-khair-180",
        "cc-by-nc-sa-4.0-and-nvidia-source-code-license-for-eg3d",
        "https://github.com/SizheAn/PanoHead/tree/main/LICENSES",
    ),
    *(
        Model(name, "insightface-non-commercial", "https://pypi.org/project/insightface/")
        for name in ("buffalo_l", "buffalo_m", "buffalo_s", "buffalo_sc", "antelopev2")
    ),
)
MODELS: Mapping[str, Model] = {model.name: model for model in _MODELS}


def licence_of_model(name: str) -> str:
    """The licence of a published model, as a part calls it; "unknown" if it was not looked up."""
    return LICENCES[MODELS[name].licence].name if name in MODELS else UNKNOWN.name


def licence_of(part: Part) -> Licence:
    """What a part is under: the stricter of what it says and of what was looked up of a model of its name.

    Where neither is stricter, what was looked up.
    """
    said = known_licence(part.licence)
    if part.name not in MODELS:
        return said
    looked_up = LICENCES[MODELS[part.name].licence]
    return max(looked_up, said, key=lambda licence: (licence.strictness, not licence.notice_only))


def source_of(part: Part) -> str:
    """Where it is written what a part's licence is: its publisher's page, else the licence's text; "" for neither."""
    model, licence = MODELS.get(part.name), licence_of(part)
    return model.source if model is not None and model.licence == licence.id else licence.source
