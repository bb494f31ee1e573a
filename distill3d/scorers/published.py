"""The diffusion models of the released script: what they are, and how to get those that are not here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from huggingface_hub import try_to_load_from_cache


@dataclass(frozen=True)
class Published:
    """A model on the Hugging Face Hub."""

    repo: str
    size: str  # of what is loaded, float32
    licence: str
    folders: tuple[str, ...] = ()  # that are loaded; none: the whole repository

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
MODEL = Published("SG161222/Realistic_Vision_V5.1_noVAE", "4.3 GB", "CreativeML OpenRAIL-M", PARTS)
CONTROLNETS = {
    "canny": Published("lllyasviel/sd-controlnet-canny", "1.4 GB", "OpenRAIL"),
    "depth": Published("lllyasviel/sd-controlnet-depth", "1.4 GB", "OpenRAIL"),
}
TINY_AUTOENCODER = Published("madebyollin/taesd", "10 MB", "MIT")  # of Stable Diffusion 1 and 2's latents


def how_to_get(models: Iterable[Published]) -> str:
    """A line for each model that is not here: size, licence, command."""
    return "\n".join(f"  {m.repo} ({m.size}, licence {m.licence}): {m.command}" for m in models if not m.here)
