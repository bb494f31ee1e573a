"""Weights that somebody else wrote: what is read, what is refused, and that nothing in them runs."""

import collections

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from distill3d.errors import WeightsError
from distill3d.state_dicts import check_state_dict, fill, read_state_dict

TENSORS = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(2)}


def write(path, tensors):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt", "model.pth", "model"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_a_state_dict_is_read_as_it_was_written(name, dtype, tmp_path):
    written = {key: value.to(dtype) for key, value in TENSORS.items()}
    found = read_state_dict(write(tmp_path / name, written))
    assert found.keys() == written.keys()
    assert all(found[key].dtype == dtype and torch.equal(found[key], written[key]) for key in written)


def test_a_module_s_own_state_dict_is_one(tmp_path):
    """An ordered dictionary, whose tensors may be parameters."""
    torch.save(collections.OrderedDict(nn.Linear(3, 2).named_parameters()), tmp_path / "m.ckpt")
    assert read_state_dict(tmp_path / "m.ckpt").keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(1)],
        {"state_dict": TENSORS},
        {0: torch.zeros(1)},
        {"step": 3},
        {"weight": torch.zeros(2, dtype=torch.int64)},
        {"weight": torch.eye(2).to_sparse()},
        {"weight": torch.zeros(2, dtype=torch.complex64)},
        {"weight": torch.zeros(2, device="meta")},
        nn.Linear(2, 2),
        "weights",
    ],
    ids=["list", "nested", "numbered", "number", "whole", "sparse", "complex", "meta", "module", "word"],
)
def test_a_file_of_anything_else_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "model.ckpt")
    with pytest.raises(WeightsError, match="is not a plain state dict"):
        read_state_dict(tmp_path / "model.ckpt")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8, torch.float8_e4m3fn])
def test_numbers_that_are_no_weights_are_refused_in_safetensors_too(dtype, tmp_path):
    save_file({"weight": torch.zeros(2).to(dtype)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="floating numbers, nothing else"):
        read_state_dict(tmp_path / "model.safetensors")


class Hostile:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (open, (str(self.canary), "w"))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors"])
def test_code_in_a_pickle_does_not_run(name, legacy, tmp_path):
    path, canary = tmp_path / name, tmp_path / "canary"
    torch.save({**TENSORS, "x": Hostile(canary)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError):
        read_state_dict(path)
    assert not canary.exists()
    with path.open("rb") as file:
        torch.load(file, weights_only=False)  # so it would have
    assert canary.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:40], lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 99]
)
def test_a_damaged_file_is_named(name, damage, tmp_path):
    path = write(tmp_path / name, TENSORS)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match=f"{name} is (damaged|not a plain state dict): .+"):
        read_state_dict(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    (tmp_path / "folder.ckpt").mkdir()
    for name in ("none.ckpt", "folder.ckpt"):
        with pytest.raises(WeightsError, match=f"There is no weight file .*{name}"):
            read_state_dict(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bias": None}, "here.ckpt lacks 1 tensors, the first is bias"),
        ({"more": torch.zeros(1), "extra": torch.zeros(1)}, "here.ckpt has 2 tensors too many, the first is extra"),
        ({"weight": torch.zeros(3, 2)}, r"weight in here.ckpt is \(3, 2\), this model's is \(2, 3\)"),
        ({"bias": torch.tensor([0.0, float("nan")])}, "bias in here.ckpt has numbers that are not finite"),
        ({"bias": torch.tensor([0.0, float("inf")])}, "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, said):
    given = {name: value for name, value in {**TENSORS, **change}.items() if value is not None}
    module = nn.Linear(3, 2)
    before = module.weight.clone()
    for refuse in (
        lambda: check_state_dict(module.state_dict(), given, "here.ckpt"),
        lambda: fill(module, given, "here.ckpt"),
    ):
        with pytest.raises(WeightsError, match=said):
            refuse()
    assert torch.equal(module.weight, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_module_without_memory_is_filled_in_float32(dtype):
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    fill(module, {"weight": TENSORS["weight"].T.to(dtype).contiguous().T, "bias": TENSORS["bias"].to(dtype)}, "here")
    assert all(p.device.type == "cpu" and p.dtype == torch.float32 and p.is_contiguous() for p in module.parameters())
    assert isinstance(module.weight, nn.Parameter)
    assert torch.equal(module(torch.ones(3)), torch.tensor([3.0, 12.0]))
