"""What several parts allow together, and the licence of what is made from them. No legal advice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from distill3d.errors import ConfigError
from distill3d.licences.known import LICENCES, UNKNOWN, Commercial, Licence, known_licence, source_of
from distill3d.licences.part import Part

STRICTNESS: tuple[Commercial, ...] = ("yes", "with conditions", "unknown", "no")
OPEN: tuple[Commercial, ...] = ("yes", "with conditions")
PAGE = "docs/licences.md"


def commercial_use(parts: Iterable[Part]) -> Commercial:
    """What they allow together: the strictest counts, and what is unknown is not allowed. No parts: unknown."""
    said = [known_licence(part.licence).commercial for part in parts]
    return max(said, key=STRICTNESS.index, default="unknown")


def not_open(parts: Iterable[Part]) -> list[Part]:
    """Those whose licence does not allow commercial use, or is unknown."""
    return [part for part in parts if known_licence(part.licence).commercial not in OPEN]


def verdict(parts: Sequence[Part]) -> str:
    """Whether commercial use is open, in one sentence."""
    allowed, closed = commercial_use(parts), not_open(parts)
    if not parts:
        return "Commercial use is not open: nobody noted whose weights it was made with."
    if allowed == "yes":
        return "Commercial use is open."
    if allowed == "with conditions":
        said = {known_licence(part.licence) for part in parts if commercial_use([part]) == "with conditions"}
        names, conditions = (sorted({getattr(licence, field) for licence in said}) for field in ("name", "says"))
        return f"Commercial use is open under the conditions of {' and '.join(names)}: {'; '.join(conditions)}."
    return f"Commercial use is not open: {'; '.join(_why(part) for part in closed)}."


def called(part: Part) -> str:
    """A part in words: its role, and its name if it has one."""
    return f"{part.role} {part.name}".strip()


def _why(part: Part) -> str:
    licence = known_licence(part.licence)
    if licence is UNKNOWN:
        as_given = f" ({part.licence})" if part.licence not in ("", UNKNOWN.name) else ""
        return f"the licence of the {called(part)} is unknown{as_given}"
    return f"the {called(part)} is under {licence.name}"


def check_commercial(parts: Iterable[Part]) -> None:
    """Refuse parts whose licence does not allow commercial use, or is unknown.

    Raises:
        ConfigError: naming each, where it is written, and what to do.
    """
    closed = not_open(parts)
    if not closed:
        return
    lines = "\n".join(_refusal(part) for part in closed)
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
    not count. Everything that asks for more than a notice binds.
    """
    licences = dict.fromkeys(known_licence(part.licence) for part in parts if not part.measured_only)
    found = sorted(licences or [UNKNOWN], key=lambda licence: -STRICTNESS.index(licence.commercial))
    binding = [licence for licence in found if licence.commercial != "yes"]
    included = {name for licence in binding for name in licence.includes}
    binding = [licence for licence in binding if licence.id not in included]
    if not binding:
        return PackLicence(min(found, key=list(LICENCES.values()).index).id, binding=tuple(found))
    if len(binding) == 1 and (binding[0].on_hub or binding[0] is UNKNOWN):
        return PackLicence(binding[0].id, binding=tuple(binding))
    name = "-and-".join(licence.id for licence in binding).replace("+", "-plus")  # the Hub's names have no plus
    link = next(licence.source for licence in binding if licence.source)
    return PackLicence("other", name, link, tuple(binding))
