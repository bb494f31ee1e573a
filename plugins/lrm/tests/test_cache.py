"""What is cached is what was computed, and trouble with it costs time only."""

from __future__ import annotations

import copy
import errno
import logging
import os
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from distill3d_lrm import cache as module
from distill3d_lrm.cache import CodeCache, cache_folder, checksum


class Computation:
    """Counts how often it is asked."""

    def __init__(self, result: Tensor):
        self.result = result
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return self.result


def code(seed: int = 0, count: int = 250) -> Computation:
    return Computation(torch.randn(count, generator=torch.Generator().manual_seed(seed)))


def stored(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def fail() -> Tensor:
    raise AssertionError("computed")


def test_a_key_is_computed_once():
    cache, compute = CodeCache(), code()
    first, second = cache.get("anna", compute), cache.get("anna", compute)
    assert compute.calls == 1
    assert torch.equal(first, compute.result) and torch.equal(second, compute.result)


def test_another_key_is_another_tensor():
    cache = CodeCache()
    assert not torch.equal(cache.get("anna", code(0)), cache.get("bert", code(1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_the_next_run_reads_the_same_bits(tmp_path, dtype):
    result = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    result[0] = torch.tensor([float("nan"), -0.0, float("inf"), 1e-42])
    CodeCache(tmp_path).get("anna", lambda: result.mT)
    again = CodeCache(tmp_path).get("anna", fail)
    assert again.dtype == dtype and again.shape == (4, 3)
    assert checksum([again]) == checksum([result.mT])


def test_no_gradient_is_recorded_or_kept():
    weight = torch.ones(3, requires_grad=True)
    recorded = []

    def compute() -> Tensor:
        recorded.append(torch.is_grad_enabled())
        return weight * 2

    assert not CodeCache().get("anna", compute).requires_grad
    assert not CodeCache().get("anna", lambda: weight).requires_grad
    assert recorded == [False]


def test_what_inference_mode_computed_can_be_trained_on():
    cache = CodeCache()
    with torch.inference_mode():
        cache.get("anna", code())
    found = cache.get("anna", fail)
    (found * torch.ones((), requires_grad=True)).sum().backward()


def test_changing_what_was_given_does_not_change_what_is_kept(tmp_path):
    compute = code()
    cache = CodeCache(tmp_path)
    for _ in range(2):
        cache.get("anna", compute).zero_()
    assert torch.equal(cache.get("anna", fail), compute.result)
    assert compute.result.any()


def test_an_error_is_passed_on_and_not_kept():
    cache = CodeCache()
    with pytest.raises(AssertionError, match="computed"):
        cache.get("anna", fail)
    assert torch.equal(cache.get("anna", code()), code().result)


def test_the_memory_is_bounded_and_the_longest_unused_goes_first():
    cache = CodeCache(memory=2500)  # two of 1000 bytes
    cache.get("anna", code())
    cache.get("bert", code())
    cache.get("anna", fail)
    cache.get("carl", code())
    cache.get("anna", fail)
    again = code()
    cache.get("bert", again)
    assert again.calls == 1


def test_what_is_larger_than_the_memory_is_given_and_not_kept():
    cache, compute = CodeCache(memory=10), code()
    assert torch.equal(cache.get("anna", compute), compute.result)
    cache.get("anna", compute)
    assert compute.calls == 2


def test_the_disk_is_bounded_and_the_longest_unused_goes_first(tmp_path):
    cache = CodeCache(tmp_path, memory=0, disk=3000)  # two files of 1000 bytes and a head
    for age, name in ((30, "anna"), (20, "bert")):
        before = set(stored(tmp_path))
        cache.get(name, code())
        (path,) = set(stored(tmp_path)) - before
        os.utime(path, (time.time() - age,) * 2)
    cache.get("anna", fail)
    cache.get("carl", code())
    cache.get("anna", fail)
    assert sum(path.stat().st_size for path in stored(tmp_path)) <= 3000
    again = code()
    cache.get("bert", again)
    assert again.calls == 1


def test_a_tensor_larger_than_the_disk_s_share_is_not_written(tmp_path):
    """It would push out all others and then itself."""
    cache = CodeCache(tmp_path, memory=0, disk=1500)
    cache.get("anna", code())
    cache.get("bert", code(count=1000))
    cache.get("anna", fail)
    assert len(stored(tmp_path)) == 1


def test_files_of_others_are_neither_counted_nor_removed(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(9000))
    os.utime(tmp_path / "model.safetensors", (0, 0))
    cache = CodeCache(tmp_path, memory=0, disk=1500)
    cache.get("anna", code())
    cache.get("anna", fail)
    assert (tmp_path / "model.safetensors").stat().st_size == 9000


def test_what_an_ended_run_left_half_written_goes_and_what_is_being_written_stays(tmp_path):
    parts = [tmp_path / f".{letter * 64}.safetensors.part77.safetensors" for letter in "ab"]
    for part in parts:
        part.touch()
    os.utime(parts[0], (time.time() - 9000,) * 2)
    CodeCache(tmp_path).get("anna", code())
    assert [part.exists() for part in parts] == [False, True]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    save_file({"code": torch.zeros(250)}, path)


def without_code(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def of_another_key(path: Path) -> None:
    CodeCache(path.parent / "other").get("bert", code(1))
    os.replace(stored(path.parent / "other")[0], path)


def nonsense(path: Path) -> None:
    path.write_bytes(b"\xff" * 5000)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [flip, cut, empty, foreign, without_code, of_another_key, nonsense])
def test_a_damaged_or_foreign_file_is_computed_again_and_mended(tmp_path, damage, caplog):
    CodeCache(tmp_path).get("anna", code())
    damage(stored(tmp_path)[0])
    again = code()
    assert torch.equal(CodeCache(tmp_path).get("anna", again), again.result)
    assert again.calls == 1
    assert torch.equal(CodeCache(tmp_path).get("anna", fail), again.result)
    assert not caplog.records


def test_a_folder_of_that_name_is_no_end_either(tmp_path, caplog):
    CodeCache(tmp_path).get("anna", code())
    folder(stored(tmp_path)[0])
    assert torch.equal(CodeCache(tmp_path).get("anna", code()), code().result)
    assert len(caplog.records) == 1


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "No space left"), (errno.EROFS, "Read-only")])
def test_a_disk_that_takes_nothing_gets_one_warning_and_what_is_there_is_read(
    tmp_path, monkeypatch, caplog, number, said
):
    CodeCache(tmp_path).get("anna", code())

    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "save_file", full)
    cache = CodeCache(tmp_path, memory=0)
    for name in ("bert", "carl"):
        assert torch.equal(cache.get(name, code(1)), code(1).result)
    cache.get("anna", fail)
    assert len(warned(caplog)) == 1 and said in warned(caplog)[0] and str(tmp_path) in warned(caplog)[0]
    assert len(stored(tmp_path)) == 1


