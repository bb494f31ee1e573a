"""A scorer that returns NaN: now and then a step is skipped and counted; for good, the run ends and says so."""

import json

import pytest
import torch

from distill3d import recipe
from distill3d.config import DistillConfig
from distill3d.errors import DivergedError
from distill3d.plugins import Offer, registry
from distill3d.report.page import write_report
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.training.checkpoint import latest_good_checkpoint
from tests.faults.children import bare, records

CONFIG = DistillConfig(style="zombie", backbone="toy", scorer="sick", method="sds", steps=30, save_every=4, ema=0.9)


class SickScorer(GaussianScorer):
    """NaN at some of its calls; SDS without a mirror and a grid makes one in a step."""

    calls = 0
    sick = staticmethod(lambda call: False)

    def predict_noise(self, *arguments, **options):
        predictions = super().predict_noise(*arguments, **options)
        SickScorer.calls += 1
        if SickScorer.sick(SickScorer.calls - 1):
            return {name: torch.full_like(prediction, torch.nan) for name, prediction in predictions.items()}
        return predictions


def load_sick(weights=None, device="cpu"):
    return SickScorer(latent_size=8)


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    bare(monkeypatch)
    monkeypatch.setattr(recipe, "write_report", write_report)
    offer = Offer("sick", "tests.faults.test_not_finite:load_sick", "tests")
    monkeypatch.setitem(registry().offers["scorer"], "sick", offer)
    monkeypatch.setattr(SickScorer, "calls", 0)


def sick_at(monkeypatch, when):
    monkeypatch.setattr(SickScorer, "sick", staticmethod(when))


def skipped(folder):
    return [r["step"] for r in records(folder) if r["skipped"]]


def test_a_scorer_that_is_sick_once_costs_one_step(tmp_path, monkeypatch):
    sick_at(monkeypatch, lambda call: call == 5)
    folder = recipe.distill(CONFIG, tmp_path / "run")
    assert skipped(folder) == [5]
    assert len(records(folder)) == 30
    assert json.loads((folder / "run.json").read_text())["status"] == "finished"


def test_a_scorer_that_stays_sick_ends_the_run_after_ten_steps_and_the_last_weights_are_kept(tmp_path, monkeypatch):
    sick_at(monkeypatch, lambda call: call >= 6)
    folder = tmp_path / "run"
    with pytest.raises(DivergedError, match=r"10 steps in a row .* step 15"):
        recipe.distill(CONFIG, folder)
    assert skipped(folder) == list(range(6, 16))
    found, said = latest_good_checkpoint(folder / "checkpoints")
    assert found.step == 12 and not said
    assert (folder / "report.html").exists()


def test_a_skipped_step_changes_nothing_that_is_published(tmp_path, monkeypatch):
    """Six healthy steps, then six sick ones: the checkpoints of steps 8 and 12 hold the weights of step 6."""
    sick_at(monkeypatch, lambda call: call >= 6)
    with pytest.raises(DivergedError):
        recipe.distill(CONFIG, tmp_path / "run")
    at = {c.name: c for c in (tmp_path / "run" / "checkpoints").iterdir()}
    for name in ("weights.safetensors", "averaged.safetensors"):
        assert (at["step-000008"] / name).read_bytes() == (at["step-000012"] / name).read_bytes()


def test_a_run_that_is_continued_goes_on_counting_the_steps_it_skips(tmp_path, monkeypatch):
    sick_at(monkeypatch, lambda call: call >= 6)
    folder = tmp_path / "run"
    with pytest.raises(DivergedError):
        recipe.distill(CONFIG, folder)
    monkeypatch.setattr(SickScorer, "calls", 12)  # the checkpoint is of step 12
    with pytest.raises(DivergedError, match="step 15"):
        recipe.resume(folder)


def test_a_run_whose_scorer_is_well_again_is_continued_to_its_end(tmp_path, monkeypatch):
    sick_at(monkeypatch, lambda call: call >= 6)
    folder = tmp_path / "run"
    with pytest.raises(DivergedError):
        recipe.distill(CONFIG, folder)
    sick_at(monkeypatch, lambda call: False)
    recipe.resume(folder)
    assert skipped(folder) == list(range(6, 12))
    assert len(records(folder)) == 30
