"""The one error of the reader, and how it shows what a file says."""

from __future__ import annotations

from distill3d.errors import WeightsError


class PickleError(WeightsError):
    """A checkpoint pickle that is damaged, is something else, or holds what a generator's pickle does not."""


REPORT = "Nothing of it was executed. Get the file from its publisher; if it comes from there, report this name."
DOWNLOAD = "Download it again."


def shown(text: object) -> str:
    """A name out of a file, quoted for a message: ASCII, without control characters, at most 80 characters of it."""
    if not isinstance(text, str):
        return f"a value of type {type(text).__name__}"
    return ascii(text if len(text) <= 80 else text[:77] + "...")
