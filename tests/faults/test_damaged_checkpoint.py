"""A checkpoint that is damaged, cut short, or of another version: passed over or refused, and said."""

import json
import os
import re
import shutil

import pytest

from distill3d import recipe
from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError, WeightsError
from distill3d.methods import sds
from distill3d.training.checkpoint import (
    best_checkpoint,
    latest_checkpoint,
    latest_good_checkpoint,
    load_checkpoint,
    save_checkpoint,
    saved_config,
)
from tests.faults.children import bare, losses
from tests.training.test_checkpoint import same, saved_at, trainer


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


def test_a_damaged_index_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, trainer(sds)).path / "state.json"
    index = json.loads(path.read_text())
    for text in ("", "{", "[]", "null", json.dumps({**index, "schema": None}), json.dumps({**index, "sha256": []})):
        path.write_text(text)
        with pytest.raises(WeightsError, match=r"state\.json is missing or damaged.*--resume"):
            load_checkpoint(latest_checkpoint(tmp_path), trainer(sds))


def test_a_newer_version_is_refused_with_both_versions(tmp_path):
    """Also when an older checkpoint could be read: the newer one is not damaged, and is worth more."""
    saved_at(tmp_path, 1)
    path = saved_at(tmp_path, 2, versions={"distill3d": "7.1"}).path / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99, "sha256": {"other": "0"}}))
    for read in (lambda: load_checkpoint(latest_checkpoint(tmp_path), trainer(sds)), lambda: newest_good(tmp_path)):
        with pytest.raises(WeightsError, match=r"version 99, of distill3d 7\.1.*reads versions up to 2.*Update"):
            read()


def newest_good(folder):
    checkpoint, said = latest_good_checkpoint(folder)
    return checkpoint.step, said


def test_a_checkpoint_of_the_first_version_still_loads(tmp_path):
    """It has no config, versions, mark and average."""
    one = trainer()
    for _ in range(2):
        one.step()
    saved = save_checkpoint(tmp_path, one)
    path = saved.path / "state.json"
    index = json.loads(path.read_text())
    first = {key: index[key] for key in ("step", "skipped_in_a_row", "sha256")}
    path.write_text(json.dumps({"schema": 1, **first}))
    resumed = trainer()
    load_checkpoint(latest_good_checkpoint(tmp_path)[0], resumed)
    for both in (one, resumed):
        both.step()
    assert same(one.trained, resumed.trained)
    assert saved_config(saved) is None and best_checkpoint(tmp_path) is None


LENGTHS = {  # of a file that was cut short, by its whole length
    "empty": lambda size: 0,
    "in the length of its header": lambda size: 5,
    "in its header": lambda size: 40,
    "in the middle": lambda size: size // 2,
    "by its last byte": lambda size: size - 1,
}


@pytest.mark.parametrize("name", ["weights.safetensors", "averaged.safetensors", "state.safetensors", "state.json"])
@pytest.mark.parametrize("cut", LENGTHS)
def test_one_that_is_cut_short_is_passed_over(two, tmp_path, name, cut):
    shutil.copytree(two, tmp_path / "copy")
    file = tmp_path / "copy" / "step-000001" / name
    os.truncate(file, LENGTHS[cut](file.stat().st_size))
    step, said = newest_good(tmp_path / "copy")
    assert step == 0 and len(said) == 1 and name in said[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Checkpoints of steps 0 and 1, with averages."""
    folder, one = tmp_path_factory.mktemp("run"), trainer(ema=0.9)
    save_checkpoint(folder, one)
    one.step()
    save_checkpoint(folder, one)
    return folder


def test_a_damaged_one_is_passed_over_in_a_sentence(tmp_path):
    for step in (1, 2, 3):
        saved_at(tmp_path, step, keep=3)
    assert newest_good(tmp_path) == (3, [])
    (tmp_path / "step-000003" / "state.json").write_text("{")
    (tmp_path / "step-000002" / "weights.safetensors").write_bytes(b"")
    step, said = newest_good(tmp_path)
    assert step == 1
    assert re.search(r"step-000003/state\.json is .*damaged.*passed over", said[0])
    assert re.search(r"step-000002/weights\.safetensors is .*damaged.*passed over", said[1])


def test_when_none_is_whole_it_says_what_to_do(tmp_path):
    with pytest.raises(RunError, match="nothing to continue from"):
        latest_good_checkpoint(tmp_path)
    for step in (1, 2):
        (saved_at(tmp_path, step).path / "state.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"No checkpoint .* is whole.*step-000002.*step-000001.*delete"):
        latest_good_checkpoint(tmp_path)


def test_a_damaged_average_is_found_before_it_is_used(tmp_path):
    one = trainer(sds, ema=0.9)
    one.step()
    (save_checkpoint(tmp_path, one).path / "averaged.safetensors").unlink()
    with pytest.raises(WeightsError, match="averaged"):
        load_checkpoint(latest_checkpoint(tmp_path), trainer(sds, ema=0.9))


RUN = DistillConfig(style="zombie", backbone="toy", method="ld-released", steps=6, save_every=2, ema=0.9, keep=3)


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Two folders: a finished run, and its copy as it was at a kill after the checkpoint of step 4."""
    bare(monkeypatch)
    straight, stopped = recipe.distill(RUN, tmp_path / "straight"), tmp_path / "stopped"
    shutil.copytree(straight, stopped)
    shutil.rmtree(stopped / "checkpoints" / "step-000006")
    for name in ("run.json", "weights.safetensors"):
        (stopped / name).unlink()
    return straight, stopped


def test_a_run_goes_on_from_the_checkpoint_before_and_says_so(stopped, caplog):
    straight, folder = stopped
    file = folder / "checkpoints" / "step-000004" / "state.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    recipe.resume(folder)
    assert len([r for r in caplog.records if "step-000004/state.safetensors" in r.getMessage()]) == 1
    assert (folder / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()
    assert losses(folder) == losses(straight)
    assert newest_good(folder / "checkpoints") == (6, [])


def test_a_run_of_a_newer_version_is_not_continued_from_an_older_checkpoint(stopped):
    _, folder = stopped
    path = folder / "checkpoints" / "step-000004" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(WeightsError, match="version 99"):
        recipe.resume(folder)
    assert not (folder / "weights.safetensors").exists()


def test_a_changed_config_is_refused_with_the_difference_and_free_settings_change(stopped):
    """Whether it is asked for, or config.json was edited."""
    straight, folder = stopped
    with pytest.raises(ConfigError, match=r"lr: 0\.001 -> 0\.5"):
        recipe.resume(folder, changes={"lr": 0.5})
    text = (folder / "config.json").read_text()
    edited = json.dumps({**json.loads(text), "seed": 7})
    (folder / "config.json").write_text(edited)
    with pytest.raises(ConfigError, match="seed: 0 -> 7"):
        recipe.resume(folder)
    (folder / "config.json").write_text(text)
    recipe.resume(folder, changes={"save_every": 5, "keep": 9})
    assert (folder / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()


def test_a_changed_config_that_is_asked_for_is_noted_in_the_next_checkpoint(stopped):
    straight, folder = stopped
    recipe.resume(folder, changes={"lr": 0.5}, override=True)
    last = latest_checkpoint(folder / "checkpoints")
    assert (last.step, saved_config(last).lr) == (6, 0.5)
    assert (folder / "weights.safetensors").read_bytes() != (straight / "weights.safetensors").read_bytes()
