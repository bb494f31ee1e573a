"""A run of low-rank changes as a style pack: exact or within its stated error, whatever is drawn for the factors."""

import pytest
import torch

import distill3d_lrm.renderer as renderer_module
from distill3d import publish
from distill3d.config import DistillConfig
from distill3d.health import Health, HealthCheck
from distill3d.models import load
from distill3d.publish import PackOptions, make_pack
from distill3d.recipe import distill
from distill3d.showcase import Showcase, look
from distill3d_lrm.low_rank import MARK, add_low_rank

SEEDS, YAWS = [3], [-20.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of the embedded model's default group: low-rank changes, and the decoder."""
    config = DistillConfig(style="zombie", backbone="tiny-lrm", steps=2, probe=0, lr=0.02)
    with pytest.MonkeyPatch.context() as patch:
        for picture in ("preview", "sheet", "turntable"):  # nobody looks at them
            patch.setattr(Showcase, picture, lambda *arguments: None)
        patch.setattr(HealthCheck, "check", lambda check, step: Health(step, 1.0, 1.0, 1.0, 1.0))
        return distill(config, tmp_path_factory.mktemp("runs") / "zombie-lrm")


@pytest.fixture(scope="module")
def packs(run):
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(publish, "TRIED_SEEDS", (0,))
    options = {form: PackOptions(format=form, pictures=False) for form in ("full", "half", "low-rank")}
    yield {
        form: make_pack(run, run.parent / form, repo_id="user/zombie", options=each) for form, each in options.items()
    }
    monkeypatch.undo()


def picture(model):
    return look(model, SEEDS, YAWS)


def rms(one, other):
    return (one - other).square().mean((-3, -2, -1)).sqrt().max().item()


def test_what_was_trained_is_of_both_kinds(run):
    trained = load(run).palette.trained["zombie-lrm"]
    assert any(MARK in name for name in trained) and not all(MARK in name for name in trained)


def test_a_full_pack_is_the_run_bit_for_bit(run, packs):
    assert torch.equal(picture(load(packs["full"].folder)), picture(load(run)))


@pytest.mark.parametrize("form", ["half", "low-rank"])
def test_a_smaller_one_is_near_the_run(run, packs, form):
    exact, stated = load(run), packs[form].content.adapter
    error = rms(picture(load(packs[form].folder)), picture(exact))
    assert error <= 1.5 * stated.pictures_error  # the largest of three other pictures
    assert 0 < stated.pictures_error < rms(picture(exact), picture(exact.original)) / 5
    assert stated.size < packs["full"].content.adapter.size


@pytest.mark.parametrize("form", ["full", "half", "low-rank"])
def test_what_a_newer_package_would_draw_for_the_factors_changes_nothing(packs, form, monkeypatch):
    expected = picture(load(packs[form].folder))

    def drawn_otherwise(model, *arguments):
        fresh = not any(MARK in name for name, _ in model.named_parameters())
        add_low_rank(model, *arguments)
        if fresh:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_A" in name:
                        parameter.normal_()

    monkeypatch.setattr(renderer_module, "add_low_rank", drawn_otherwise)
    assert torch.equal(picture(load(packs[form].folder)), expected)
    half = load(packs[form].folder).blend({form: 0.5})
    monkeypatch.undo()
    torch.testing.assert_close(picture(half), picture(load(packs[form].folder).blend({form: 0.5})))
