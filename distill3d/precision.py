"""The arithmetic of a scorer's networks, by name. Imports torch only when asked what a name means on a device."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from distill3d.errors import ConfigError

if TYPE_CHECKING:
    import torch

_DTYPES = {
    # the UNet's and ControlNets' and text encoder's, then the autoencoder's
    "float32": ("float32", "float32"),
    "half": ("float16", "bfloat16"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "float16": ("float16", "float32"),
}
PRECISIONS = tuple(_DTYPES)


class Dtypes(NamedTuple):
    """What networks compute in, whatever they are given and return.

    The difference of two branches, which guidance multiplies by 7.5, needs float16's eleven bits; no gradient goes
    through these networks. One goes through the autoencoder's encoder, and needs bfloat16's range.
    """

    networks: torch.dtype  # UNet, ControlNets, text encoder
    autoencoder: torch.dtype


def check_precision(precision: str) -> None:
    """Raise a ConfigError unless it is one of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ConfigError(
            f"precision is {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, got {precision!r}. It is that of the "
            "scorer's networks; what is trained stays in float32."
        )


def dtypes_of(precision: str) -> Dtypes:
    """What that name means.

    Raises:
        ConfigError: if it is not one of `PRECISIONS`.
    """
    import torch

    check_precision(precision)
    return Dtypes(*(getattr(torch, name) for name in _DTYPES[precision]))


def best_precision(device: str) -> str:
    """What a run on this device uses unless told otherwise: half on a GPU that has bfloat16, else float32.

    On a CPU half precision is not always faster, and published tables are float32's.
    """
    import torch

    where = torch.device(device)
    if where.type != "cuda" or not torch.cuda.is_available():
        return "float32"
    with torch.cuda.device(where):
        return "half" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
