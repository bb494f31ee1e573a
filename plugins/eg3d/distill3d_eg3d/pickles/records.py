"""What a pickle's objects become: inert records. Nothing here imports, calls or builds what it names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill3d_eg3d.pickles.spans import Blob


@dataclass(frozen=True)
class Global:
    """The name of a class, function or constant: two texts, never looked up."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, repr=False)  # by identity: records may nest deeper than a comparison can follow
class Record:
    """An object that was never made: the name of its class, and its state as it was pickled."""

    kind: Global
    state: Any = None

    def attributes(self) -> dict[Any, Any]:
        """The object's `__dict__`; empty if it was pickled in some other way."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # (__dict__, slots)
            state = state[0]
        return state if isinstance(state, dict) else {}


@dataclass(eq=False, repr=False)
class NumpyType:
    """A `numpy.dtype`: a code such as "f8", and a byte order, which its BUILD brings."""

    code: str
    order: str = "="


@dataclass(frozen=True, eq=False, repr=False)
class StorageRef:
    """The memory of tensors, as the bytes of an old `torch.save`; read only when one of the tensors is asked for."""

    blob: Blob


@dataclass(frozen=True, eq=False, repr=False)
class TensorRef:
    """A tensor that can be read from its storage."""

    storage: StorageRef
    offset: int  # in elements, as are the strides
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: Global | None = None  # where the storage does not say, such as torch.uint16
