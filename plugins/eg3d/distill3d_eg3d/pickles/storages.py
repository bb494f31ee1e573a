"""The bytes of a storage, out of the old `torch.save` format that `_load_from_bytes` was given.

Five small pickles (a magic number, a version, the platform, the storage as a persistent id, the list of its one key),
then the number of elements in eight bytes, then the elements. The pickles go through the interpreter, and none of their
functions may be called.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError, shown
from distill3d_eg3d.pickles.limits import STORAGE_LIMITS, Budget
from distill3d_eg3d.pickles.machine import Machine
from distill3d_eg3d.pickles.records import Global, Record, StorageRef
from distill3d_eg3d.pickles.spans import Cursor, Span, opened

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
FORMAT_VERSION = 1001
STORAGE = Global("torch", "storage")  # how this file marks what a persistent id stands for
NO_STORAGE = f"it holds a tensor whose bytes are not an old torch.save of one storage. {DOWNLOAD}"
NO_SIZE = f"it holds a storage that is not as long as it says. {DOWNLOAD}"

DTYPES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "Untyped": torch.uint8,
}
STORAGE_TYPES = {
    f"{module}.{name}Storage": dtype
    for module in ("torch", "torch.cuda", "torch.storage")
    for name, dtype in DTYPES.items()
}


@dataclass(frozen=True)
class Storage:
    """Elements of one dtype, still in the file."""

    dtype: torch.dtype
    numel: int
    data: Span  # numel * dtype.itemsize bytes


def open_storage(reference: StorageRef, reading: Budget) -> Storage:
    """Read what is in front of a storage's elements; `reading` pays for bytes that have to be decoded.

    Raises:
        PickleError: if it is not one storage of a known dtype, or shorter or longer than it says.
    """
    blob = opened(reference.blob, reading)
    cursor = Cursor(blob, STORAGE_LIMITS)
    dtype, key, numel = _described(cursor)
    if _small_pickle(cursor) != [key]:
        raise PickleError(NO_STORAGE)
    start = cursor.tell() + 8
    if int.from_bytes(blob.read(cursor.tell(), 8), "little") != numel or blob.size - start != numel * dtype.itemsize:
        raise PickleError(NO_SIZE)
    return Storage(dtype, numel, Span(blob.file, blob.start + start, blob.size - start))


def _described(cursor: Cursor) -> tuple[torch.dtype, str, int]:
    """dtype, key and number of elements, out of the first four pickles."""
    magic, version, platform = _small_pickle(cursor), _small_pickle(cursor), _small_pickle(cursor)
    if magic != MAGIC_NUMBER or version != FORMAT_VERSION or not isinstance(platform, dict):
        raise PickleError(NO_STORAGE)
    if platform.get("little_endian") is not True:
        raise PickleError("it was written on a big-endian machine, which is not supported. Write it anew on another.")
    storage = _small_pickle(cursor)
    if not isinstance(storage, Record) or storage.kind != STORAGE:
        raise PickleError(NO_STORAGE)
    return _declared(storage.state)


def _small_pickle(cursor: Cursor) -> Any:
    return Machine(cursor, {}, STORAGE_LIMITS, lambda identity: Record(STORAGE, identity)).run()


def _declared(identity: Any) -> tuple[torch.dtype, str, int]:
    """Out of ("storage", type, key, location, numel, view); the location was a device of the writer."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise PickleError(NO_STORAGE)
    _, kind, key, _, numel = identity[:5]
    if not isinstance(kind, Global) or not isinstance(key, str) or type(numel) is not int or len(identity) > 6:
        raise PickleError(NO_STORAGE)
    if identity[5:] not in ((), (None,)):  # a view of another storage, as torch wrote it before 0.4
        raise PickleError(NO_STORAGE)
    if kind.dotted not in STORAGE_TYPES:
        raise PickleError(f"it holds a storage of the unknown type {shown(kind.dotted)}. {DOWNLOAD}")
    return STORAGE_TYPES[kind.dotted], key, numel
