"""For Gaussian data log p(x_t | y) has a closed form, so LD must be autograd's gradient of it.

The mean varies over the pixels and the covariance couples all of them, hence the views of a grid: the last tests show
that swapped tiles, a dropped flip or a schedule read by step would not pass.
"""

import pytest
import torch

from distill3d.cameras import CameraPrior
from distill3d.draws import Draws
from distill3d.objectives import LDLoss
from distill3d.objectives.denoising import Denoising, pick
from distill3d.objectives.term import Side, StepBatch
from distill3d.objectives.terms import ScoreTerm
from distill3d.renderer import Render
from distill3d.schedule import Schedule
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.views import Grid, Mirror, Single, View

PRIOR = CameraPrior()
LAYOUTS = {"single": Single(View("main", PRIOR)), "mirror": Mirror(View("main", PRIOR)), "grid": Grid(2, 2, PRIOR)}
TIMESTEPS = [20, 400, 980]
SIZE = 16


@pytest.fixture(params=["one mode", "two modes"])
def scorer(request):
    return GaussianScorer(latent_size=8, modes=1 if request.param == "one mode" else 2, seed=3)


def leaves_of(layout, subjects=2):
    """One picture for each view of the layout, as the trainer would hand them over."""
    size = layout.tile(SIZE)
    pictures = torch.rand(len(layout.views), subjects, 1, 3, size, size, dtype=torch.float64) * 2 - 1
    return [picture.requires_grad_() for picture in pictures]


def term_gradients(scorer, layout, leaves, timestep, loss):
    """What the term puts on the pixels, and the noise that it drew."""
    recipe = Denoising(scorer, layout, {"prompt": "a zombie"}, pick([timestep]))
    flat = [torch.ones_like(leaf[:, :, :1]) for leaf in leaves]
    views = {view: Render(leaf, one, one, leaf) for view, leaf, one in zip(layout.views, leaves, flat)}
    codes = torch.zeros(2, 1)
    cameras = {view: view.cameras(Draws(0, 0, (0, 1))) for view in layout.views}
    batch = StepBatch(Draws(0, 0, (0, 1)), codes, cameras, Side({}, views), Side({}))
    total = ScoreTerm(recipe, loss).forward(batch).sum()
    return torch.autograd.grad(total, leaves), recipe.predict(batch)


def exact_gradients(scorer, layout, leaves, prediction, schedule=None):
    """Autograd through log p, written without `join`: tiles pasted by slices, the mirror by flipping."""
    if isinstance(layout, Grid):
        rows = [torch.cat([leaves[r * 2][:, 0], leaves[r * 2 + 1][:, 0]], -1) for r in range(2)]
        picture = torch.cat(rows, -2)
    else:
        picture = leaves[0][:, 0]
    noisy = (schedule or scorer.schedule).add_noise(scorer.encode(picture), prediction.noise, prediction.timestep)
    log_prob = scorer.log_prob(noisy, prediction.timestep, prediction.conditions["prompt"]).sum()
    own = leaves if isinstance(layout, Grid) else leaves[:1]
    exact = list(torch.autograd.grad(-log_prob, own))
    return [*exact, exact[0].flip(-1)] if isinstance(layout, Mirror) else exact


@pytest.mark.parametrize("timestep", TIMESTEPS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ld_is_the_gradient_of_the_exact_likelihood(scorer, layout, timestep):
    layout, loss = LAYOUTS[layout], LDLoss(scorer, score="conditional")
    leaves = leaves_of(layout)
    got, prediction = term_gradients(scorer, layout, leaves, timestep, loss)
    for a, b in zip(got, exact_gradients(scorer, layout, leaves, prediction), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_guidance_scale_one_is_the_conditional_prediction(scorer, timestep):
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    noise = torch.randn_like(latents)
    loss = LDLoss(scorer, guidance_scale=1.0).on_latents(latents, "a zombie", timestep=timestep, noise=noise)
    t = torch.full((2,), timestep)
    noisy = scorer.schedule.add_noise(latents, noise, t)
    exact = -scorer.log_prob(noisy, t, scorer.condition(["a zombie"] * 2)).sum()
    (got,), (want,) = torch.autograd.grad(loss, latents), torch.autograd.grad(exact, latents)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12)


def test_the_public_loss_on_images_with_a_mirrored_view_is_the_exact_likelihood(scorer):
    images, mirrored = (torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True) for _ in range(2))
    noise = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    loss = LDLoss(scorer, score="conditional")
    got = torch.autograd.grad(loss(images, "a zombie", mirrored, timestep=400, noise=noise), [images, mirrored])
    t = torch.full((2,), 400)
    noisy = scorer.schedule.add_noise(scorer.encode(images), noise, t)
    exact = -scorer.log_prob(noisy, t, scorer.condition(["a zombie"] * 2)).sum()
    (want,) = torch.autograd.grad(exact, images)
    torch.testing.assert_close(got[0], want, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(got[1], want.flip(-1), rtol=1e-9, atol=1e-12)


class SwappedGrid(Grid):
    def join(self, tiles):
        return super().join(tiles[:, [0, 2, 1, 3]])


class UnflippedMirror(Mirror):
    def join(self, tiles):
        return super().join(torch.stack([tiles[:, 0], tiles[:, -1].flip(-1)], 1)) if tiles.shape[1] > 1 else tiles[:, 0]


@pytest.mark.parametrize("timestep", TIMESTEPS)
@pytest.mark.parametrize("broken", [SwappedGrid(2, 2, PRIOR), UnflippedMirror(View("main", PRIOR))])
def test_swapped_tiles_and_a_dropped_flip_are_caught(scorer, broken, timestep):
    leaves = leaves_of(broken)
    got, prediction = term_gradients(scorer, broken, leaves, timestep, LDLoss(scorer, score="conditional"))
    exact = exact_gradients(scorer, broken, leaves, prediction)
    assert max(relative(a, b) for a, b in zip(got, exact, strict=True)) > 0.1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_a_schedule_read_by_step_instead_of_timestep_is_caught(scorer, layout, timestep):
    layout = LAYOUTS[layout]
    leaves = leaves_of(layout)
    got, prediction = term_gradients(
        scorer, layout, leaves, timestep, LDLoss(scorer, score="conditional", weighting="released")
    )
    exact = exact_gradients(scorer, layout, leaves, prediction)
    assert relative(got[0], exact[0]) > 0.02

    good = scorer.schedule
    scorer.schedule = Schedule(good.signals.flip(0), good.noises.flip(0))
    try:
        got, prediction = term_gradients(scorer, layout, leaves, timestep, LDLoss(scorer, score="conditional"))
    finally:
        scorer.schedule = good
    assert relative(got[0], exact_gradients(scorer, layout, leaves, prediction)[0]) > 0.02


def relative(a, b):
    return float((a - b).norm() / b.norm())
