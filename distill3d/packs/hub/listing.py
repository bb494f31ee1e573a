"""The style packs of the Hub, by their tags."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from distill3d.packs.hub.errors import Asking, asking
from distill3d.packs.hub.names import usable_token

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

LIBRARY, KIND = "distill3d", "style-pack"  # the tags that all packs have
STYLE_TAG, BACKBONE_TAG = "style:", "backbone:"  # what follows is what this pack has


@dataclass(frozen=True)
class Entry:
    """A style pack in a list. `style` and `backbone` are what its tags say of it, "" if they say nothing."""

    id: str
    private: bool
    updated: datetime | None
    downloads: int
    likes: int
    style: str
    backbone: str


def list_packs(author: str | None = None, *, token: str | bool | None = None) -> list[Entry]:
    """The style packs of the Hub, those changed last first; private ones if the token may read them.

    Args:
        author: only this user's or organisation's.
    Raises:
        HubError: if the Hub cannot be asked.
    """
    from huggingface_hub import HfApi

    with asking(Asking("", "had", usable_token(token))):
        found = HfApi(token=token).list_models(
            author=author,
            filter=[LIBRARY, KIND],
            expand=["private", "lastModified", "downloads", "likes", "tags"],
        )
        entries = [_entry(info) for info in found]
    return sorted(entries, key=lambda entry: entry.updated.timestamp() if entry.updated else 0, reverse=True)


def _entry(info: ModelInfo) -> Entry:
    said = dict.fromkeys((STYLE_TAG, BACKBONE_TAG), "")
    for tag in info.tags or ():
        for kind in said:
            if tag.startswith(kind) and tag.isprintable():
                said[kind] = tag.removeprefix(kind)[:40]
    of = (info.id, bool(info.private), info.last_modified, info.downloads or 0, info.likes or 0)
    return Entry(*of, said[STYLE_TAG], said[BACKBONE_TAG])
