"""Threads and denormal numbers inside and outside of a run."""

import pytest
import torch

from distill3d.config import DistillConfig
from distill3d.recipe import distill
from distill3d.training.cpu import cpu_threads, denormal_flushed, on_cpu
from distill3d.training.loop import Watch


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_number_holds_inside_and_what_was_comes_back_also_after_an_error(two_threads):
    seen = []

    @cpu_threads(1)
    def fail():
        seen.append(torch.get_num_threads())
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_none_and_the_environment_leave_the_number(two_threads, monkeypatch):
    with cpu_threads(None):
        assert torch.get_num_threads() == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with cpu_threads(1):
        assert torch.get_num_threads() == 2


def test_a_run_on_the_embedded_pair_takes_one_thread(two_threads, tmp_path):
    seen = []
    watch = Watch(on_step=lambda log, seconds: seen.append(torch.get_num_threads()))
    distill(DistillConfig(style="zombie", steps=1), tmp_path / "run", watch=watch)
    assert seen == [1]
    assert torch.get_num_threads() == 2


@pytest.fixture
def denormal_kept():
    """Whatever tests before this one left."""
    before = _smallest() == 0
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(before)


def _smallest() -> float:
    return float(torch.tensor([1e-40]) * 1.0)


def test_denormal_numbers_are_zero_inside_alone_also_after_an_error(denormal_kept):
    with denormal_flushed(False):
        assert _smallest() > 0
    seen = []

    @on_cpu(None, True)
    def fail():
        seen.append(_smallest())
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert seen == [0]
    assert _smallest() > 0


def test_who_flushed_them_before_finds_them_flushed_after(denormal_kept):
    torch.set_flush_denormal(True)
    with denormal_flushed(True):
        pass
    assert _smallest() == 0
