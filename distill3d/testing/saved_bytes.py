"""What autograd keeps, in bytes."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the storages that autograd keeps inside a `with` block: `live` now, `peak` at most.

    A storage counts once, however many operations keep it.

    Args:
        ignore: tensors that are there anyway, as weights.
    """

    def __init__(self, ignore: Iterable[Tensor] = ()):
        self.ignore = {t.untyped_storage().data_ptr() for t in ignore}
        self.count: dict[int, int] = {}
        self.live = self.peak = 0
        super().__init__(self._pack, self._unpack)

    def __enter__(self) -> SavedBytes:  # type: ignore[override]
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> Tensor | _Box:
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in self.ignore:
            return tensor
        if not self.count.get(key):
            self.live += size
            self.peak = max(self.peak, self.live)
        self.count[key] = self.count.get(key, 0) + 1
        box = _Box(tensor)
        weakref.finalize(box, self._drop, key, size)
        return box

    def _drop(self, key: int, size: int) -> None:
        self.count[key] -= 1
        if not self.count[key]:
            self.live -= size

    @staticmethod
    def _unpack(saved: Tensor | _Box) -> Tensor:
        return saved.tensor if isinstance(saved, _Box) else saved


class _Box:
    """Lives as long as autograd keeps what is in it."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor
