"""The arithmetic of a scorer's networks, by name. Imports torch only when asked what a device can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill3d.errors import ConfigError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "bfloat16", "float16")


def check_precision(precision: str) -> None:
    """Raise a ConfigError unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision is {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {precision!r}. It is that of the "
            "scorer's networks; what is trained stays in float32."
        )


def dtype_of(precision: str) -> torch.dtype:
    """The dtype of that name.

    Raises:
        ConfigError: if it is not one of `PRECISIONS`.
    """
    import torch

    check_precision(precision)
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def best_precision(device: str) -> str:
    """What a run on this device uses unless told otherwise: bfloat16 on a GPU that computes in it, else float32.

    float16 is never chosen: it must be asked for, since its networks can overflow. On a CPU half precision is not
    always faster, and published tables are float32's.
    """
    import torch

    where = torch.device(device)
    if where.type != "cuda" or not torch.cuda.is_available():
        return "float32"
    with torch.cuda.device(where):
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
