"""What costs seconds a photo and never changes, computed once: in memory, and on disk for the next run."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill3d.errors import RunError
from distill3d.files import user_cache, written_aside

logger = logging.getLogger(__name__)
MEMORY = 1_000_000_000  # bytes; TripoSR's image tokens are 3 MB a photo, its planes 2 MB
DISK = 4_000_000_000
OURS = re.compile(r"[0-9a-f]{64}\.safetensors")
LEFT_BEHIND = re.compile(r"\.[0-9a-f]{64}\.safetensors\.part\d+\.safetensors")  # by a program that was ended
LEFT_AFTER = 3600.0  # seconds until a part counts as left behind


class CodeCache:
    """Tensors by key: the same bits that were computed.

    Both places are bounded, and what was not used for longest goes first. A file that is damaged or of something
    else is computed again; a folder that cannot be written is read all the same, and gets one warning.
    """

    def __init__(self, folder: Path | None = None, *, memory: int = MEMORY, disk: int = DISK):
        """`folder` None keeps nothing on disk; `memory` and `disk` are bytes."""
        self.folder = folder
        self.memory = memory
        self.disk = disk
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._writes = folder is not None
        self._lock = threading.RLock()

    def __deepcopy__(self, memo: dict[int, Any]) -> CodeCache:
        """Itself: copies of a renderer share what they need not compute twice."""
        return self

    def get(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor of that key, on the CPU and without a gradient; the caller may change it.

        Args:
            key: names everything that the tensor depends on; see `checksum`.
            compute: called, without recording gradients, only if the key is nowhere. What it raises is passed on.
        """
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                found = self._read(key)
            if found is None:
                with torch.no_grad():
                    found = compute().detach().cpu().contiguous()
                self._write(key, found)
            self._keep(key, found)
            return found.clone()

    def _keep(self, key: str, tensor: Tensor) -> None:
        self._kept[key] = tensor
        self._kept.move_to_end(key)
        used = sum(kept.nbytes for kept in self._kept.values())
        while used > self.memory:
            used -= self._kept.popitem(last=False)[1].nbytes

    def _read(self, key: str) -> Tensor | None:
        if self.folder is None:
            return None
        path = _file(self.folder, key)
        try:
            with safe_open(path, framework="pt") as content:
                noted, tensor = content.metadata() or {}, content.get_tensor("code")
        except Exception as error:  # missing, damaged, or no such file at all
            logger.debug("%s was not read: %s", path, error)
            return None
        if noted != _notes(key, tensor):
            return None
        try:
            os.utime(path)  # used just now, so it is not the next to go
        except OSError as error:
            logger.debug("%s was not touched: %s", path, error)
        return tensor

    def _write(self, key: str, tensor: Tensor) -> None:
        if self.folder is None or not self._writes or tensor.nbytes > self.disk:
            return
        try:
            with written_aside(_file(self.folder, key)) as aside:
                save_file({"code": tensor}, aside, metadata=_notes(key, tensor))
            _bound(self.folder, self.disk)
        except (RunError, OSError) as error:
            self._writes = False
            reason = error.__cause__ or error
            logger.warning("Codes of photos are not kept in %s: %s. They are computed again.", self.folder, reason)


def checksum(tensors: Iterable[Tensor]) -> str:
    """SHA-256 of contents, shapes and types in order, in hexadecimal; equal bits give equal sums on every device."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where downloads, conversions and codes are kept: $DISTILL3D_CACHE, else ~/.cache/distill3d."""
    return user_cache("lrm")


def _file(folder: Path, key: str) -> Path:
    return folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def _notes(key: str, tensor: Tensor) -> dict[str, str]:
    return {"key": key, "checksum": checksum([tensor])}


def _bound(folder: Path, size: int) -> None:
    """Remove our oldest files until the rest fits; nobody else's."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            left = LEFT_BEHIND.fullmatch(entry.name)
            if not left and not OURS.fullmatch(entry.name):
                continue
            try:
                about = entry.stat()
            except FileNotFoundError:  # another run was quicker
                continue
            if left and time.time() - about.st_mtime > LEFT_AFTER:
                Path(entry.path).unlink(missing_ok=True)
            elif not left:
                files.append((about.st_mtime_ns, about.st_size, entry.path))
    used = sum(length for _, length, _ in files)
    for _, length, path in sorted(files):
        if used <= size:
            return
        Path(path).unlink(missing_ok=True)
        used -= length
