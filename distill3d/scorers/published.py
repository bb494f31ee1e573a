"""The diffusion models of the released script: what they are, how to get those that are not here, their licences."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from distill3d.licences import UNKNOWN, Part, licence_of_model


@dataclass(frozen=True)
class Published:
    """A model on the Hugging Face Hub."""

    repo: str
    size: str  # of what is loaded, float32
    folders: tuple[str, ...] = ()  # that are loaded; none: the whole repository

    @property
    def licence(self) -> str:
        """As `distill3d.licences` knows it."""
        return licence_of_model(self.repo)

    @property
    def here(self) -> bool:
        """Whether its first config lies in the local cache."""
        folder = f"{self.folders[0]}/" if self.folders else ""
        return isinstance(try_to_load_from_cache(self.repo, f"{folder}config.json"), str)

    @property
    def command(self) -> str:
        """Fetches it."""
        only = "".join(f" --include '{folder}/*'" for folder in self.folders)
        return f"hf download {self.repo}{only}"


PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
MODEL = Published("SG161222/Realistic_Vision_V5.1_noVAE", "4.3 GB", PARTS)
CONTROLNETS = {
    "canny": Published("lllyasviel/sd-controlnet-canny", "1.4 GB"),
    "depth": Published("lllyasviel/sd-controlnet-depth", "1.4 GB"),
}
TINY_AUTOENCODER = Published("madebyollin/taesd", "10 MB")  # of Stable Diffusion 1 and 2's latents


def how_to_get(models: Iterable[Published]) -> str:
    """A line for each model that is not here: size, licence, command."""
    return "\n".join(f"  {m.repo} ({m.size}, licence {m.licence}): {m.command}" for m in models if not m.here)


def part_at(role: str, place: str) -> Part:
    """The part that lies there.

    A folder here is known by its own name, never by its path, and of an unknown licence: what is in it, nobody checked.

    Args:
        place: folder or Hub id.
    """
    folder = Path(place)
    if folder.exists():
        return Part(role, folder.resolve().name, UNKNOWN.name)
    return Part(role, place, licence_of_model(place))
