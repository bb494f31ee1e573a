"""A disk that is full or read-only ends a run in one sentence and loses nothing."""

import errno
import os
import subprocess

import pytest

from distill3d import recipe
from distill3d.config import DistillConfig
from distill3d.errors import RunError
from distill3d.training import checkpoint
from distill3d.training.checkpoint import latest_good_checkpoint, list_checkpoints
from tests.faults.children import bare, ended, losses, run, told

CONFIG = DistillConfig(style="zombie", backbone="toy", method="ld-released", steps=12, save_every=2, ema=0.9)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert ended(run, CONFIG, folder) == 0
    return folder


@pytest.fixture
def disk(tmp_path):
    """Makes `tmp_path / "disk"` a file system in memory of so many bytes, and changes its options."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", f"{'remount,' if mounted else ''}{options}", "tmpfs", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(options)
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", str(place)], check=True)


def size_of(folder):
    """Bytes that a file system in memory needs for a folder: whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("room", [0.02, 0.3, 0.6, 0.9])
def test_a_run_on_a_disk_that_fills_up_is_continued_when_there_is_room(straight, disk, room):
    """Room for two checkpoints, and for a part of a third: of its first file, its second, its third."""
    one = size_of(next((straight / "checkpoints").iterdir()))
    others = size_of(straight) - size_of(straight / "checkpoints") - size_of_published(straight)
    folder = disk(f"size={others + int((2 + room) * one)}") / "run"
    code, said = told(run, CONFIG, folder)
    assert code == 1 and len(said.splitlines()) == 1
    assert "The disk is full" in said and "What was saved before is intact" in said
    assert latest_good_checkpoint(folder / "checkpoints")[1] == []
    assert [c.step for c in list_checkpoints(folder / "checkpoints")] == [2, 4]
    disk("size=64m")
    assert ended(run, CONFIG, folder) == 0
    agree(folder, straight)


def size_of_published(folder):
    return sum(-(-(folder / name).stat().st_size // 4096) * 4096 for name in ("weights.safetensors", "run.json"))


def agree(folder, straight):
    assert (folder / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes()
    assert losses(folder) == losses(straight)
    assert sorted(p.relative_to(folder) for p in folder.rglob("*")) == sorted(
        p.relative_to(straight) for p in straight.rglob("*")
    )


def test_a_disk_that_is_full_already_is_one_sentence(disk):
    place = disk("size=64k")
    (place / "ballast").write_bytes(bytes(65536))
    code, said = told(run, CONFIG, place / "run")
    assert code == 1 and len(said.splitlines()) == 1 and "The disk is full" in said


def test_a_read_only_disk_is_one_sentence_for_a_new_run_and_for_one_that_is_continued(straight, disk):
    place = disk("size=64m")
    subprocess.run(["cp", "-r", str(straight), str(place / "run")], check=True)
    disk("ro")
    for folder in (place / "run", place / "new"):
        code, said = told(run, CONFIG, folder)
        assert code == 1 and len(said.splitlines()) == 1
        assert "Cannot write" in said and "Read-only" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission_is_one_sentence(tmp_path):
    tmp_path.chmod(0o555)
    code, said = told(run, CONFIG, tmp_path / "run")
    assert code == 1 and len(said.splitlines()) == 1 and "Permission denied" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_whatever_the_system_refuses_in_the_third_checkpoint_the_second_goes_on(
    straight, tmp_path, monkeypatch, number
):
    """Without mounting anything, so that it is tried everywhere."""
    bare(monkeypatch)
    real, saves = checkpoint.save_file, []

    def refuse(tensors, path):
        saves.append(path)
        if len(saves) == 8:  # three files in each
            raise OSError(number, os.strerror(number))
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", refuse)
    folder = tmp_path / "run"
    with pytest.raises(RunError, match=r"step-000006.*not written|Cannot write .*step-000006"):
        recipe.distill(CONFIG, folder)
    assert [c.step for c in list_checkpoints(folder / "checkpoints")] == [2, 4]
    recipe.resume(folder)
    agree(folder, straight)
