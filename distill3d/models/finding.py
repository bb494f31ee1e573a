"""The run or style pack that a user's words mean."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from distill3d.errors import HubError, RunError
from distill3d.packs.config import ADAPTER, CONFIG, tells_of_pack
from distill3d.run_files import RUNS
from distill3d.runs import RunFolder
from distill3d.stylisation import Stylisation

logger = logging.getLogger(__name__)

Told = Callable[[str], None]
tell_log = logger.info  # what is told unless somebody wants to hear it


def find_model(model: str | Path, *, token: str | bool | None = None, told: Told = tell_log) -> Stylisation:
    """The run or style pack that these words mean.

    Args:
        model: the folder of a run or of a style pack; a Hub id "user/name" or "user/name@revision", which is downloaded
            into the Hugging Face cache; or the bare name of a run below runs/, as "zombie" for runs/zombie-tiny.
        token: for the Hub; None for the one that it is logged in with.
        told: what is downloaded, before it is.
    Raises:
        RunError, PackError, HubError: if there is none, saying what was looked for.
    """
    found = _here(str(model))
    if found is not None:
        return found
    name = str(model)
    _refuse_what_is_no_id(name)
    from distill3d.packs.hub import fetch
    from distill3d.packs.pack import open_pack

    try:
        return open_pack(fetch(name, token=token, told=told), name)
    except HubError as error:
        if os.path.isdir(name.split("/")[0]):
            raise HubError(f"There is no folder {name} here. {error}") from error
        raise


def find_run(model: str | Path) -> RunFolder:
    """The same where only a run will do, since a style pack has no checkpoints; nothing is downloaded.

    Raises:
        RunError: if it is none.
    """
    found = _here(str(model))
    if found is None:
        raise RunError(f"There is no run folder {model}.")
    if not isinstance(found, RunFolder):
        raise RunError(f"{found.name} is a style pack, not a run: it has no checkpoints. Give the run's folder.")
    return found


def _here(name: str) -> Stylisation | None:
    """A folder of that name, or a run of that bare name; None for what can only be on the Hub."""
    if os.path.isdir(name):  # Path.is_dir raises for a name that is too long
        return _in_folder(Path(name))
    if re.fullmatch(r"[\w.-]+", name):
        return _in_folder(_below_runs(name))
    return None


def _in_folder(folder: Path) -> Stylisation:
    if not (os.path.lexists(folder / ADAPTER) or tells_of_pack(folder / CONFIG)):
        return RunFolder(folder)
    from distill3d.packs.pack import open_pack

    return open_pack(folder)


def _below_runs(name: str) -> Path:
    """runs/NAME, or the only runs/NAME-something."""
    if os.path.isdir(os.path.join(RUNS, name)):
        return Path(RUNS, name)
    found = [run for run in _runs() if run.startswith(f"{name}-")]
    if not found:
        raise RunError(
            f"There is no run folder {name}, nor {Path(RUNS, name)}; and it is no Hub id, which looks like user/name."
            f"{_near(name)}"
        )
    if len(found) > 1:
        raise RunError(f"{name} could be any of {', '.join(str(Path(RUNS, run)) for run in found)}. Say which.")
    return Path(RUNS, found[0])


def _runs() -> list[str]:
    return sorted(path.name for path in Path(RUNS).iterdir() if path.is_dir()) if os.path.isdir(RUNS) else []


def _near(name: str) -> str:
    """What else may have been meant."""
    near = difflib.get_close_matches(name, _runs(), n=1, cutoff=0.5)
    return f" Did you mean {Path(RUNS, near[0])}?" if near else ""


def _refuse_what_is_no_id(name: str) -> None:
    """What is not asked of the Hub: no name of its, or one that is meant to be here."""
    from distill3d.packs.hub.names import split_name

    folder, _, run = name.partition("/")
    if folder == RUNS:
        raise RunError(f"There is no run folder {name}.{_near(run)}")
    try:
        split_name(name)
    except HubError as error:
        raise RunError(
            f"There is no run folder {name[:100]}, and it is no Hub id, which looks like user/name."
        ) from error
