"""The published networks without their weights: a step can be planned, and nothing is allocated."""

import pytest
from small import small_triposr

from distill3d import methods
from distill3d.plugins import registry
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training.planning import MemoryPlan, predict
from distill3d.training.trainer import Trainer
from distill3d_lrm.renderer import Look
from distill3d_lrm.shapes import renderer_of


@pytest.mark.parametrize(("name", "millions"), [("triposr", 419), ("openlrm", 260)])
def test_a_published_network_has_its_size_and_no_weights(name, millions):
    renderer = registry().find("architecture", name).load()()
    assert {p.device.type for p in renderer.parameters()} == {"meta"}
    assert sum(p.numel() for p in renderer.parameters()) == pytest.approx(millions * 1e6, rel=0.05)


def test_rays_that_are_computed_again_are_not_kept():
    renderer = renderer_of(small_triposr().to("meta"), Look(rays_at_once=64), image_size=32)
    scorer = GaussianScorer(latent_size=8)
    method = methods.csd(scorer, CATALOGUE["zombie"], renderer.defaults)
    kept, again = (predict(MemoryPlan(low_memory=low), renderer, scorer, method, kind="cpu") for low in (False, True))
    assert again.activations("views") < 0.5 * kept.activations("views")
    assert again.flops > kept.flops


def test_what_is_planned_with_can_take_a_real_step_too():
    renderer = renderer_of(small_triposr(), Look(), image_size=16)
    scorer = GaussianScorer(latent_size=8)
    trainer = Trainer(renderer, methods.csd(scorer, CATALOGUE["zombie"], renderer.defaults))
    assert not trainer.step().skipped
