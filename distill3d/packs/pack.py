"""A style pack as an object: what its folder holds, checked; and huggingface_hub's own way to and from the Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin
from torch import Tensor

from distill3d.errors import PackError
from distill3d.files import storing
from distill3d.licences import Part
from distill3d.packs.adapter import decode
from distill3d.packs.bounded import read_adapter
from distill3d.packs.config import ADAPTER, CONFIG, PackConfig
from distill3d.packs.hub import fetch
from distill3d.packs.inventory import check_files, copy_files
from distill3d.packs.places import is_place, lying_here
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

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Copy the pack's files into a folder; see `ModelHubMixin.save_pretrained`.

        Raises:
            PackError: for the pack's own folder, or a file of the pack that is not one that it may have.
            RunError: if it cannot be written.
        """
        place = Path(save_directory)
        with storing(place):
            if place.exists() and place.samefile(self.folder):  # the mixin deletes its config.json first of all
                raise PackError(f"{self.name} lies in {place} already. Choose another folder to save it in.")
            check_files(self.folder, self.name)
            return super().save_pretrained(place, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        copy_files(self.folder, save_directory, self.name)

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
    check_files(folder, name)
    content = PackConfig.from_json(_read_config(folder, name), name)
    places = {f"the backbone's {option}": value for option, value in content.backbone_options.items()}
    for what, value in {**places, "its base": content.base.weights}.items():
        _check_place(what, value, name)
    return StylePack(folder, content, name)


def _read_config(folder: Path, name: str) -> str:
    try:
        return (folder / CONFIG).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise PackError(f"The {CONFIG} of {name} cannot be read: {error.strerror}.") from error


def _check_place(what: str, value: object, name: str) -> None:
    """What a stranger's config names must not be read from this disk, also not because it happens to lie here."""
    if is_place(value):
        raise PackError(f"{name} is refused: it names a file of somebody's disk as {what}, {repr(value)[:60]}.")
    here = lying_here(value)
    if here is not None:
        shown = repr(here)[:60]
        raise PackError(
            f"{name} is refused here: it names {shown} as {what}, and here lies a file called {shown}: run it from "
            "another folder."
        )
