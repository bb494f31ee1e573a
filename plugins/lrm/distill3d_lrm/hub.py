"""Where a checkpoint lies: a folder, a file, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from distill3d.errors import WeightsError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ENDINGS = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")  # of a file that is not there; ids may end in .1


@dataclass(frozen=True)
class Published:
    """A checkpoint on the Hub."""

    repo: str
    size: str
    licence: str
    config: str
    weights: tuple[str, ...]  # names that the weights may have, the first that is there counts


@dataclass(frozen=True)
class Found:
    """A checkpoint's two files."""

    config: Path
    weights: Path
    licence: str
    repo: str = ""  # on the Hub; none for a file of the user's


def find_checkpoint(given: str | None, default: Published) -> Found:
    """The files that these words mean; see `loading.load_model`.

    Raises:
        WeightsError: if they are not there, saying what to do.
    """
    if given is None:
        return _cached(default)
    path = Path(given)
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        return _in_folder(path, default)
    if os.path.isfile(path):
        return _beside(path, default)
    if path.suffix in ENDINGS or not HUB_ID.fullmatch(given):
        raise WeightsError(
            f"There is no checkpoint {given}. Give a folder with {default.config} and {default.weights[0]}, or a Hub "
            f"id such as {default.repo}."
        )
    return _downloaded(given, default)


def _cached(default: Published) -> Found:
    from huggingface_hub import try_to_load_from_cache

    config, weights = (try_to_load_from_cache(default.repo, name) for name in (default.config, default.weights[0]))
    if not (isinstance(config, str) and isinstance(weights, str)):
        raise WeightsError(
            f"{default.repo} is not here ({default.size}, licence {default.licence}). Get it with: hf download "
            f"{default.repo} {default.config} {default.weights[0]}. Or say --weights {default.repo}, which downloads "
            "it, or give a folder."
        )
    return Found(Path(config), Path(weights), default.licence, default.repo)


def _in_folder(folder: Path, default: Published) -> Found:
    names = [*default.weights, "model.safetensors", "model.ckpt"]
    weights = next((folder / name for name in names if (folder / name).is_file()), None)
    if weights is None:
        raise WeightsError(f"{folder} holds no weights: none of {', '.join(dict.fromkeys(names))}.")
    return _beside(weights, default)


def _beside(weights: Path, default: Published) -> Found:
    config = weights.with_name(default.config)
    if not config.is_file():
        raise WeightsError(f"{weights} needs its {default.config} beside it; {config} is not there.")
    return Found(config, weights, "unknown")


def _downloaded(repo: str, default: Published) -> Found:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

    try:
        files = [Path(hf_hub_download(repo, name)) for name in (default.config, default.weights[0])]
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"There is no repository {repo} on the Hub, or it is private and no token is set."
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            f"{repo} has not both {default.config} and {default.weights[0]}, or the network is not there: "
            f"{str(error).splitlines()[0]}"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{repo} could not be downloaded: {first}") from error
    return Found(files[0], files[1], default.licence if repo == default.repo else "unknown", repo)
