"""A large file over HTTP: resumed where it broke off, there whole or not at all."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import cast

from distill3d.errors import WeightsError
from distill3d.files import sha256, storing

BLOCK = 1 << 20
Progress = Callable[[int, int | None], None]  # bytes that are here, of how many (None: the server did not say)


def download(
    url: str, target: Path, *, checksum: str | None = None, progress: Progress = lambda here, total: None
) -> None:
    """Fetch `url` to `target`; what a broken download left is used.

    Args:
        checksum: sha256 that the file must have.
    Raises:
        WeightsError: without a connection, for a refused or short download, or for another checksum.
        RunError: if the file cannot be written.
    """
    part = target.with_name(target.name + ".part")
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        _continue(url, part, progress)
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        kept = f" {part.stat().st_size} bytes are kept, and used by the next try." if part.exists() else ""
        reason = getattr(error, "reason", error)
        raise WeightsError(f"{url} could not be downloaded: {reason}.{kept}") from error
    if checksum is not None and sha256(part) != checksum:
        part.unlink()
        raise WeightsError(f"What came from {url} is not the published file: its sha256 is not {checksum}.")
    with storing(target):
        os.replace(part, target)


def _continue(url: str, part: Path, progress: Progress) -> None:
    here = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})
    try:
        response = cast(HTTPResponse, urllib.request.urlopen(request, timeout=60))
    except urllib.error.HTTPError as error:
        if error.code == 416 and here:  # nothing is missing, or the file has changed: only a new start can tell
            part.unlink()
            return _continue(url, part, progress)
        raise
    with response:
        begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
        if here and (response.status != 206 or begins != str(here)):
            here = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        total = here + int(length) if length is not None else None
        with storing(part):
            file = part.open("ab" if here else "wb")
        with file:
            while block := response.read(BLOCK):  # outside of `storing`: a broken line is no fault of the disk
                with storing(part):
                    file.write(block)
                here += len(block)
                progress(here, total)
    if total is not None and here < total:
        raise ConnectionError(f"it ended after {here} of {total} bytes")
