"""A step played through without numbers: tensors on the meta device have shapes and no memory.

What a program allocates and releases, and when, is followed as it happens, so the most that is alive at one moment
comes out without an estimate. The device that is planned for is played by "meta", the host by the CPU.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from distill3d.training.planning.results import Results

DeviceKind = Literal["cpu", "cuda"]
aten = torch.ops.aten


class Rehearsal(TorchDispatchMode):
    """Follows every storage on the meta device from its making to its release, and counts operations.

    Where a program reads a value (a branch, a picture for OpenCV), it reads zero; where the values decide how many
    elements there are (indexing by a mask), all of them are taken: a bound, not a count.

    Args:
        spare: bytes beside results that a kernel needs while it runs; see `kernels`.
        on_change: told the bytes that are alive after every operation of the device, scratch memory included.
        on_flops: told the operations of a convolution or matrix product, and their dtype.
    """

    def __init__(
        self,
        spare: Callable[[Any, Sequence[Any], Any], int] = lambda func, args, out: 0,
        on_change: Callable[[int], None] = lambda live: None,
        on_flops: Callable[[int, torch.dtype], None] = lambda flops, dtype: None,
    ):
        super().__init__()
        self.spare, self.on_change, self.on_flops = spare, on_change, on_flops
        self.sizes: dict[int, int] = {}  # of the storages that are alive, by their address
        self.live = 0
        self.results = Results()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch's own guard against being compiled, which costs more than the rest of an operation

    def hold(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were there before, as weights; each storage once."""
        for tensor in tensors:
            self._follow(tensor)

    def add(self, size: int) -> None:
        """Count bytes that come to the device, or leave it (negative), without a tensor being made."""
        self.live += size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = self._run(func, args, kwargs)
        on_device = False
        for tensor in _tensors_in((out,)):
            if tensor.is_meta:
                on_device = True
                self._follow(tensor)
        if on_device and self.results.kind(func) != "view":
            self.on_change(self.live + self.spare(func, args, out))
        return out

    def _run(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return torch.zeros((), dtype=args[0].dtype).item()
        if func is aten._to_copy.default and args[0].is_meta and _to_host(kwargs):
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if func is aten.nonzero.default and args[0].is_meta:
            return torch.empty(args[0].numel(), args[0].ndim, dtype=torch.int64, device="meta")
        given = list(_tensors_in(args)) + list(_tensors_in(tuple(kwargs.values())))
        on_device = sum(tensor.is_meta for tensor in given)
        if not on_device and not _makes_meta(kwargs):
            return func(*args, **kwargs)
        if on_device < len(given) and func not in (aten._to_copy.default, aten.copy_.default):
            args, kwargs = tree_map_only(Tensor, _on_meta, (args, kwargs))
        if func is aten.index.Tensor:
            args = (args[0], _numbered(args[1]))
        out = self.results.of(func, args, kwargs)
        count = FLOPS.get(func._overloadpacket) if given else None
        if count is not None:
            self.on_flops(int(count(*args, **kwargs, out_val=out)), given[0].dtype)
        return out

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes()
        self.live += storage.nbytes()
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.live -= self.sizes.pop(key, 0)


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)


def _makes_meta(kwargs: Any) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "meta"


def _to_host(kwargs: Any) -> bool:
    return kwargs.get("device") is not None and torch.device(kwargs["device"]).type == "cpu"


def _on_meta(tensor: Tensor) -> Tensor:
    """Numbers of the host that meet a tensor of the device, as tables of a schedule do."""
    return tensor if tensor.is_meta or tensor.ndim == 0 else torch.empty_like(tensor, device="meta")


def _numbered(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Masks as the numbers of all elements."""
    found: list[Tensor | None] = []
    for index in indices:
        if index is not None and index.dtype in (torch.bool, torch.uint8):
            number = torch.empty(index.numel(), dtype=torch.int64, device="meta")
            found.extend([number] * index.ndim)
        else:
            found.append(index)
    return found


@contextmanager
def uncollected() -> Iterator[None]:
    """Without automatic garbage collection: when it comes depends on all that this process ever made, and what is held
    by circles would be released sometimes and sometimes not."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def played(kind: DeviceKind) -> Iterator[None]:
    """Let tensors on meta be taken for ones of the device that is planned for.

    Attention is the fused kernel that keeps no matrix of all pairs, as CPUs and GPUs have it; on meta torch takes the
    literal one. Names are replaced for as long as this lasts, for meta tensors only: a mode of torch's would not be
    there in what a backward computes again.
    """
    attention = F.scaled_dot_product_attention

    def fused(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return (_fused_attention if query.is_meta else attention)(query, *args, **kwargs)

    F.scaled_dot_product_attention = fused
    if kind == "cuda":
        torch.Tensor.is_cuda = property(lambda tensor: tensor.is_meta or _is_cuda(tensor))  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = attention
        if kind == "cuda":
            del torch.Tensor.is_cuda  # what it inherits again


_is_cuda = torch._C.TensorBase.is_cuda.__get__  # type: ignore[attr-defined]


def _fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.empty_like(attn_mask, dtype=query.dtype)
    fused = aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, 0.0, is_causal, attn_mask=attn_mask, scale=scale)[0]


def _attention_flops(query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward_flops(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> int:
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


FLOPS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
