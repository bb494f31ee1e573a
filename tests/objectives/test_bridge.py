"""A bridge's target comes from the reference alone, and its gradient is that of the difference to it."""

import pytest
import torch

from distill3d.cameras import CameraPrior, orbit
from distill3d.draws import Draws
from distill3d.objectives import LDLoss
from distill3d.objectives.bridge import Bridge
from distill3d.objectives.denoising import Denoising, pick
from distill3d.objectives.term import Side, StepBatch
from distill3d.renderer import Render
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.views import Grid, Mirror, Single, View

PRIOR = CameraPrior()
LAYOUTS = {"single": Single(View("main", PRIOR)), "mirror": Mirror(View("main", PRIOR)), "grid": Grid(2, 2, PRIOR)}
SIZE, SUBJECTS = 16, 2


@pytest.fixture
def scorer():
    return GaussianScorer(latent_size=8, seed=4)


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


def rendered(size):
    picture = torch.rand(SUBJECTS, 1, 3, size, size, dtype=torch.float64) * 1.6 - 0.8
    depth, opacity = torch.rand(2, SUBJECTS, 1, 1, size, size, dtype=torch.float64)
    return Render(picture, 1 + depth, opacity, picture.clone().requires_grad_())


def a_batch(layout):
    sides = [Side({}, {view: rendered(layout.tile(SIZE)) for view in layout.views}) for _ in range(2)]
    yaw = torch.zeros(SUBJECTS, 1)
    cameras = dict.fromkeys(layout.views, orbit(yaw, yaw))
    return StepBatch(Draws(0, 0, tuple(range(SUBJECTS))), torch.zeros(SUBJECTS, 1), cameras, *sides)


def bridge(scorer, layout, prompt="a zombie", guidance_scale=2.0, controls=(), **options):
    recipe = Denoising(scorer, layout, {"prompt": prompt, "empty": ""}, pick([1]), controls=controls)
    return Bridge(recipe, LDLoss(scorer, guidance_scale=guidance_scale), **options)


def shown(layout, side):
    return layout.join(torch.cat([side.views[view].image for view in layout.shown], 1)).detach()


def test_the_target_reads_the_reference_and_not_the_trained_side(scorer, layout):
    term, batch = bridge(scorer, layout), a_batch(layout)
    target = term.target(batch)
    other = a_batch(layout)
    assert torch.equal(
        term.target(StepBatch(batch.draws, batch.codes, batch.cameras, other.trained, batch.reference)), target
    )
    assert not torch.equal(
        term.target(StepBatch(batch.draws, batch.codes, batch.cameras, batch.trained, other.reference)), target
    )


def test_the_target_is_the_same_in_every_step_and_for_every_seed(scorer):
    layout = LAYOUTS["single"]
    batch = a_batch(layout)
    later = StepBatch(Draws(9, 5, tuple(range(SUBJECTS))), batch.codes, batch.cameras, batch.trained, batch.reference)
    assert torch.equal(bridge(scorer, layout).target(batch), bridge(scorer, layout).target(later))


def test_a_bridge_to_the_empty_prompt_leads_back_to_the_reference(scorer, layout):
    """Whatever the guidance scale: the two branches agree. What is left is the error of 150 steps, not of the idea."""
    batch = a_batch(layout)
    target = bridge(scorer, layout, prompt="", guidance_scale=5.0, steps=(150, 150)).target(batch)
    reference = scorer.decode(scorer.encode(shown(layout, batch.reference)))
    assert (target - reference).norm() < 0.1 * reference.norm()


def test_the_gradient_is_that_of_each_views_difference_to_its_part_of_the_target(scorer, layout):
    """A tile of a grid has a quarter of the target, a mirrored view the flipped one."""
    term, batch = bridge(scorer, layout), a_batch(layout)
    leaves = [render.image for render in batch.trained.views.values()]
    loss = term.forward(batch)
    got = torch.autograd.grad(loss.sum(), leaves)

    target = term.target(batch)
    half = target.shape[-1] // 2
    parts = {
        "Single": [target],
        "Mirror": [target, target.flip(-1)],
        "Grid": [target[..., y : y + half, x : x + half] for y in (0, half) for x in (0, half)],
    }[type(layout).__name__]
    differences = [leaf.detach()[:, 0] - part for leaf, part in zip(leaves, parts)]
    torch.testing.assert_close(loss.detach(), torch.cat([d.flatten(1) for d in differences], 1).abs().mean(1) / 2)
    count = sum(d[0].numel() for d in differences)
    for of_view, difference in zip(got, differences):
        torch.testing.assert_close(of_view[:, 0], difference.sign() / 2 / count)
    assert batch.figures["bridge"] == pytest.approx(float(loss.detach().mean()))


def test_it_asks_for_the_references_picture_where_it_reads_it(scorer, layout):
    needs = bridge(scorer, layout).needs
    assert dict(needs.views) == dict.fromkeys(layout.views, "image")
    assert dict(needs.reference) == dict.fromkeys(layout.shown, "image")


def test_control_and_rank_weights_change_the_target(scorer):
    layout = LAYOUTS["single"]
    batch = a_batch(layout)
    plain = bridge(scorer, layout).target(batch)
    assert not torch.equal(bridge(scorer, layout, controls=("depth",)).target(batch), plain)
    ranked = bridge(scorer, layout)
    ranked.objective = LDLoss(scorer, guidance_scale=2.0, rank_weights=(1.0, 0.75, 0.5, 0.25))
    assert not torch.equal(ranked.target(batch), plain)
    ranked.objective = LDLoss(scorer, guidance_scale=2.0, rank_weights=(1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(ranked.target(batch), plain)


def test_kept_targets_are_computed_once_for_equal_draws_and_only_lose_half_precision(scorer, monkeypatch):
    layout = LAYOUTS["single"]
    first, other = a_batch(layout), a_batch(layout)
    other.draws = Draws(0, 1, other.draws.subjects)
    fresh, kept = bridge(scorer, layout), bridge(scorer, layout, keep=True)
    losses = [fresh.forward(batch) for batch in (first, other, first)]
    calls = []
    monkeypatch.setattr(kept, "target", lambda batch, real=kept.target: calls.append(1) or real(batch))
    for batch, loss in zip((first, other, first), losses):
        torch.testing.assert_close(kept.forward(batch), loss, rtol=1e-2, atol=1e-4)
    assert len(calls) == 2
