"""A style pack as an object: what its folder holds, checked; and huggingface_hub's own way to and from the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelHubMixin
from torch import Tensor

from distill3d.errors import PackError
from distill3d.licences import Part
from distill3d.packs.adapter import decode
from distill3d.packs.bounded import read_adapter
from distill3d.packs.config import ADAPTER, CONFIG, FILES, NEEDED, PackConfig
from distill3d.packs.hub import fetch
from distill3d.packs.places import is_place
from distill3d.stylisation import Backbone, Stylisation


class StylePack(
    Stylisation,
    ModelHubMixin,
    library_name="distill3d",
    tags=["distill3d", "style-pack", "3d"],
):
    """A folder with a style's trained tensors, or their low-rank differences, and what they belong to.

    `open_pack` opens it, `distill3d.publish` makes it; `from_pretrained`, `save_pretrained` and `push_to_hub` are
    huggingface_hub's.
    """

    def __init__(self, folder: Path, content: PackConfig, name: str | None = None):
        self.folder, self.content, self.name = folder, content, name or folder.resolve().name

    @property
    def style(self) -> str:
        return self.content.style

    @property
    def backbone(self) -> Backbone:
        content = self.content
        base = content.base
        return Backbone(content.backbone, base.weights or None, content.backbone_options, base.sha256, base.weights)

    @property
    def train(self) -> str:
        return self.content.train

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.content.parts

    def tensors(self, original: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Stylisation.tensors`."""
        stored = self.content.adapter
        found = read_adapter(self.folder / ADAPTER, sha256=stored.sha256, size=stored.size, source=self.name)
        return decode(original, found, stored.format, self.name)

    def _save_pretrained(self, save_directory: Path) -> None:
        for name in FILES:
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, save_directory / name)

    @classmethod
    def from_pretrained(  # type: ignore[override]  # the mixin's own reads config.json unchecked
        cls, pretrained_model_name_or_path: str | Path, *, token: str | bool | None = None, revision: str | None = None
    ) -> StylePack:
        """A pack by its folder or Hub id.

        Raises:
            PackError, HubError: if it is none, or cannot be had.
        """
        if Path(pretrained_model_name_or_path).is_dir():
            return open_pack(Path(pretrained_model_name_or_path))
        model = f"{pretrained_model_name_or_path}@{revision}" if revision else str(pretrained_model_name_or_path)
        return open_pack(fetch(model, token=token), model)


def open_pack(folder: Path, name: str | None = None) -> StylePack:
    """The pack in a folder, its config checked; its tensors are when they are read.

    Args:
        name: what it is called in errors and mixtures; None for the folder's name.
    Raises:
        PackError: if the folder holds none, or a damaged one.
    """
    name = name or folder.resolve().name
    for file in NEEDED:
        if not (folder / file).is_file():
            raise PackError(f"{name} is no style pack: it has no {file}.")
    path = folder / CONFIG
    if path.stat().st_size > FILES[CONFIG]:
        raise PackError(f"The {CONFIG} of {name} has {path.stat().st_size:,} bytes; a style pack's has at most 1 MiB.")
    content = PackConfig.from_json(path.read_text(encoding="utf-8", errors="replace"), name)
    for option, value in content.backbone_options.items():
        if is_place(value):
            shown = repr(value)[:60]
            raise PackError(
                f"{name} is refused: it names a file of somebody's disk as the backbone's {option}, {shown}."
            )
    if is_place(content.base.weights):
        raise PackError(
            f"{name} is refused: it names a file of somebody's disk as its base, {content.base.weights[:60]!r}."
        )
    return StylePack(folder, content, name)
