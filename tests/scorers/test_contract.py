"""What the contract says of scorers that save memory or compute in half precision: kept, and broken."""

import pytest
import torch

from distill3d.scorer import Economical, Economy
from distill3d.scorers.diffusers import load_tiny
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.testing import ContractError, check_scorer


class Thrifty(GaussianScorer, Economical):
    """Says that it saves memory, and changes nothing."""

    def economise(self, economy):
        self.economy = economy


class Forgets(Thrifty):
    def economise(self, economy):
        pass


class DropsABranch(Thrifty):
    def predict_noise(self, noisy, timestep, conditions):
        found = super().predict_noise(noisy, timestep, conditions)
        first = next(iter(found.values()))
        return {name: first if self.economy.branches_apart else x for name, x in found.items()}


class CoarseDecoder(Thrifty):
    def decode(self, latents):
        pictures = super().decode(latents)
        return pictures.round(decimals=1) if self.economy.sliced_decoder else pictures


class CutsTheGraph(Thrifty):
    def encode(self, images, noise=None):
        with torch.set_grad_enabled(not (self.economy.recompute_encoder and self.economy.offload)):
            return super().encode(images, noise)


def test_one_that_saves_memory_and_changes_nothing_keeps_it_and_stays_as_it_was():
    scorer = Thrifty()
    scorer.economise(Economy(sliced_decoder=True))
    report = check_scorer(scorer)
    assert len(report.checks) == 15 and not report.skipped
    assert scorer.economy == Economy(sliced_decoder=True)


def test_scorers_without_the_capability_are_not_asked():
    assert len(check_scorer(GaussianScorer()).checks) == 14


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Forgets, r"economy after economise: expected Economy\(recompute_encoder=True"),
        (DropsABranch, r"predict_noise\(\)\['second'\] with branches_apart: expected what it is without"),
        (CoarseDecoder, "decode with sliced_decoder: expected what it is without"),
        (CutsTheGraph, "does not require grad"),  # only with all economies together
    ],
)
def test_an_economy_that_changes_a_result_is_named(broken, message):
    scorer = broken()
    with pytest.raises(ContractError, match=message):
        check_scorer(scorer)
    assert scorer.economy == Economy()


def test_the_embedded_model_is_asked_for_both_in_half_precision():
    promises = [check.promise for check in check_scorer(load_tiny(precision="bfloat16")).checks]
    assert len(promises) == 16
    assert [p for p in promises if "half precision" in p] and [p for p in promises if "Economical" in p]


def test_a_timestep_that_was_rounded_is_noticed(monkeypatch):
    scorer = load_tiny(precision="bfloat16")
    real = scorer.predict_noise
    rounded = lambda noisy, t, conditions: real(noisy, t.bfloat16().long().clamp(max=999), conditions)  # noqa: E731
    monkeypatch.setattr(scorer, "predict_noise", rounded)
    with pytest.raises(ContractError, match="equal ones at 996 and 997"):
        check_scorer(scorer)
