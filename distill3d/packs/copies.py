"""A style pack's folder again: elsewhere, or under another name."""

from __future__ import annotations

import shutil
from pathlib import Path

from distill3d.files import check_replaceable, folder_written_aside
from distill3d.packs.bounded import read_adapter
from distill3d.packs.card import card_of
from distill3d.packs.config import ADAPTER, CARD, FILES, SHEET, TURNTABLE
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
    """
    check_replaceable(out, ())
    left_out = () if pictures else (SHEET, TURNTABLE)
    with folder_written_aside(out) as folder:
        for name in FILES:
            if (pack.folder / name).is_file() and name not in left_out:
                shutil.copyfile(pack.folder / name, folder / name)
    return open_pack(out, pack.name)


def renamed(pack: StylePack, out: Path, repo_id: str, *, pictures: bool = True) -> StylePack:
    """The same, with the card that it gets by another name on the Hub; see `copy_pack`."""
    copy = copy_pack(pack, out, pictures=pictures)
    card = card_of(copy.content, repo_id, pictures=(out / SHEET).is_file())
    (out / CARD).write_text(str(card), encoding="utf-8")
    return open_pack(out, repo_id)
