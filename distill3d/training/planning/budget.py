"""How much memory there is, and how to tell that it was not enough."""

from __future__ import annotations

import os
import re

import torch

from distill3d.errors import ConfigError

GIB = 2**30
UNITS = {"gb": GIB, "gib": GIB, "g": GIB, "mb": 2**20, "mib": 2**20, "m": 2**20}  # as memory is sold: powers of two
RESERVED = {  # bytes that no step sees: interpreter and libraries; on a GPU also CUDA's context and workspaces
    "cpu": int(0.6 * GIB),  # measured: 0.44 after all imports; and some for code that is loaded later and unused pages
    "cuda": int(0.9 * GIB),  # assumed, not measured: context and libraries 0.5, workspaces and unused blocks 0.4
}


def parse_vram(text: str, device: torch.device | str) -> int:
    """Bytes: "8gb", "7.5GB", "8192mb", or "auto" for what this device has left now.

    Raises:
        ConfigError: for anything else.
    """
    said = text.strip().lower()
    if said == "auto":
        return available(torch.device(device))
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([a-z]+)", said)
    if not match or match[2] not in UNITS or float(match[1]) <= 0:
        raise ConfigError(f"--vram is a size such as 8gb, 7.5gb or 8192mb, or auto; got {text!r}.")
    return int(float(match[1]) * UNITS[match[2]])


def available(device: torch.device) -> int:
    """Bytes that are free on this device now; of a CPU, in the machine's memory.

    Raises:
        ConfigError: for a device that does not say.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        return _available_ram()
    raise ConfigError(f"{device} does not say how much memory is left; give a size, such as --vram 8gb.")


def _available_ram() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:  # Linux: caches that can be dropped count as free
            sizes = dict(line.split(":", 1) for line in lines)
        return int(sizes["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        raise ConfigError("This system does not say how much memory is left; give a size: --vram 8gb.") from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is a device's or the machine's memory that was not enough, however torch says so."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in said  # torch's CPU allocator
        or "CUDA out of memory" in said
        or "CUBLAS_STATUS_ALLOC_FAILED" in said
        or "CUDNN_STATUS_ALLOC_FAILED" in said
    )
