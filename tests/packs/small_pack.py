"""A style pack whose tensors nobody reads: for tests of where packs go."""

import hashlib
from pathlib import Path

from distill3d.packs.card import card_of
from distill3d.packs.config import ADAPTER, CARD, CONFIG, SHEET, AdapterInfo, Base, PackConfig
from distill3d.packs.pack import StylePack, open_pack

NAME = "somebody/zombies"
TENSORS = bytes(range(256)) * 2000  # 512 kB
PICTURE = b"RIFF\x0a\0\0\0WEBPVP8L\0\0"  # begins as a WebP picture does


def small_pack(folder: Path, name=NAME, *, style="zombie", tensors=TENSORS, sheet: bytes | None = PICTURE) -> StylePack:
    folder.mkdir(parents=True, exist_ok=True)
    config = PackConfig(
        style=style,
        prompt=f"a {style}",
        backbone="tiny",
        base=Base("embedded", "0" * 64),
        adapter=AdapterInfo("full", hashlib.sha256(tensors).hexdigest(), len(tensors)),
        method="ld",
        step=2,
    )
    (folder / CONFIG).write_text(config.to_json())
    (folder / ADAPTER).write_bytes(tensors)
    (folder / CARD).write_text(str(card_of(config, name, pictures=sheet is not None)))
    if sheet is not None:
        (folder / SHEET).write_bytes(sheet)
    return open_pack(folder, name)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
