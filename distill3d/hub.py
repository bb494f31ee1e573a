"""A run by where it lies: a folder here, or one that somebody published on the Hub."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from distill3d.config import DistillConfig
from distill3d.errors import RunError
from distill3d.files import user_cache, write_text
from distill3d.runs import BASE, CONFIG, LICENCES, RUN, VERSIONS, read_config, without_subjects
from distill3d.training.checkpoint import WEIGHTS

PUBLISHED = (CONFIG, BASE, RUN, WEIGHTS, VERSIONS, LICENCES)  # all that is ever downloaded
NEEDED = (CONFIG, RUN, WEIGHTS)


def cache_folder() -> Path:
    """Where downloaded runs are kept: $DISTILL3D_CACHE, else ~/.cache/distill3d."""
    return user_cache("hub")


def find_run(model: str) -> Path:
    """The folder of a run.

    Args:
        model: a run's folder, else a Hub id "user/name", whose six files are downloaded and checked when they are
            loaded. What its config says of places on the disk of whoever trained it is left out.
    Raises:
        RunError: if it is neither, cannot be downloaded, or is no published run.
    """
    if os.path.isdir(model):  # Path.is_dir raises for a name that is too long
        return Path(model)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model) or model.startswith("."):
        raise RunError(f"There is no run folder {model}, and it is no Hub id, which looks like user/name.")
    folder = cache_folder() / model.replace("/", "--")
    _download(model, folder)
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if missing:
        raise RunError(f"{model} on the Hub is no run that distill3d published: it has no {missing[0]}.")
    config = read_config(folder)
    if (portable := without_places(config)) != config:
        write_text(folder / CONFIG, portable.to_json())
    return folder


def _download(model: str, folder: Path) -> None:
    from huggingface_hub import snapshot_download  # heavy: only when something is downloaded
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        snapshot_download(model, local_dir=folder, allow_patterns=list(PUBLISHED))
    except RepositoryNotFoundError as error:
        raise RunError(
            f"There is no run folder {model}, and the Hub has no model of that name, or it is private."
        ) from error
    except Exception as error:  # what the client lets through of its transport depends on its version
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise RunError(
            f"{model} is no run folder here and could not be downloaded from the Hub; is there a network? ({reason})"
        ) from error


def without_places(config: DistillConfig) -> DistillConfig:
    """The config without paths of another machine: the files of subjects, and weights that lay on its disk.

    The backbone's own weights take their place; `base.json` tells if those are others.
    """
    config = without_subjects(config)
    return replace(
        config,
        weights=None if _is_place(config.weights) else config.weights,
        scorer_weights=None if _is_place(config.scorer_weights) else config.scorer_weights,
        controlnets={name: place for name, place in config.controlnets.items() if not _is_place(place)},
        backbone_options={name: value for name, value in config.backbone_options.items() if not _is_place(value)},
    )


def _is_place(value: object) -> bool:
    """A path that can be no Hub id and no name: an absolute one, one from here or from home, or one that is here."""
    if not isinstance(value, str):
        return False
    if os.path.exists(value):  # what a stranger's config names must not be read because it happens to lie here
        return True
    return PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute() or value.startswith((".", "~"))
