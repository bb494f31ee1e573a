"""numpy's scalars, with which activations keep their gains. Arrays are inert: no network holds one."""

from __future__ import annotations

from typing import Any

import numpy as np

from distill3d_eg3d.pickles.arguments import at_least, checked, misused, text
from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError, shown
from distill3d_eg3d.pickles.limits import Budget
from distill3d_eg3d.pickles.machine import Call
from distill3d_eg3d.pickles.records import Global, NumpyType, Record
from distill3d_eg3d.pickles.spans import KEPT_BYTES, Blob, EncodedText, opened

SCALAR_CODES = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}
ORDERS = {"<", ">", "=", "|"}
MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")  # before numpy 2, and since


def dtype(arguments: tuple[Any, ...], opcodes: Budget) -> NumpyType:
    """A dtype, known by its code; `SCALAR_CODES` are those that a number can be read with."""
    return NumpyType(text(at_least(arguments, 1, "numpy.dtype")[0], "numpy.dtype"))


def scalar(arguments: tuple[Any, ...], opcodes: Budget) -> bool | int | float:
    """A Python number of a dtype and its bytes."""
    kind, content = at_least(arguments, 2, "numpy.scalar")
    checked(kind, NumpyType, "numpy.scalar")
    if kind.code not in SCALAR_CODES or kind.order not in ORDERS:
        raise PickleError(f"it holds a numpy number of the unknown kind {shown(kind.order + kind.code)}. {DOWNLOAD}")
    raw = _short_bytes(checked(content, (bytes, EncodedText), "numpy.scalar"))
    if len(raw) != int(kind.code[1:]):
        raise misused("numpy.scalar")
    return np.frombuffer(raw, dtype=kind.order + kind.code)[0].item()


def array(arguments: tuple[Any, ...], opcodes: Budget) -> Record:
    """An array, which nothing reads."""
    return Record(Global("numpy", "ndarray"))


def _short_bytes(content: Blob) -> bytes:
    if isinstance(content, EncodedText) and not (isinstance(content.text, str) and len(content.text) <= KEPT_BYTES):
        raise misused("numpy.scalar")
    span = opened(content, Budget(KEPT_BYTES, "bytes"))
    return span.read(0, span.size)


NUMPY_CALLS: dict[str, Call] = {
    "numpy.dtype": dtype,
    **{f"{module}.scalar": scalar for module in MODULES},
    **{f"{module}._reconstruct": array for module in MODULES},
    **{f"{module}._frombuffer": array for module in ("numpy.core.numeric", "numpy._core.numeric")},
}
