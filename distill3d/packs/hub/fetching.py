"""Style packs from the Hub: only the files of a pack, their sizes known before they are downloaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill3d.errors import HubError, PackError, RunError
from distill3d.files import write_text
from distill3d.packs.config import FILES, NEEDED
from distill3d.packs.hub.errors import Asking, asking, endpoint, failure, is_offline_mode, is_unreachable
from distill3d.packs.hub.names import MAIN, split_name, usable_token
from distill3d.packs.sizes import size_in_words

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

Told = Callable[[str], None]


def quiet(text: str) -> None:
    """Tell nobody."""


def fetch(model: str, *, token: str | bool | None = None, told: Told = quiet) -> Path:
    """The folder of a pack on the Hub, in the Hugging Face cache, with files that a pack has and no others.

    Without a network, or with HF_HUB_OFFLINE, the one that was fetched last, if all of it was.

    Args:
        model: "user/name", or "user/name@revision": a branch, a tag, a commit or refs/pr/1.
        token: None for the one that the client finds in the usual places, False for none.
        told: what is downloaded and how much, before it is.
    Raises:
        HubError: if it cannot be had; what is whole stays in the cache for the next time.
        PackError: if it is no style pack, or larger than one.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    repo_id, revision = split_name(model)
    what = Asking(repo_id, "downloaded", usable_token(token), revision)
    try:
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        info = HfApi(token=token).model_info(repo_id, revision=revision, files_metadata=True, timeout=timeout)
    except Exception as error:
        if is_unreachable(error):
            return _cached(what, error, told)
        raise failure(error, what) from error
    sizes, commit = _sizes(info, what.name), str(info.sha)
    if not re.fullmatch("[0-9a-f]{40}", commit):  # it becomes a folder's name
        raise HubError(f"{endpoint()} does not answer as a Hub does: it names no commit. See HF_ENDPOINT.")
    is_here = not _tell(sizes, what, commit, told)
    afterwards = "Files that arrived whole are kept: the same again fetches the rest."
    with asking(replace(what, afterwards=afterwards)):
        found = snapshot_download(
            repo_id, revision=commit, allow_patterns=list(sizes), token=token, local_files_only=is_here
        )
        folder = Path(found)
    _check_arrived(folder, sizes, what.name)
    if revision != commit:
        with suppress(RunError):  # only a load without network needs it
            write_text(folder.parents[1] / "refs" / (revision or MAIN), commit)  # as the cache notes it itself
    return folder


def _sizes(info: ModelInfo, name: str) -> dict[str, int]:
    """The files of a pack that a repository has, each with its bytes.

    Raises:
        PackError: if they make no pack, or one is larger than it may be.
    """
    there = {file.rfilename: file for file in info.siblings or ()}
    missing = [needed for needed in NEEDED if needed not in there]
    if missing:
        raise PackError(f"{name} on the Hub is no style pack: it has no {missing[0]}.")
    sizes = {}
    for file, most in FILES.items():
        if file in there:
            size = there[file].size
            if size is None or size > most:
                told = "an unknown number of" if size is None else f"{size:,}"
                raise PackError(
                    f"{name} on the Hub is refused: its {file} has {told} bytes, at most {most:,} are read."
                )
            sizes[file] = size
    return sizes


def _tell(sizes: Mapping[str, int], what: Asking, commit: str, told: Told) -> bool:
    """Say what is to be downloaded; whether anything is."""
    from huggingface_hub import try_to_load_from_cache

    is_here = lambda file: isinstance(try_to_load_from_cache(what.repo_id, file, revision=commit), str)  # noqa: E731
    coming = [file for file in sizes if not is_here(file)]
    if coming:
        total = size_in_words(sum(sizes[file] for file in coming))
        told(f"Downloading {total} of {what.name} from {endpoint()}: {', '.join(coming)}.")
    return bool(coming)


def _check_arrived(folder: Path, sizes: Mapping[str, int], name: str) -> None:
    for file, size in sizes.items():
        path = folder / file
        here = path.stat().st_size if path.is_file() else 0
        if here != size:
            raise HubError(
                f"The copy of {name} in the cache is damaged: {file} has {here:,} bytes, {size:,} on the Hub. "
                f"Delete {folder.parents[1]} and fetch it again."
            )


def _cached(what: Asking, error: Exception, told: Told) -> Path:
    """What was fetched before.

    Raises:
        HubError: if that is not all of a pack.
    """
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            what.repo_id, revision=what.revision, local_files_only=True, allow_patterns=list(FILES)
        )
        whole = all((Path(found) / needed).is_file() for needed in NEEDED)
    except Exception:  # nothing there, or only a part
        whole = False
    if not whole:
        raise failure(error, replace(what, afterwards="The cache holds no whole copy of it.")) from error
    if not is_offline_mode(error):
        told(f"The Hub cannot be reached: {what.name} is the one that was fetched last.")
    return Path(found)
