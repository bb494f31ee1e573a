"""Reads the parts of a diffusion model from a folder or the Hub, with errors that say what to do."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.utils import logging as transformers_logging

from distill3d.errors import WeightsError

KNOWN_WORDS = "known_words.json"  # beside a tokenizer whose text encoder was taught few words


def load_part(kind: Any, source: str, subfolder: str | None = None, dtype: torch.dtype | None = None) -> Any:
    """`kind.from_pretrained` of one part; only safetensors, never a pickle.

    Args:
        kind: a class of diffusers or transformers.
        source: folder or Hub id.
        dtype: that a network is rounded to as soon as it is here, so that one is in memory unrounded at a time.
    Raises:
        WeightsError: for a part that is missing, damaged, or not to be had without a network.
    """
    options: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
    if issubclass(kind, nn.Module):
        options.update(use_safetensors=True)
        if importlib.util.find_spec("accelerate") is None and kind.__module__.startswith("diffusers"):
            options["low_cpu_mem_usage"] = False  # what it falls back on, after a warning for each part
    folder = Path(source)
    part = f"the {subfolder} of {source}" if subfolder else source
    if folder.is_absolute() or folder.exists() or source.startswith("."):
        place = folder / (subfolder or "")
        if not place.is_dir():
            raise WeightsError(f"Cannot load {part}: there is no folder {place}.")
    try:
        loaded = kind.from_pretrained(source, **options)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if folder.exists():
            raise WeightsError(f"Cannot load {part}: the files are damaged or incomplete ({reason}).") from error
        raise WeightsError(
            f"Cannot load {part} from the local cache or the Hub ({reason}). With a network, fetch it once by: "
            f"hf download {source}. Or give a folder that holds it."
        ) from error
    # not diffusers' own `to`, which warns of layers that need float32, also where none does
    return nn.Module.to(loaded, dtype) if dtype is not None else loaded


def known_words(source: str) -> frozenset[str] | None:
    """The words that the model in this folder was taught; None if it does not say so."""
    path = Path(source) / "tokenizer" / KNOWN_WORDS
    return frozenset(json.loads(path.read_text())) if path.is_file() else None


@contextmanager
def no_loading_bars() -> Iterator[None]:
    """transformers draws a bar for reading a file that is already here; a download's bar is huggingface_hub's."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextmanager
def unknown_settings_allowed() -> Iterator[None]:
    """diffusers warns of a setting that it writes into a tiny autoencoder's config itself."""
    log = logging.getLogger("diffusers.configuration_utils")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
