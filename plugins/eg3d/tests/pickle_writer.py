"""Writes small training pickles of the official structure, and pickles that say anything at all.

A pickler writes the names that it is told, whether they exist or not; everything else is the standard pickler's and
torch's own work, so the tests read what torch writes.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

PERSISTENT = {"TriPlaneGenerator", "StyleGAN2Backbone", "SynthesisLayer", "FullyConnectedLayer", "DualDiscriminator"}
PLANES = torch.tensor(
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]
).float()
OPTIONS = {"depth_resolution": 12, "ray_start": 2.25, "white_back": False, "gpc_reg_prob": None, "pivot": [0, 0, 0.2]}
OLD_SPELLINGS = {
    "numpy._core.multiarray.scalar": "numpy.core.multiarray.scalar",
    "torch._utils._rebuild_tensor_v2": "torch._utils._rebuild_tensor",
}


@dataclass(eq=False)
class Name:
    """A global, as written."""

    module: str
    name: str

    def __call__(self) -> None:
        """The pickler asks for a function; it never calls it."""


@dataclass(eq=False)
class Call:
    """REDUCE of a function, and BUILD where a state is given."""

    function: Any
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __call__(self) -> None:
        """As of `Name`: a call may give the function of another."""


@dataclass(eq=False)
class New:
    """NEWOBJ of a class, filled by SETITEMS where items are given, and BUILD where a state is."""

    kind: Name
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)


class Writer(pickle._Pickler):  # the one in Python: the one in C cannot be told names
    """A pickler that respells names; modules become what the official code makes of them."""

    def __init__(self, file: io.BytesIO, protocol: int, spellings: dict[str, str]):
        super().__init__(file, protocol)
        self.spellings = spellings
        self.written: dict[int, Call | New] = {}  # by id of the module, which is pickled once

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if id(obj) in self.memo or not isinstance(obj, Name | Call | New | nn.Module):
            super().save(obj, save_persistent_id)
        elif isinstance(obj, Name):
            self._save_name(obj, obj.module, obj.name)
        elif isinstance(obj, Call):
            self.save_reduce(obj.function, obj.arguments, obj.state, obj=obj)
        elif isinstance(obj, New):
            self._save_new(obj)
        else:
            self._save_module(obj)

    def save_global(self, obj: Any, name: str | None = None) -> None:
        dotted = f"{getattr(obj, '__module__', '')}.{getattr(obj, '__name__', '')}"
        if dotted in self.spellings:
            self._save_name(obj, *self.spellings[dotted].rsplit(".", 1))
        else:
            super().save_global(obj, name)

    def _save_name(self, obj: Any, module: str, name: str) -> None:
        if self.proto >= 4:
            super().save(module)
            super().save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(obj)

    def _save_new(self, obj: New) -> None:
        self.save(obj.kind)
        self.save(())
        self.write(pickle.NEWOBJ)
        self.memoize(obj)
        self._batch_setitems(*([obj.items.items(), obj] if _takes_object(self) else [obj.items.items()]))
        if obj.state is not None:
            self.save(obj.state)
            self.write(pickle.BUILD)

    def _save_module(self, module: nn.Module) -> None:
        self.save(self.written.setdefault(id(module), as_pickled(module)))

    dispatch: ClassVar[dict[Any, Any]] = {**pickle._Pickler.dispatch, FunctionType: save_global}


def _takes_object(writer: Writer) -> bool:
    return writer._batch_setitems.__code__.co_argcount == 3  # since Python 3.14


def dumped(value: Any, protocol: int = 4, spellings: dict[str, str] | None = None) -> bytes:
    """A pickle of `value`."""
    file = io.BytesIO()
    Writer(file, protocol, spellings or {}).dump(value)
    return file.getvalue()


def as_pickled(module: nn.Module) -> Call | New:
    """A module as the official code pickles it: persistent ones with their source, others by name."""
    name, state = type(module).__name__, dict(module.__dict__)
    if name in PERSISTENT:
        return persistent(name, {**state, "_init_args": (), "_init_kwargs": state.get("_init_kwargs", {})})
    places = {"Sequential": "torch.nn.modules.container", "Softplus": "torch.nn.modules.activation"}
    return New(Name(places.get(name, "training.triplane"), name), state)


def persistent(class_name: str, state: dict[str, Any], source: str = "raise SystemExit('executed')") -> Call:
    """A persistent network of that state."""
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
    return Call(Name("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))


def easy_dict(items: dict[str, Any]) -> New:
    """The official code's dict with attributes."""
    return New(Name("dnnlib.util", "EasyDict"), items=items)


class FullyConnectedLayer(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.weight_gain = np.float64(0.25)
        self.activation = "linear"


class SynthesisLayer(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.affine = FullyConnectedLayer(6, channels)
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3).to(memory_format=torch.channels_last))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("resample_filter", torch.outer(torch.ones(4), torch.ones(4)))
        self.register_buffer("scratch", torch.ones(3), persistent=False)
        self.register_buffer("absent", None)
        self.register_parameter("unused", None)


class StyleGAN2Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b4 = SynthesisLayer(5)
        self.register_buffer("counts", torch.arange(6).reshape(2, 3)[:, 1:])  # int64, strided, with an offset
        self.register_buffer("halves", torch.randn(3).half())
        self.register_buffer("flags", torch.tensor([True, False, True]))


class OSGDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(FullyConnectedLayer(4, 8), nn.Softplus(), FullyConnectedLayer(8, 3))


class ImportanceRenderer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plane_axes = PLANES.clone()


class TriPlaneGenerator(nn.Module):
    """As small as a generator can be and still have every kind of thing that the official one has."""

    def __init__(self) -> None:
        super().__init__()
        self.z_dim = 32
        self.renderer = ImportanceRenderer()
        self.backbone = StyleGAN2Backbone()
        self.decoder = OSGDecoder()
        self.neural_rendering_resolution = 32
        self.rendering_kwargs: Any = {**OPTIONS, "depth_resolution": 24}
        self._last_planes = None
        self._init_kwargs: Any = {
            "z_dim": 32,
            "rendering_kwargs": dict(OPTIONS),
            "sr_kwargs": {"channel_max": np.float32(4)},
        }


class DualDiscriminator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = FullyConnectedLayer(16, 1)


def generator(seed: int = 0) -> TriPlaneGenerator:
    """A generator with seeded weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TriPlaneGenerator()


def snapshot(ema: Any = None, **changes: Any) -> dict[str, Any]:
    """A training snapshot, what the official trainer pickles; `changes` replace or add entries."""
    parts = {"training_set_kwargs": easy_dict({"path": "images.zip", "xflip": True}), "G": generator(1)}
    parts |= {"D": DualDiscriminator(), "G_ema": ema or generator(), "augment_pipe": None}
    return parts | changes
