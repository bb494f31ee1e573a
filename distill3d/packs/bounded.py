"""A safetensors file that somebody else wrote: nothing of it is read before its size is known to be sane."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from distill3d.errors import PackError
from distill3d.packs.config import ADAPTER, CONFIG, FILES

# A header has some 100 bytes for each tensor, so this holds ten thousand; the largest backbones have some hundred,
# and a pack three entries for each. safetensors itself would read 100 MB.
LARGEST_HEADER = 1 << 20
MOST_TENSORS, MOST_AXES = 10_000, 8
LENGTH = 8  # bytes that tell the header's
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I8": torch.int8}


def read_adapter(path: Path, *, sha256: str, size: int, source: str) -> dict[str, Tensor]:
    """The tensors of adapter.safetensors.

    The file is read once, and the very bytes that have the checksum become the tensors: memory holds them once, and
    nobody can exchange the file between check and use.

    Args:
        sha256: of the file, as config.json has it.
        size: in bytes, likewise.
        source: the pack's name, for errors.
    Raises:
        PackError: if the file is not there, is not the one that was meant, or is damaged in any way.
    """
    _check_size(path, size, source)
    try:
        with path.open("rb") as file:
            header = _read_header(file, size, source)
            _check_entries(header.entries, size - len(header.content), source)
            buffers, found = _read_numbers(file, header, source)
    except OSError as error:
        raise PackError(f"The {ADAPTER} of {source} cannot be read: {error.strerror}.") from error
    if found != sha256:
        raise PackError(
            f"The {ADAPTER} of {source} is not the one that its {CONFIG} tells of: its sha256 is another. Pull the "
            "pack again; if that does not help, do not trust it."
        )
    tensors = {name: _tensor(buffers[name], entry) for name, entry in header.entries.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise PackError(f"{name!r:.100} in {source} holds numbers that are not finite; do not use this pack.")
    return tensors


def _check_size(path: Path, size: int, source: str) -> None:
    """The file is there, and as large as was said; what is said is no larger than packs are."""
    if size > FILES[ADAPTER]:
        raise PackError(f"The {ADAPTER} of {source} would have {size} bytes; packs have at most {FILES[ADAPTER]}.")
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise PackError(f"{source} has no {ADAPTER}; pull the pack again.") from error
    if not stat.S_ISREG(found.st_mode):
        raise PackError(f"The {ADAPTER} of {source} is no file; pull the pack again.")
    if found.st_size != size:
        raise PackError(
            f"The {ADAPTER} of {source} has {found.st_size} bytes, and its {CONFIG} says {size}; pull the pack again."
        )


@dataclass(frozen=True)
class _Header:
    entries: Mapping[str, Any]  # without __metadata__
    content: bytes  # all that stands before the numbers


def _read_header(file: BufferedReader, size: int, source: str) -> _Header:
    beginning = file.read(LENGTH)
    length = int.from_bytes(beginning, "little")
    if size < LENGTH or length > size - LENGTH:
        raise _damaged(source, "its header is longer than the file")
    if length > LARGEST_HEADER:
        raise _damaged(source, f"its header has {length} bytes, at most {LARGEST_HEADER} are allowed")
    text = file.read(length)
    try:
        if not text.startswith(b"{"):
            raise ValueError("it is no table")
        header = json.loads(text.decode(), object_pairs_hook=_without_doubles, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _damaged(source, f"its header cannot be read, {reason:.100}") from error
    metadata = header.pop("__metadata__", {})
    if not (isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())):
        raise _damaged(source, "its __metadata__ is more than texts")
    return _Header(header, beginning + text)


def _without_doubles(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{name!r:.60} stands in it twice")
        table[name] = value
    return table


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _check_entries(entries: Mapping[str, Any], length: int, source: str) -> None:
    """Every tensor of a dtype that weights have, as long as its shape, and all of them together the whole buffer."""
    if len(entries) > MOST_TENSORS:
        raise _damaged(source, f"it has {len(entries)} tensors, at most {MOST_TENSORS} are allowed")
    spans = []
    for name, entry in entries.items():
        begin, end = _span(name, entry, source)
        spans.append((begin, end, name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            fault = "overlaps the tensor before it" if begin < at else "leaves a hole before it"
            raise _damaged(source, f"{name!r:.100} {fault}")
        at = end
    if at != length:
        raise _damaged(source, f"its tensors take {at} bytes, and it has {length} for them")


def _span(name: str, entry: Any, source: str) -> tuple[int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _damaged(source, f"{name!r:.100} is not told of by dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _damaged(source, f"{name!r:.100} has dtype {dtype!r:.40}, it must be one of {', '.join(DTYPES)}")
    if not _are_sizes(shape) or len(shape) > MOST_AXES:
        raise _damaged(
            source, f"{name!r:.100} has shape {shape!r:.60}, it must be at most {MOST_AXES} whole numbers from 0"
        )
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _damaged(source, f"{name!r:.100} lies at {offsets!r:.60}, that must be two whole numbers from 0")
    begin, end = offsets
    if end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise _damaged(source, f"{name!r:.100} has {end - begin} bytes, its shape and dtype need another number")
    return begin, end


def _read_numbers(file: BufferedReader, header: _Header, source: str) -> tuple[dict[str, bytearray], str]:
    """What follows the header, tensor by tensor in the order of the file; and the sha256 of header and numbers."""
    digest, buffers = hashlib.sha256(header.content), {}
    for name, entry in sorted(header.entries.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        buffers[name] = bytearray(end - begin)
        if file.readinto(buffers[name]) != end - begin:
            raise _damaged(source, "it became shorter while it was read")
        digest.update(buffers[name])
    return buffers, digest.hexdigest()


def _tensor(buffer: bytearray, entry: Mapping[str, Any]) -> Tensor:
    """On the buffer's own memory. As of safetensors, numbers are little-endian, and so is what PyTorch runs on."""
    dtype = DTYPES[entry["dtype"]]
    numbers = torch.frombuffer(buffer, dtype=dtype) if buffer else torch.empty(0, dtype=dtype)
    return numbers.reshape(entry["shape"])


def _are_sizes(values: Any) -> bool:
    """A list of whole numbers from 0; True and 1.0 are none."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 1 << 53 for value in values)


def _damaged(source: str, what: str) -> PackError:
    return PackError(f"The {ADAPTER} of {source} is damaged: {what}. Pull the pack again.")
