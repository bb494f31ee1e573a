"""What several parts allow together, and the licence of what is made from them. No legal advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distill3d.errors import ConfigError
from distill3d.licences.known import LICENCES, OPEN, UNKNOWN, Commercial, Licence, known_licence, licence_of, source_of
from distill3d.licences.part import Part

PAGE = "docs/licences.md"
LONGEST = 100  # characters of what a part says of itself
NOBODY_NOTED = "nobody noted whose weights it was made with"


def commercial_use(parts: Iterable[Part]) -> Commercial:
    """What they allow together: the strictest counts, and what is unknown is not allowed. No parts: unknown."""
    return max(map(licence_of, parts), key=lambda licence: licence.strictness, default=UNKNOWN).commercial


def is_open(parts: Iterable[Part]) -> bool:
    """Whether commercial use is; that of what nobody noted the parts of is not."""
    return commercial_use(parts) in OPEN


def not_open(parts: Iterable[Part]) -> list[Part]:
    """Those whose licence does not allow commercial use, or is unknown."""
    return [part for part in parts if not is_open([part])]


def verdict(parts: Sequence[Part]) -> str:
    """Whether commercial use is open, in one sentence."""
    if not parts:
        return f"Commercial use is not open: {NOBODY_NOTED}."
    if not is_open(parts):
        return f"Commercial use is not open: {'; '.join(_why(part) for part in not_open(parts))}."
    conditional = {licence for licence in map(licence_of, parts) if licence.commercial == "with conditions"}
    if not conditional:
        return "Commercial use is open."
    names, conditions = (sorted({getattr(licence, field) for licence in conditional}) for field in ("name", "says"))
    return f"Commercial use is open under the conditions of {' and '.join(names)}: {'; '.join(conditions)}."


def licence_in_words(part: Part) -> str:
    """What a part is under, and what it says if that is another; a stranger's words, though none that do harm."""
    licence, said = licence_of(part), _said(part)
    if licence is UNKNOWN:
        return said or UNKNOWN.name
    return licence.name + (f" (it says {said})" if said and licence is not known_licence(part.licence) else "")


def _said(part: Part) -> str:
    """What a part says that it is under; "" if it does not say."""
    return "" if part.licence == UNKNOWN.name else _shown(part.licence)


def _shown(text: str) -> str:
    """What a page and a terminal can show of a stranger's words."""
    return "".join(c for c in text if c.isprintable()).strip()[:LONGEST]


def _why(part: Part) -> str:
    called = _shown(f"{part.role} {part.name}")
    if licence_of(part) is UNKNOWN:
        return f"the licence of the {called} is unknown" + (f" ({_said(part)})" if _said(part) else "")
    return f"the {called} is under {licence_in_words(part)}"


def check_commercial(parts: Sequence[Part]) -> None:
    """Refuse parts whose licence does not allow commercial use, or is unknown.

    Raises:
        ConfigError: naming each, where it is written, and what to do; also if there are none, since nobody noted them.
    """
    if is_open(parts):
        return
    if not parts:
        raise ConfigError(
            f"--commercial-ok was asked for, and {NOBODY_NOTED}, so nothing is granted. Leave it out, or take a run or "
            "a style pack that notes them."
        )
    lines = "\n".join(_refusal(part) for part in not_open(parts))
    raise ConfigError(
        f"--commercial-ok was asked for, and these parts do not allow it, or do not say so:\n{lines}\n"
        f"{PAGE} lists what is known. For other than commercial use, say --no-commercial-ok."
    )


def _refusal(part: Part) -> str:
    source = source_of(part)
    return f"  {_why(part)}{f', see {source}' if source else ''}. {_instead(part)}"


_INSTEAD = {
    "backbone": "Another backbone or checkpoint: --backbone, --weights.",
    "scorer": "A model that is known, by its Hub id: --scorer-weights; or --scorer tiny.",
    "controlnet": "One that is known, by its Hub id: --controlnet NAME=HUB_ID.",
    "autoencoder": "The known one, --fast alone; or none.",
    "metric": "Evaluate without it.",
}


def _instead(part: Part) -> str:
    return _INSTEAD.get((part.role.split() or [""])[0], "Take another.")


@dataclass(frozen=True)
class PackLicence:
    """The licence of a style pack, as its card's front matter says it."""

    license: str  # an identifier of the Hub
    license_name: str | None = None  # of one that the Hub does not know
    license_link: str | None = None
    binding: tuple[Licence, ...] = ()  # whose conditions it has to keep


def pack_licence(parts: Iterable[Part]) -> PackLicence:
    """What a pack is under that was made with these.

    Its tensors derive from the backbone and from the diffusion model with its ControlNets; what only measured it does
    not count. Everything that asks for more than a notice binds: naming authors is more.
    """
    licences = dict.fromkeys(licence_of(part) for part in parts if not part.measured_only)
    found = sorted(licences or [UNKNOWN], key=lambda licence: -licence.strictness)
    binding = [licence for licence in found if not licence.notice_only]
    included = {name for licence in binding for name in licence.includes}
    binding = [licence for licence in binding if licence.id not in included]
    if not binding:
        return PackLicence(min(found, key=list(LICENCES.values()).index).id, binding=tuple(found))
    if len(binding) == 1 and (binding[0].on_hub or binding[0] is UNKNOWN):
        return PackLicence(binding[0].id, binding=tuple(binding))
    name = "-and-".join(licence.id for licence in binding).replace("+", "-plus")  # the Hub's names have no plus
    link = next(licence.source for licence in binding if licence.source)
    return PackLicence("other", name, link, tuple(binding))
