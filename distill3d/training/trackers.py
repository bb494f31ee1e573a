"""The numbers of a run in TensorBoard, Weights & Biases and whatever else accelerate knows, beside metrics.jsonl."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from distill3d.errors import ConfigError, MissingExtraError, UnknownNameError
from distill3d.files import storing

logger = logging.getLogger(__name__)

PROJECT = "distill3d"
TENSORBOARD = "tensorboard"  # also the folder of its files


class Trackers:
    """Several trackers as one. Each is accelerate's; one that fails on the way is left out from then on.

    A run is worth more than its log: metrics.jsonl has the same numbers.
    """

    def __init__(self, trackers: Mapping[str, Any]):
        self.trackers = dict(trackers)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Note numbers of a step; mappings in it become names with slashes, what is no number is left out."""
        numbers = dict(flat(values))
        for name in list(self.trackers):
            self._attempt(name, "log", numbers, step=step)

    def close(self) -> None:
        """Write what is still held back. Nothing can be logged afterwards."""
        for name in list(self.trackers):
            self._attempt(name, "finish")
        self.trackers.clear()

    def _attempt(self, name: str, method: str, *arguments: Any, **named: Any) -> None:
        try:
            getattr(self.trackers[name], method)(*arguments, **named)
        except Exception as error:  # a full disk, a lost connection, whatever a third party raises
            logger.warning("Tracker %s fails and is left out from here on: %s. metrics.jsonl goes on.", name, error)
            del self.trackers[name]


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """("score/rms", 0.1) and so on: the numbers among the values, those of inner mappings under longer names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif isinstance(value, bool | int | float):
            yield prefix + name, float(value)


def check_trackers(names: Sequence[str]) -> None:
    """Refuse names that accelerate does not know, or whose packages are not here.

    Raises:
        UnknownNameError, MissingExtraError, ConfigError: what is wrong, and what to do.
    """
    kinds = _known() if names else {}
    for name in names:
        if name not in kinds:
            raise UnknownNameError("tracker", name, kinds)
        _check_installed(name)


def open_trackers(names: Sequence[str], folder: Path, config: Mapping[str, Any], *, step: int = 0) -> Trackers:
    """Open the trackers of these names, in the one process that logs.

    TensorBoard writes to `folder`/tensorboard. The others see to their own places and logins, by the variables and
    files that they document (WANDB_MODE=offline); nothing of those is read or written here.

    Args:
        config: settings of the run, noted once.
        step: the first that will be logged; TensorBoard forgets what it has of it and of later ones.
    Raises:
        UnknownNameError: for a name that accelerate does not know.
        MissingExtraError, ConfigError: without accelerate or the tracker's own package.
        RunError: if the folder cannot be written.
    """
    check_trackers(names)
    opened = Trackers({})
    if not names:
        return opened
    kinds = _known()
    try:
        for name in dict.fromkeys(names):
            opened.trackers[name] = _open(kinds[name], name, folder, config, step)
    except BaseException:
        opened.close()
        raise
    return opened


def _known() -> dict[str, Any]:
    """accelerate's trackers by name."""
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS
    except ImportError as error:
        raise MissingExtraError("A tracker", "track") from error
    return {str(name): kind for name, kind in LOGGER_TYPE_TO_CLASS.items()}


def _check_installed(name: str) -> None:
    from accelerate.tracking import get_available_trackers

    if name in map(str, get_available_trackers()):
        return
    if name == TENSORBOARD:
        raise MissingExtraError("The tracker 'tensorboard'", "track")
    raise ConfigError(f"The tracker {name!r} needs its own package. Install it with: pip install {name}")


def _open(kind: Any, name: str, folder: Path, config: Mapping[str, Any], step: int) -> Any:
    from accelerate import PartialState

    PartialState()  # accelerate's own logger asks for it
    settings = {key: value for key, value in config.items() if value is not None}
    if name == TENSORBOARD:
        with storing(folder / TENSORBOARD):
            tracker = kind(TENSORBOARD, folder, **({"purge_step": step} if step else {}))
            _start(tracker)
            if not step:  # as text: hyper-parameters would be a second run in another folder
                lines = (f"    {key}: {value}" for key, value in settings.items())
                tracker.log({"config": "\n".join(lines)}, step=0)
        return tracker
    options = {"name": folder.name, "dir": str(folder)} if name == "wandb" else {}
    tracker = kind(PROJECT, folder, **options) if kind.requires_logging_directory else kind(PROJECT, **options)
    _start(tracker)
    tracker.store_init_configuration(_plain(settings))
    return tracker


def _start(tracker: Any) -> None:
    tracker.main_process_only = False  # whoever opens it logs: which process that is, is decided by the caller
    if hasattr(tracker, "start"):  # older ones start when they are made
        tracker.start()


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and texts, which every tracker takes; whatever else as text."""
    return {key: v if isinstance(v, bool | int | float | str) else str(v) for key, v in settings.items()}
