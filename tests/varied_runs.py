"""Two runs to mix. The second is the first's folder with other trained tensors: each run of its own takes seconds."""

import json
import shutil
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill3d.config import DistillConfig
from distill3d.files import sha256
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill
from distill3d.renderer import Parted
from tests.toys import ToyTriplane


class PartedToy(ToyTriplane, Parted):
    """The toy whose planes are geometry; what makes colours of them is texture."""

    def part_of(self, name):
        return "geometry" if name.startswith("layers.") else "texture"


def load_parted_toy(weights=None, device="cpu"):
    """As a plugin would offer it."""
    torch.manual_seed(1)
    return PartedToy().to(device)


def plain_run(config, folder):
    """A run without the pictures and the report that it is shown by, which take longer than a few steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill3d.recipe.write_report", lambda folder: None)
        for picture in ("preview", "sheet", "turntable"):
            patch.setattr(f"distill3d.showcase.Showcase.{picture}", lambda self, *step: None)
        return distill(config, folder)


@contextmanager
def two_runs(folder):
    """FOLDER/one and FOLDER/two, of a zombie each, on a backbone that tells geometry from texture."""
    with pytest.MonkeyPatch.context() as patch:
        offer = Offer("parted-toy", "tests.varied_runs:load_parted_toy", "tests")
        patch.setitem(registry().offers["backbone"], "parted-toy", offer)
        one = plain_run(DistillConfig(style="zombie", backbone="parted-toy", steps=2, lr=0.05), folder / "one")
        yield one, varied(one, folder / "two", 2)


def varied(run, folder, seed):
    """A copy of a finished run as if it had gone elsewhere from the same base."""
    shutil.copytree(run, folder)
    generator = torch.Generator().manual_seed(seed)
    weights = folder / "weights.safetensors"
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        tensors[name] = tensor + 0.1 * tensor.std().nan_to_num(1) * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, weights)
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**state, "sha256": sha256(weights)}))
    return folder
