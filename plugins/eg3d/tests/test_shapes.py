"""The published networks without their weights: a step can be planned, and nothing is allocated."""

import pytest
import torch

from distill3d import methods
from distill3d.plugins import registry
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training.planning import MemoryPlan, not_offered, predict


@pytest.mark.parametrize(("name", "millions"), [("panohead", 54), ("eg3d", 30)])
def test_a_published_network_has_its_size_and_no_weights(name, millions):
    renderer = registry().find("architecture", name).load()()
    counted = [p for n, p in renderer.named_parameters() if ".mapping." not in n and "t_mapping" not in n]
    assert {p.device.type for p in renderer.parameters()} == {"meta"}
    assert sum(p.numel() for p in counted) == pytest.approx(millions * 1e6, rel=0.03)


def test_making_it_leaves_the_callers_random_numbers_alone():
    before = torch.get_rng_state()
    registry().find("architecture", "panohead").load()()
    assert torch.equal(torch.get_rng_state(), before)


def test_low_memory_keeps_less_of_a_view_and_computes_more():
    renderer = registry().find("architecture", "panohead").load()()
    scorer = GaussianScorer(latent_size=8)
    method = methods.csd(scorer, CATALOGUE["zombie"], renderer.defaults)
    kept, again = (predict(MemoryPlan(low_memory=low), renderer, scorer, method, kind="cuda") for low in (False, True))
    of_view = [found.activations("views") - found.activations("scene") for found in (kept, again)]
    assert of_view[1] < 0.3 * of_view[0]
    assert again.peak < kept.peak
    assert again.flops > kept.flops
    assert "rays computed again" not in not_offered(renderer, scorer, batch=1)
