"""Two processes do what one does, whichever way they share it; only the order of summation differs."""

import pytest
import torch

from distill3d.errors import ConfigError, RunError, UnknownNameError
from distill3d.training import distributed
from distill3d.training.checkpoint import latest_checkpoint, load_checkpoint
from distill3d.training.distributed import SHARES, SubjectShare, ViewShare, own_device, part, start_share
from distill3d.training.share import Share
from tests.distributed.jobs import JOBS, toy_trainer, weights


def assert_close(got, want, tolerance):
    """Same names, and each tensor within `tolerance` of the wanted one, relative to its length."""
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        tensor = tensor.detach().double()
        assert (got[name].double() - tensor).norm() <= tolerance * tensor.norm().clamp_min(1e-30), name


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def assert_same_step(pair, want, tolerance):
    """Gradients, loss and norm to `tolerance`; figures come out of the scorer in float32.

    The RMS of a gradient is figured for each process's subjects and averaged, as over micro-batches: no sum of parts.
    """
    first, second = pair
    assert_equal(first, second)
    exact = {key: tensor for key, tensor in want.items() if not key.startswith("figure/")}
    means = {key: tensor for key, tensor in want.items() if key.startswith("figure/") and not key.endswith("/rms")}
    assert means and any(t.norm() > 0 for key, t in exact.items() if key.startswith("grad/"))
    assert first.keys() == want.keys()
    assert_close({key: first[key] for key in exact}, exact, tolerance)
    assert_close({key: first[key] for key in means}, means, max(tolerance, 1e-6))


@pytest.mark.parametrize("name", [name for name in JOBS if name.startswith(("gradients", "untouched"))])
def test_two_processes_have_the_gradient_loss_and_figures_of_one(name, pair, alone):
    assert_same_step(pair(name), alone(name), 1e-10)


@pytest.mark.parametrize("split", SHARES)
def test_so_they_do_on_the_embedded_backbone_and_scorer(split, pair, alone):
    assert_same_step(pair(f"tiny {split}"), alone(f"tiny {split}"), 1e-5)


def test_gradients_of_several_dtypes_keep_theirs_and_float64_loses_nothing(pair):
    for found in pair("mixed precision"):
        assert {name: tensor.item() for name, tensor in found.items()} == {
            "torch.bfloat16": 256.0,  # there is no 257
            "torch.float32": pytest.approx(1.001, rel=1e-7),
            "torch.float64": 1.0 + 1e-12,
        }


def test_a_wish_of_one_process_is_known_to_all(pair):
    assert [found["agreed"].tolist() for found in pair("agree")] == [[False, True, True]] * 2


@pytest.mark.parametrize("split", SHARES)
def test_a_repeated_run_of_two_processes_has_the_same_weights_bit_for_bit(split, pair, alone):
    once, again = pair(f"trained {split} once"), pair(f"trained {split} again")
    assert_equal(once[0], again[0])
    assert_equal(once[0], once[1])
    assert_close(once[0], alone(f"trained {split} once"), 1e-9)  # Adam divides by small numbers


@pytest.mark.parametrize("split", SHARES)
@pytest.mark.parametrize("whose", ["own", "one's"])
def test_a_run_goes_on_from_its_own_checkpoint_and_from_one_process_s(split, whose, pair, alone):
    found = pair(f"resume {whose} {split}")
    straight = toy_trainer(Share(), "ld-released")
    for _ in range(4):
        straight.step()
    assert_close(found[0], weights(straight), 1e-9)
    assert_equal(*found)


@pytest.mark.parametrize("split", SHARES)
def test_one_process_goes_on_from_the_checkpoint_of_two(split, pair, alone):
    """What LDIS reads, the scenes of the whole batch at the step before, is in it."""
    mine, theirs = toy_trainer(Share(), "ld-released"), toy_trainer(Share(), "ld-released")
    for trainer, saved_by in ((mine, "alone"), (theirs, split)):
        load_checkpoint(latest_checkpoint(pair.folder / f"ld-released-{saved_by}"), trainer)
    for mine_of_side, theirs_of_side in zip(mine.previous, theirs.previous, strict=True):
        assert_close(theirs_of_side, mine_of_side, 1e-9)
    assert_close(weights(theirs), weights(mine), 1e-9)
    assert_close(alone(f"resume own {split}"), alone(f"resume one's {split}"), 1e-9)


@pytest.mark.parametrize("split", SHARES)
def test_a_stop_that_one_process_is_asked_for_stops_both_at_the_same_step(split, pair):
    assert [int(found["steps"]) for found in pair(f"stop {split}")] == [3, 3]


def test_what_is_not_finite_in_one_process_is_skipped_by_both(pair):
    first, second = pair("nan")
    assert first["skipped"].tolist() == [False, True, False]
    assert_equal(first, second)


def test_uneven_parts_come_back_in_the_order_of_the_batch(pair):
    for found in pair("parts"):
        assert found["rows"].tolist() == [[i, i] for i in range(5)]
        assert found["none"].shape == (0, 2)


def test_a_process_that_misses_another_says_so_in_one_sentence(pair):
    said = (pair.folder / "lost").read_text()
    assert said.startswith("A process of this run died or hangs.")
    assert "distill3d launch --processes 2 run --resume RUN" in said


@pytest.mark.parametrize(("batch", "world"), [(2, 2), (5, 2), (7, 3), (4, 4), (9, 4)])
def test_parts_are_contiguous_balanced_and_leave_nobody_out(batch, world):
    found = [part(batch, rank, world) for rank in range(world)]
    assert sum(found, ()) == tuple(range(batch))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_process_without_a_subject_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"--batch 1 leaves 1 of 2 .* --split views, or --batch 2"):
        SubjectShare(0, 2).subjects(1)
    assert ViewShare(1, 2).subjects(1) == (0,)


def test_one_process_has_nothing_to_join(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", distributed.ASKED):
        monkeypatch.delenv(name, raising=False)
    share = start_share("views", "cpu")
    assert type(share) is Share
    with pytest.raises(UnknownNameError, match="Did you mean 'views'"):
        start_share("view", "cpu")


@pytest.mark.parametrize("came", [None, "1", "3"])
def test_other_processes_than_were_asked_for_are_refused(came, monkeypatch):
    for name, value in {"RANK": "0", "MASTER_ADDR": "localhost", "WORLD_SIZE": came, distributed.ASKED: "2"}.items():
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=f"2 processes were asked for, {came or 1} came up"):
        start_share("subjects", "cpu")


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(distributed.ASKED, raising=False)


def test_each_process_has_a_gpu_of_its_own(second_of_two, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device("cuda") == "cuda:1"
    assert own_device("cpu") == "cpu"
    assert own_device("cuda:0") == own_device("cuda:1") == "cuda:1"  # cuda:0 is what the first process writes down
    with pytest.raises(ConfigError, match="got 'cuda:3'"):
        own_device("cuda:3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="needs a GPU of its own; here are only 1"):
        own_device("cuda")
