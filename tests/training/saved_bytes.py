"""Live and peak bytes of the storages that autograd keeps, counted by hooks; weights are not counted."""

import weakref

import torch


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    def __init__(self, ignore):
        self.ignore = {t.untyped_storage().data_ptr() for t in ignore}
        self.count, self.live, self.peak = {}, 0, 0
        super().__init__(self._pack, self._unpack)

    def __enter__(self):
        super().__enter__()
        return self

    def _pack(self, tensor):
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

    def _drop(self, key, size):
        self.count[key] -= 1
        if not self.count[key]:
            self.live -= size

    @staticmethod
    def _unpack(saved):
        return saved.tensor if isinstance(saved, _Box) else saved


class _Box:
    def __init__(self, tensor):
        self.tensor = tensor
