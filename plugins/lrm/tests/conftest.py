"""One thread: two on a busy machine are many times slower."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, also for child processes

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
