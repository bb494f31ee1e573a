"""Two runs to mix. The second is the first's folder with other trained tensors: each run of its own takes seconds."""

import json
import shutil
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import load_file, save_file

from distill3d.files import sha256
from distill3d.plugins import Offer, registry
from distill3d.renderer import Parted
from tests.photo_runs import a_run
from tests.toys import ToyTriplane


class PartedToy(ToyTriplane, Parted):
    """The toy whose planes are geometry; what makes colours of them is texture."""

    def part_of(self, name):
        return "geometry" if name.startswith("layers.") else "texture"


def load_parted_toy(weights=None, device="cpu"):
    """As a plugin would offer it."""
    torch.manual_seed(1)
    return PartedToy().to(device)


@contextmanager
def two_runs(folder):
    """FOLDER/one and FOLDER/two, of a zombie each, on a backbone that tells geometry from texture."""
    with pytest.MonkeyPatch.context() as patch:
        offer = Offer("parted-toy", "tests.varied_runs:load_parted_toy", "tests")
        patch.setitem(registry().offers["backbone"], "parted-toy", offer)
        one = a_run(folder / "one", "parted-toy")
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
