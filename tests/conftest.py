"""One thread: two on a busy machine are many times slower."""

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, also for child processes

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Folders of a zombie and a pixar of the embedded world, default runs: five CPU minutes, for slow tests.

    With DISTILL3D_TRAINED=DIR they are DIR/zombie and DIR/pixar, which are there.
    """
    from distill3d.config import DistillConfig
    from distill3d.recipe import distill

    given = os.environ.get("DISTILL3D_TRAINED")
    if given:
        return Path(given) / "zombie", Path(given) / "pixar"
    folder = tmp_path_factory.mktemp("trained")
    return tuple(distill(DistillConfig(style=style), folder / style) for style in ("zombie", "pixar"))


@pytest.fixture(scope="module")
def photo_toys():
    """The toys of tests/toys.py are installed as backbones, as a plugin's would be."""
    from tests.photo_runs import photo_toy_is_installed

    with photo_toy_is_installed():
        yield
