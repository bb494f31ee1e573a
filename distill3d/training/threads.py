"""How many CPU threads a run uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


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
