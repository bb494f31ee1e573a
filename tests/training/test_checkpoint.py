"""A checkpoint holds all that decides the future, is there whole or not at all, and is checked before it is used."""

import json
import os
from dataclasses import replace

import pytest
import torch

from distill3d.config import DistillConfig
from distill3d.errors import RunError, WeightsError
from distill3d.methods import ld, ld_released, sds
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training import checkpoint as module
from distill3d.training.checkpoint import (
    best_checkpoint,
    config_difference,
    latest_checkpoint,
    latest_good_checkpoint,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
    saved_config,
)
from distill3d.training.rates import cosine_decay
from distill3d.training.share import Share
from distill3d.training.snapshot import fitting_tensors, load_tensors
from distill3d.training.trainer import Trainer
from tests.toys import SlowDecoderToy, toy

SCORER = GaussianScorer(latent_size=8)
DEFAULTS = toy().defaults


def trainer(method=ld_released, renderer=None, **options):
    built = method(SCORER, CATALOGUE["zombie"], DEFAULTS)
    renderer = renderer or toy(dtype=torch.float32)
    return Trainer(renderer, built, batch=2, lr=cosine_decay(1e-2, 0.1, 8), **options)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


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


def test_a_run_with_an_average_clipping_and_warm_up_resumes_bit_for_bit_too(tmp_path):
    def one():
        options = {"lr": cosine_decay(1e-2, 0.1, 8, warmup=3), "ema": 0.9, "clip": 1e-3}
        return Trainer(toy(dtype=torch.float32), ld_released(SCORER, CATALOGUE["zombie"], DEFAULTS), batch=2, **options)

    straight, resumed = one(), one()
    for _ in range(2):
        straight.step()
    load_checkpoint(save_checkpoint(tmp_path, straight), resumed)
    for both in (straight, resumed):
        for _ in range(2):
            both.step()
    assert same(straight.trained, resumed.trained) and same(straight.averaged, resumed.averaged)
    assert not same(straight.trained, straight.averaged)


def test_saving_changes_nothing_of_the_trainer(tmp_path):
    saving, silent = trainer(ema=0.9), trainer(ema=0.9)
    for _ in range(3):
        save_checkpoint(tmp_path, saving)
        saving.step()
        silent.step()
    assert same(saving.trained, silent.trained) and same(saving.averaged, silent.averaged)


def test_what_the_trainer_went_through_before_is_gone_when_it_loads(tmp_path):
    """The moments of weights that the checkpoint has none of among it."""
    fresh = trainer(sds)
    first = save_checkpoint(tmp_path, fresh)
    used = trainer(sds)
    for _ in range(2):
        used.step()
    load_checkpoint(first, used)
    for both in (fresh, used):
        both.step()
    assert same(fresh.trained, used.trained)


def test_a_run_that_begins_an_average_late_begins_it_at_the_weights(tmp_path):
    one = trainer(sds)
    one.step()
    other = trainer(sds, ema=0.9)
    load_checkpoint(save_checkpoint(tmp_path, one), other)
    assert same(other.averaged, one.trained)


def test_the_average_is_what_is_published_and_the_weights_are_what_goes_on(tmp_path):
    one, other = trainer(ema=0.9), trainer(ema=0.9)
    for _ in range(2):
        one.step()
    saved = save_checkpoint(tmp_path, one)
    assert same(load_tensors(saved.weights), one.averaged)
    load_checkpoint(saved, other)
    assert same(other.trained, one.trained)


class Half(Share):
    """One of two processes, which know each other's subjects: each has every other one."""

    world = 2

    def __init__(self, rank, everybody=None):
        self.rank, self.everybody = rank, everybody

    def subjects(self, batch):
        return tuple(range(self.rank, batch, 2))

    def gather_subjects(self, entries):
        return self.everybody


def test_a_checkpoint_of_two_processes_is_one_of_the_whole_batch(tmp_path):
    alone = trainer(ld_released)
    for _ in range(2):
        alone.step()
    alone.batch = 2
    sides = zip(("trained", "reference"), alone.previous)
    everybody = {f"previous/{side}/{name}": t for side, scene in sides for name, t in scene.items()}
    leading, other = (trainer(ld_released, share=Half(rank, everybody)) for rank in (0, 1))
    for one in (leading, other):
        one.previous = tuple({name: t[[one.share.rank]] for name, t in scene.items()} for scene in alone.previous)
        one.step_number = 2
    assert save_checkpoint(tmp_path / "halves", other) is None
    assert not (tmp_path / "halves").exists()
    saved = save_checkpoint(tmp_path / "halves", leading)
    whole = save_checkpoint(tmp_path / "alone", alone)
    assert previous_of(saved) == previous_of(whole) and previous_of(whole)
    resumed = trainer(ld_released, share=Half(1))
    load_checkpoint(whole, resumed)
    for got, scene in zip(resumed.previous, alone.previous):
        assert got.keys() == scene.keys()
        assert all(torch.equal(got[name], scene[name][1:2]) for name in scene)


def previous_of(checkpoint):
    state = load_tensors(checkpoint.path / "state.safetensors")
    return {name: t.tolist() for name, t in state.items() if name.startswith("previous/")}


def test_scenes_of_a_batch_of_another_size_are_left_out(tmp_path):
    one = trainer(ld_released)
    one.step()
    saved = save_checkpoint(tmp_path, one)
    other = trainer(ld_released)
    other.batch = 3
    load_checkpoint(saved, other)
    assert other.previous is None
    other.step()


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


