"""Ranges and guidance move in a straight line; an antithetic pair removes what is odd in the noise."""

import pytest
import torch

from distill3d.draws import Draws
from distill3d.errors import ConfigError
from distill3d.methods import csd, ld, ld_paper, sds
from distill3d.objectives import LDLoss
from distill3d.objectives.annealing import NO_ANNEALING, Annealing
from distill3d.renderer import RunDefaults
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training.trainer import Trainer
from tests.toys import single_view_method, toy

SCORER = GaussianScorer(latent_size=8)
DEFAULTS = RunDefaults(steps=101)
ZOMBIE = CATALOGUE["zombie"]


def test_an_objective_is_its_own_at_the_first_step_and_the_end_at_the_last():
    loss, annealing = LDLoss(SCORER, guidance_scale=10.0, t_range=(0.4, 0.9)), Annealing(101, (0.0, 0.1), 2.0)
    first, middle, last, after = (annealing.objective(loss, step) for step in (0, 50, 100, 1000))
    assert (first.t_range, first.guidance_scale) == (loss.t_range, loss.guidance_scale)
    assert middle.t_range == pytest.approx((0.2, 0.5))
    assert middle.guidance_scale == pytest.approx(6.0)
    assert last == after
    assert last.t_range == pytest.approx((0.0, 0.1))
    assert last.guidance_scale == pytest.approx(2.0)


def test_without_an_end_nothing_changes():
    loss = LDLoss(SCORER)
    assert not NO_ANNEALING
    assert NO_ANNEALING.objective(loss, 7) is loss


def test_timesteps_are_drawn_from_the_range_of_their_step():
    loss, annealing = LDLoss(SCORER, t_range=(0.5, 0.9)), Annealing(101, (0.0, 0.1))
    draw = annealing.timesteps(loss)
    drawn = {step: draw(Draws(0, step, tuple(range(200)))) for step in (0, 100)}
    assert drawn[0].min() >= 500 and drawn[0].max() < 900
    assert drawn[100].max() < 100


@pytest.mark.parametrize("build", [ld, ld_paper, sds, csd])
def test_every_method_that_draws_noise_takes_the_schedules(build):
    method = build(SCORER, ZOMBIE, DEFAULTS, t_range_end=(0.02, 0.1), antithetic=True)
    term = method.terms["score"].term
    assert term.antithetic
    drawn = term.denoising.timesteps(Draws(0, 100, tuple(range(100))))
    assert drawn.max() < 100


def test_a_flow_has_no_noise_level_to_anneal():
    for settings in ({"t_range_end": (0.1, 0.2)}, {"guidance_end": 2.0}, {"antithetic": True}):
        with pytest.raises(ConfigError, match="path=noise"):
            ld(SCORER, ZOMBIE, DEFAULTS, path="flow", **settings)


def test_a_range_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="t_range_end"):
        Annealing(10, (0.5, 0.2))


def noise_variance(scorer, antithetic, timestep=400, draws=48):
    """Mean variance over the noise of the latent gradient of one picture, and its mean."""
    method = single_view_method(scorer, guidance_scale=1.0)
    term = method.terms["v0"].term
    term.antithetic, term.denoising.timesteps = antithetic, lambda d: torch.tensor([timestep])
    trainer = Trainer(toy(), method)
    batch, _ = trainer.look_at(0, "v0")
    found = []
    for i in range(draws):
        batch.draws = Draws(i, 0, (0,))
        batch.memo.clear()
        found.append(term.latent_gradient(term.denoising.predict(batch), batch).detach())
    found = torch.stack(found)
    return float(found.var(0).mean()), found.mean(0)


def test_on_a_gaussian_an_antithetic_pair_has_no_variance_from_the_noise_and_the_same_mean():
    """eps_hat is affine in x_t there: eps_hat(x + n) + eps_hat(x - n) = 2 eps_hat(x), whatever n is."""
    plain, mean = noise_variance(GaussianScorer(latent_size=8, seed=3), False)
    paired, exact = noise_variance(GaussianScorer(latent_size=8, seed=3), True)
    assert paired < 1e-20 < plain
    assert (mean - exact).square().mean() < 3 * plain / 48  # the plain mean over 48 draws is that close to it


def test_on_a_mixture_it_lowers_the_variance_by_more_than_the_half_that_two_draws_would():
    scorer = GaussianScorer.mixture(latent_size=8, seed=3)
    plain, _ = noise_variance(scorer, False)
    paired, _ = noise_variance(scorer, True)
    assert 1e-12 < paired < 0.5 * plain


def test_it_looks_twice_and_encodes_once():
    scorer = GaussianScorer(latent_size=8)
    looks, encodes = [], []
    predict, encode = scorer.predict_noise, scorer.encode
    scorer.predict_noise = lambda *a: looks.append(1) or predict(*a)
    scorer.encode = lambda *a: encodes.append(1) or encode(*a)
    method = single_view_method(scorer)
    method.terms["v0"].term.antithetic = True
    Trainer(toy(), method).step()
    assert (len(looks), len(encodes)) == (2, 1)
