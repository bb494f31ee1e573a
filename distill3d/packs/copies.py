"""A style pack's folder again: elsewhere, or under another name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distill3d.files import check_replaceable, folder_written_aside
from distill3d.packs.bounded import read_adapter
from distill3d.packs.card import card_of
from distill3d.packs.config import ADAPTER, CARD, SHEET
from distill3d.packs.inventory import PICTURES, copy_files
from distill3d.packs.pack import StylePack, open_pack


def check_whole(pack: StylePack) -> None:
    """That the tensors of a pack are those that its config tells of.

    Raises:
        PackError: if they are others, or damaged.
    """
    stored = pack.content.adapter
    read_adapter(pack.folder / ADAPTER, sha256=stored.sha256, size=stored.size, source=pack.name)


def copy_pack(pack: StylePack, out: Path, *, pictures: bool = True) -> StylePack:
    """Copy the files of a pack: the new folder is there whole, or not at all.

    Args:
        out: a folder, new or empty.
        pictures: False leaves them out.
    Raises:
        RunError: if something is there already, or it cannot be written.
        PackError: if a file of the pack is not one that it may have.
    """
    with _copied(pack, out, pictures):
        pass
    return open_pack(out, pack.name)


def renamed(pack: StylePack, out: Path, repo_id: str, *, pictures: bool = True) -> StylePack:
    """The same, with the card that it gets by another name on the Hub; see `copy_pack`."""
    with _copied(pack, out, pictures) as folder:
        card = card_of(pack.content, repo_id, pictures=(folder / SHEET).is_file())
        (folder / CARD).write_text(str(card), encoding="utf-8")
    return open_pack(out, repo_id)


@contextmanager
def _copied(pack: StylePack, out: Path, pictures: bool) -> Iterator[Path]:
    """The files in what becomes the folder `out` when the block succeeds."""
    check_replaceable(out, ())
    with folder_written_aside(out) as folder:
        copy_files(pack.folder, folder, pack.name, without=() if pictures else PICTURES)
        yield folder
