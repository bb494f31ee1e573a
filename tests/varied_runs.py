"""Further runs out of one: its folder with other trained tensors, since each run of its own takes seconds."""

import json
import shutil

import torch
from safetensors.torch import load_file, save_file

from distill3d.files import sha256


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
