"""A checkpoint holds all that decides the future, is there whole or not at all, and is checked before it is used."""

import json
import os

import pytest
import torch

from distill3d.errors import RunError, WeightsError
from distill3d.methods import ld, ld_released, sds
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training import checkpoint as module
from distill3d.training.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    restore_weights,
    save_checkpoint,
)
from distill3d.training.rates import cosine_decay
from distill3d.training.trainer import Trainer
from tests.toys import SlowDecoderToy, toy

SCORER = GaussianScorer(latent_size=8)


def trainer(method=ld_released, renderer=None, **options):
    built = method(SCORER, CATALOGUE["zombie"], toy().defaults)
    renderer = renderer or toy(dtype=torch.float32)
    return Trainer(renderer, built, batch=2, lr=cosine_decay(1e-2, 0.1, 8), **options)


def with_a_slow_decoder():
    torch.manual_seed(0)
    return SlowDecoderToy()


@pytest.mark.parametrize("make", [lambda: toy(dtype=torch.float32), with_a_slow_decoder], ids=["one rate", "two rates"])
@pytest.mark.parametrize("method", [ld, ld_released, sds])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path, method, make):
    straight = trainer(method, make())
    for _ in range(2):
        straight.step()
    save_checkpoint(tmp_path, straight)
    for _ in range(2):
        straight.step()
    resumed = trainer(method, make())
    load_checkpoint(latest_checkpoint(tmp_path), resumed)
    assert resumed.step_number == 2
    for _ in range(2):
        resumed.step()
    assert all(torch.equal(straight.trained[name], p) for name, p in resumed.trained.items())


def test_only_the_trained_tensors_are_in_the_weights(tmp_path):
    from safetensors import safe_open

    one = trainer()
    with safe_open(save_checkpoint(tmp_path, one).weights, "pt") as file:
        assert set(file.keys()) == set(one.trained) < {name for name, _ in one.renderer.named_parameters()}


def test_the_last_two_are_kept(tmp_path):
    one = trainer(sds)
    for _ in range(4):
        one.step()
        save_checkpoint(tmp_path, one)
    assert [c.step for c in list_checkpoints(tmp_path)] == [3, 4]
    assert {p.name for p in tmp_path.iterdir()} == {"step-000003", "step-000004"}


def test_a_kill_while_writing_leaves_the_last_good_one(tmp_path, monkeypatch):
    one = trainer(sds)
    save_checkpoint(tmp_path, one)
    one.step()
    real = module.save_file

    def killed(tensors, path):
        real(tensors, path)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, one)
    assert [c.step for c in list_checkpoints(tmp_path)] == [0]
    load_checkpoint(latest_checkpoint(tmp_path), trainer(sds))


def test_a_full_disk_says_so_and_loses_nothing(tmp_path, monkeypatch):
    one = trainer(sds)
    save_checkpoint(tmp_path, one)
    one.step()

    def full(tensors, path):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(RunError, match="disk is full"):
        save_checkpoint(tmp_path, one)
    assert latest_checkpoint(tmp_path).step == 0


@pytest.mark.parametrize("name", ["weights.safetensors", "state.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file_is_named(tmp_path, name, damage):
    file = save_checkpoint(tmp_path, trainer(sds)).path / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[-3] ^= 1
    file.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    if damage == "gone":
        file.unlink()
    with pytest.raises(WeightsError, match=name):
        load_checkpoint(latest_checkpoint(tmp_path), trainer(sds))


def test_a_damaged_or_newer_index_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, trainer(sds)).path / "state.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "schema": 99}))
    with pytest.raises(WeightsError, match="version 99"):
        load_checkpoint(latest_checkpoint(tmp_path), trainer(sds))
    path.write_text("{")
    with pytest.raises(WeightsError, match="damaged"):
        load_checkpoint(latest_checkpoint(tmp_path), trainer(sds))


def test_weights_of_another_shape_name_or_value_are_refused(tmp_path):
    from safetensors.torch import save_file

    one = trainer(sds)
    saved = {name: p.detach().clone() for name, p in one.trained.items()}
    first = next(iter(saved))

    def refused(tensors, match):
        save_file(tensors, tmp_path / "w.safetensors")
        before = {name: p.clone() for name, p in one.trained.items()}
        with pytest.raises(WeightsError, match=match):
            restore_weights(one.trained, tmp_path / "w.safetensors")
        assert all(torch.equal(before[name], p) for name, p in one.trained.items())

    refused({name: t for name, t in saved.items() if name != first}, "another backbone")
    refused({**saved, first: torch.zeros(1)}, r"has shape \(1,\)")
    refused({**saved, first: saved[first] * torch.nan}, "not finite")
    (tmp_path / "w.safetensors").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="damaged"):
        restore_weights(one.trained, tmp_path / "w.safetensors")


def test_no_checkpoint_is_a_clear_error(tmp_path):
    with pytest.raises(RunError, match="nothing to continue from"):
        latest_checkpoint(tmp_path)


def test_what_safetensors_says_about_a_full_disk_is_understood_too(tmp_path, monkeypatch):
    from safetensors import SafetensorError

    def full(tensors, path):
        raise SafetensorError('Error while serializing: I/O error: "No space left on device (os error 28)"')

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(RunError, match="disk is full"):
        save_checkpoint(tmp_path, trainer(sds))
