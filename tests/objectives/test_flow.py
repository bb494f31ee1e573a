"""For Gaussian data the probability flow has a closed form: it whitens with one covariance and colours with another."""

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.objectives.flow import carry, ladder
from distill3d.scorers.gaussian import GaussianScorer

TOP = 0.8


@pytest.fixture
def scorer():
    return GaussianScorer(latent_size=4, seed=3)


@pytest.fixture
def latents(scorer):
    return torch.randn(2, scorer.latent_channels, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def walk(scorer, latents, prompt, timesteps):
    conditions = {"prompt": scorer.condition([prompt] * len(latents))}
    return carry(scorer, latents, timesteps, conditions, lambda branches: branches["prompt"])


def levels(scorer, steps):
    return ladder(TOP, steps, len(scorer.schedule))


def root(matrix):
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.sqrt()) @ vectors.T


def at_level(scorer, prompt, shape, timestep):
    """Mean and covariance of the noised data."""
    known = scorer.distribution(prompt, tuple(shape))
    signal, sigma = scorer.schedule.signals[timestep], scorer.schedule.noises[timestep]
    covariance = torch.diag(known.diagonal) + known.factors @ known.factors.T
    return signal * known.means[0], signal**2 * covariance + sigma**2 * torch.eye(len(covariance)).double()


def exact(scorer, latents, prompt, start, end):
    """Every noised covariance has the same eigenvectors, so the flow scales along them."""
    (mean, covariance), (other_mean, other) = (at_level(scorer, prompt, latents.shape[1:], t) for t in (start, end))
    whitened = (latents.flatten(1) - mean) @ torch.linalg.inv(root(covariance))
    return (other_mean + whitened @ root(other)).view_as(latents)


def error(ours, truth):
    return float((ours - truth).norm() / truth.norm())


def test_small_steps_reach_the_closed_form_towards_noise_and_back(scorer, latents):
    top = levels(scorer, 1)[-1]
    there = walk(scorer, latents, "a zombie", levels(scorer, 200))
    assert error(there, exact(scorer, latents, "a zombie", 0, top)) < 0.02
    back = walk(scorer, there, "a statue", levels(scorer, 200)[::-1])
    assert error(back, exact(scorer, there, "a statue", top, 0)) < 0.03


def test_the_way_back_by_the_same_prompt_ends_where_it_began_the_better_the_smaller_the_steps(scorer, latents):
    errors = []
    for steps in (5, 20, 80):
        there = walk(scorer, latents, "a zombie", levels(scorer, steps))
        errors.append(error(walk(scorer, there, "a zombie", levels(scorer, steps)[::-1]), latents))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.1


def test_another_prompt_leads_elsewhere(scorer, latents):
    there = walk(scorer, latents, "a zombie", levels(scorer, 50))
    same, other = (walk(scorer, there, prompt, levels(scorer, 50)[::-1]) for prompt in ("a zombie", "a statue"))
    assert error(same, latents) < 0.2 < error(other, latents)


def test_each_picture_walks_alone(scorer, latents):
    together = walk(scorer, latents, "a zombie", levels(scorer, 3))
    alone = torch.cat([walk(scorer, one, "a zombie", levels(scorer, 3)) for one in latents.split(1)])
    torch.testing.assert_close(together, alone)


def test_levels_run_from_clean_to_the_top():
    assert ladder(0.8, 4, 1001) == [0, 200, 400, 600, 800]
    assert ladder(0.5, 1, 1001) == [0, 500]


@pytest.mark.parametrize(("top", "steps"), [(0.0, 3), (1.0, 3), (0.5, 0)])
def test_a_flow_to_nowhere_is_refused(top, steps):
    with pytest.raises(ConfigError, match="1 step or more"):
        ladder(top, steps, 1000)
