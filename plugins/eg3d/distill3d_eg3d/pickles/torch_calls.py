"""torch's tensors and storages. A tensor becomes a reference to its storage, and a storage one to its bytes."""

from __future__ import annotations

from typing import Any

from distill3d_eg3d.pickles.arguments import at_least, checked, misused, size, sizes
from distill3d_eg3d.pickles.limits import Budget
from distill3d_eg3d.pickles.machine import Call
from distill3d_eg3d.pickles.records import Global, Record, StorageRef, TensorRef
from distill3d_eg3d.pickles.spans import EncodedText, Span

Arguments = tuple[Any, ...]


def storage(arguments: Arguments, opcodes: Budget) -> StorageRef:
    """`_load_from_bytes`, which unpickles its argument: here the bytes are only kept, or rather where they are."""
    name = "torch.storage._load_from_bytes"
    return StorageRef(checked(at_least(arguments, 1, name)[0], (bytes, Span, EncodedText), name))


def tensor(arguments: Arguments, opcodes: Budget) -> TensorRef:
    """A tensor of (storage, offset, shape, stride, ...); `requires_grad` and hooks mean nothing here."""
    name = "torch._utils._rebuild_tensor"
    memory, offset, shape, stride = at_least(arguments, 4, name)
    checked(memory, StorageRef, name)
    shape, stride = sizes(shape, name), sizes(stride, name)
    if len(shape) != len(stride):
        raise misused(name)
    return TensorRef(memory, size(offset, name), shape, stride)


def typed_tensor(arguments: Arguments, opcodes: Budget) -> TensorRef:
    """A tensor of (storage, offset, shape, stride, requires_grad, hooks, dtype, ...)."""
    name = "torch._utils._rebuild_tensor_v3"
    kind = checked(at_least(arguments, 7, name)[6], Global, name)
    plain = tensor(arguments, opcodes)
    return TensorRef(plain.storage, plain.offset, plain.shape, plain.stride, kind)


def parameter(arguments: Arguments, opcodes: Budget) -> TensorRef:
    """A parameter is its tensor here."""
    name = "torch._utils._rebuild_parameter"
    return checked(at_least(arguments, 1, name)[0], TensorRef, name)


def device(arguments: Arguments, opcodes: Budget) -> Record:
    """The device that a network was on, which nothing reads."""
    return Record(Global("torch", "device"))


def layout(arguments: Arguments, opcodes: Budget) -> Record:
    """A memory layout, which nothing reads."""
    return Record(Global("torch", "layout"))


TORCH_CALLS: dict[str, Call] = {
    "torch.storage._load_from_bytes": storage,
    "torch._utils._rebuild_tensor": tensor,  # before torch 0.4
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": typed_tensor,
    "torch._utils._rebuild_parameter": parameter,
    "torch._utils._rebuild_parameter_with_state": parameter,
    "torch.device": device,
    "torch.serialization._get_layout": layout,
}
