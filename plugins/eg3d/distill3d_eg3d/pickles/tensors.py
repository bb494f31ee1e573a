"""Tensors out of references: only here are weights read."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError, shown
from distill3d_eg3d.pickles.limits import Budget
from distill3d_eg3d.pickles.records import TensorRef
from distill3d_eg3d.pickles.storages import DTYPES, Storage, open_storage

LARGEST_NUMEL = 2**40
OUT_OF_BOUNDS = f"it holds a tensor that reaches beyond its storage. {DOWNLOAD}"
DTYPE_NAMES = {str(dtype): dtype for dtype in [*DTYPES.values(), torch.uint16, torch.uint32, torch.uint64]}


def read_tensor(reference: TensorRef, reading: Budget) -> Tensor:
    """The tensor, contiguous, in memory of its own; `reading` pays for its bytes.

    Raises:
        PickleError: if its storage is damaged, or it does not lie inside, or elements of it overlap.
    """
    storage = open_storage(reference.storage, reading)
    dtype = _dtype(reference, storage)
    if math.prod(max(size, 1) for size in reference.shape) > LARGEST_NUMEL:
        raise PickleError(OUT_OF_BOUNDS)
    if math.prod(reference.shape) == 0:
        return torch.empty(reference.shape, dtype=dtype)
    extent = _extent(reference)
    start, count = reference.offset * dtype.itemsize, extent * dtype.itemsize
    if start + count > storage.data.size:
        raise PickleError(OUT_OF_BOUNDS)
    reading.spend(count)
    flat = _elements(bytearray(storage.data.read(start, count)), dtype)
    return flat.as_strided(reference.shape, reference.stride).contiguous()


def _extent(reference: TensorRef) -> int:
    """How many elements of the storage the tensor spans; at least as many as it has, as they may not overlap."""
    extent = 1 + sum((size - 1) * stride for size, stride in zip(reference.shape, reference.stride))
    if math.prod(reference.shape) > extent:
        raise PickleError(f"it holds a tensor whose elements overlap, as no weight's do. {DOWNLOAD}")
    return extent


def _dtype(reference: TensorRef, storage: Storage) -> torch.dtype:
    if reference.dtype is None:
        return storage.dtype
    if reference.dtype.dotted not in DTYPE_NAMES:
        raise PickleError(f"it holds a tensor of the unknown type {shown(reference.dtype.dotted)}. {DOWNLOAD}")
    return DTYPE_NAMES[reference.dtype.dotted]


def _elements(content: bytearray, dtype: torch.dtype) -> Tensor:
    if dtype is torch.bool:  # a byte other than 0 and 1 is no bool
        return torch.frombuffer(content, dtype=torch.uint8) != 0
    return torch.frombuffer(content, dtype=dtype)