def steps_in(folder):
    return [c.step for c in list_checkpoints(folder)]


def saved_at(folder, step, **options):
    one = trainer(sds)
    one.step_number = step
    return save_checkpoint(folder, one, **options)


def test_the_newest_best_one_is_kept_beside_the_last(tmp_path):
    for step, best in enumerate([False, True, True, False, False, False]):
        saved_at(tmp_path, step, best=best)
        assert best_checkpoint(tmp_path) == next(
            (c for c in list_checkpoints(tmp_path)[::-1] if 1 <= c.step <= 2), None
        )
    assert steps_in(tmp_path) == [2, 4, 5]
    saved_at(tmp_path, 6, keep=1)
    assert steps_in(tmp_path) == [2, 6]


def test_what_is_later_than_the_step_that_is_saved_is_dropped(tmp_path):
    """It was damaged, else the run would have gone on from there; kept, it would push out what is whole."""
    for step in (1, 5, 9):
        saved_at(tmp_path, step, keep=3, best=step == 9)
    saved_at(tmp_path, 2, keep=1)
    assert steps_in(tmp_path) == [2]


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path, monkeypatch):
    saved_at(tmp_path, 3)
    real = os.replace

    def killed(source, target):
        if ".part" in str(source):
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr("distill3d.files.os.replace", killed)
    monkeypatch.setattr("distill3d.files.Path.exists", lambda path: True)  # nothing is put back, as after a kill
    monkeypatch.setattr("distill3d.files.shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        saved_at(tmp_path, 3)
    monkeypatch.undo()
    assert not (tmp_path / "step-000003").exists()
    found, said = latest_good_checkpoint(tmp_path)
    assert found.step == 3 and not said
    load_checkpoint(found, trainer(sds))
    saved_at(tmp_path, 4)
    assert {p.name for p in tmp_path.iterdir()} == {"step-000004"}


def test_a_kill_while_an_old_one_is_deleted_leaves_no_half_of_one(tmp_path, monkeypatch):
    for step in (1, 2):
        saved_at(tmp_path, step)

    def killed(path, **_):
        (path / "state.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(module.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        module._drop_old(tmp_path, 2, 1)
    monkeypatch.undo()
    assert steps_in(tmp_path) == [2]


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


def test_a_checkpoint_that_does_not_fit_changes_nothing(tmp_path):
    one = trainer(ld_released)
    one.step()
    saved = save_checkpoint(tmp_path, one)
    file = saved.path / "state.safetensors"
    state = load_tensors(file)
    name = next(key for key in state if key.endswith("exp_avg"))
    module.save_file({**state, name: torch.zeros(3)}, file)
    index = json.loads((saved.path / "state.json").read_text())
    index["sha256"]["state.safetensors"] = module.sha256(file)
    (saved.path / "state.json").write_text(json.dumps(index))
    other, untouched = trainer(ld_released), trainer(ld_released)
    with pytest.raises(WeightsError, match="another optimiser or backbone"):
        load_checkpoint(saved, other)
    assert same(other.trained, untouched.trained) and other.step_number == 0


CONFIG = DistillConfig(style="zombie", lr=8e-3, options={"guidance_scale": 5.0, "t_range": (0.02, 0.5)})


def test_config_and_versions_are_kept_with_the_state(tmp_path):
    saved = save_checkpoint(tmp_path, trainer(sds), config=CONFIG, versions={"torch": "2.9"})
    assert saved_config(saved) == CONFIG
    assert json.loads((saved.path / "state.json").read_text())["versions"] == {"torch": "2.9"}


def test_what_differs_between_two_configs_is_shown():
    changes = {"lr": 1e-4, "batch": 4, "options": {"guidance_scale": 7, "mirror": True, "t_range": (0.02, 0.5)}}
    assert config_difference(CONFIG, replace(CONFIG, **changes)) == [
        "options.guidance_scale: 5.0 -> 7",
        "batch: null -> 4",
        "lr: 0.008 -> 0.0001",
        "options.mirror: not set -> true",
    ]


def test_what_does_not_decide_the_future_is_no_difference():
    free = {"device": "cuda", "vram": "8gb", "trackers": ("tensorboard",), "keep": 5, "save_every": 7, "split": "views"}
    assert config_difference(CONFIG, replace(CONFIG, **free)) == []
    assert free.keys() <= set(DistillConfig.FREE)
    read_back = DistillConfig.from_json(CONFIG.to_json())
    assert config_difference(CONFIG, read_back) == []
    assert config_difference(CONFIG, replace(CONFIG, options={**CONFIG.options, "guidance_scale": 5})) == []


def test_weights_of_another_shape_name_or_value_are_refused(tmp_path):
    from safetensors.torch import save_file

    one = trainer(sds)
    saved = {name: p.detach().clone() for name, p in one.trained.items()}
    first = next(iter(saved))

    def refused(tensors, match):
        save_file(tensors, tmp_path / "w.safetensors")
        before = {name: p.clone() for name, p in one.trained.items()}
        with pytest.raises(WeightsError, match=match):
            fitting_tensors(tmp_path / "w.safetensors", one.trained)
        assert all(torch.equal(before[name], p) for name, p in one.trained.items())

    refused({name: t for name, t in saved.items() if name != first}, "another backbone")
    refused({**saved, first: torch.zeros(1)}, r"has shape \(1,\)")
    refused({**saved, first: saved[first] * torch.nan}, "not finite")
    (tmp_path / "w.safetensors").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match="damaged"):
        fitting_tensors(tmp_path / "w.safetensors", one.trained)


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