def test_a_folder_that_cannot_be_made_gets_one_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    cache = CodeCache(tmp_path / "file" / "lrm")
    for name in ("anna", "bert"):
        assert torch.equal(cache.get(name, code()), code().result)
    assert len(warned(caplog)) == 1


def test_keys_may_be_anything(tmp_path):
    """A key is no file name."""
    keys = ["../../etc/passwd", "a" * 5000, "ä/\0\n", ""]
    for seed, key in enumerate(keys):
        CodeCache(tmp_path).get(key, code(seed))
    for seed, key in enumerate(keys):
        assert torch.equal(CodeCache(tmp_path).get(key, fail), code(seed).result)
    assert len(stored(tmp_path)) == 4


def test_copies_of_a_renderer_share_the_cache():
    cache = CodeCache()
    copied = copy.deepcopy({"cache": cache})["cache"]
    cache.get("anna", code())
    copied.get("anna", fail)


def test_threads_that_want_the_same_compute_it_once(tmp_path):
    cache, compute = CodeCache(tmp_path), code()
    threads = [threading.Thread(target=cache.get, args=("anna", compute)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compute.calls == 1


def test_checksums_tell_contents_shapes_types_and_order_apart():
    zeros = torch.zeros(2, 3)
    groups = [
        [zeros],
        [zeros + 1e-30],
        [-zeros],
        [zeros.reshape(3, 2)],
        [zeros.to(torch.int32)],
        [zeros, zeros],
        [torch.zeros(4, 3)],
        [torch.zeros(()), zeros],
        [zeros, torch.zeros(())],
        [torch.zeros(0)],
        [],
    ]
    assert len({checksum(group) for group in groups}) == len(groups)


def test_checksums_do_not_depend_on_the_layout_or_on_gradients():
    square = torch.arange(6.0).reshape(2, 3)
    assert checksum([square.T.contiguous()]) == checksum([square.T])
    assert checksum([square.clone().requires_grad_()]) == checksum([square])
    assert checksum(iter([square])) == checksum([square])


def test_the_folder_is_the_one_of_distill3d(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "lrm"
    monkeypatch.delenv("DISTILL3D_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "distill3d" / "lrm"
