"""How a run uses the CPU: threads, and numbers that are all but 0."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def on_cpu(threads: int | None, flush_denormal: bool) -> Iterator[None]:
    """Compute inside as a backbone's `RunDefaults` say."""
    with cpu_threads(threads), denormal_flushed(flush_denormal):
        yield


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Compute with so many CPU threads inside; a user's OMP_NUM_THREADS comes first, None leaves torch's number.

    Threads that share out little work wait for each other: where a core is busy with something else, a small network
    is several times slower on two threads than on one.
    """
    if number is None or "OMP_NUM_THREADS" in os.environ:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def denormal_flushed(wanted: bool) -> Iterator[None]:
    """Count numbers below 1e-38 as 0 inside; what was before comes back. Nothing happens if it is not wanted.

    Most CPUs compute with them a hundred times slower, and the gradients of a field are full of them: of samples
    behind a surface, and of densities that are an exponential far below 0.
    """
    if not wanted:
        yield
        return
    before = bool((torch.tensor([1e-40]) * 1.0 == 0).all())
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
