"""What can go wrong, said in one sentence: what was wrong, what was given, what to do.

The command line prints these and exits with 1; everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Distill3dError(Exception):
    """Base of all errors that a user can mend."""


class ConfigError(Distill3dError):
    """A setting that cannot be used."""


class UnknownNameError(ConfigError):
    """No style, backbone, method or scorer of that name."""

    def __init__(self, kind: str, name: str, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(f"No {kind} is called {name!r}. Installed: {', '.join(known) or 'none'}.{hint}")


class ShapeError(Distill3dError):
    """A tensor whose shape does not fit."""


class WeightsError(Distill3dError):
    """A weight file that is missing, damaged, or made for something else."""


class RunError(Distill3dError):
    """A run folder that cannot be written, read or continued."""


class PackError(Distill3dError):
    """A style pack that cannot be read, trusted or used."""


class HubError(Distill3dError):
    """What the Hugging Face Hub refused, or could not be asked."""


class PromptError(Distill3dError):
    """A prompt that the text encoder cannot understand."""


class DivergedError(Distill3dError):
    """Too many steps in a row without a finite gradient."""


class MissingExtraError(Distill3dError):
    """An optional package that is not installed."""

    def __init__(self, what: str, extra: str):
        super().__init__(f"{what} needs an optional package. Install it with: pip install 'distill3d[{extra}]'")
