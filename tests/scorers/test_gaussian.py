"""The closed-form scorer: its score is autograd's, and its distributions are what they are said to be."""

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.scorers.gaussian import GaussianScorer, load_gaussian
from distill3d.testing import check_scorer


@pytest.fixture(params=[1, 2])
def scorer(request):
    return GaussianScorer(modes=request.param, seed=5)


@pytest.mark.parametrize("t", [1, 300, 999])
def test_the_predicted_noise_is_the_score_of_log_prob(scorer, t):
    noisy = torch.randn(2, 4, 8, 8, dtype=torch.float64, requires_grad=True)
    timestep = torch.full((2,), t)
    control = torch.rand(2, 3, 16, 16)
    condition = scorer.condition(["a zombie", ""], controls={"depth": control})
    (score,) = torch.autograd.grad(scorer.log_prob(noisy, timestep, condition).sum(), noisy)
    predicted = scorer.predict_noise(noisy.detach(), timestep, {"prompt": condition})["prompt"]
    torch.testing.assert_close(predicted, -scorer.schedule.noise(timestep) * score)


def test_sampled_data_has_the_stated_moments():
    scorer = GaussianScorer(seed=5)
    known = scorer.distribution("a zombie", (4, 8, 8))
    assert known.means.std() > 0.5  # varies over the picture
    covariance = torch.diag(known.diagonal) + known.factors @ known.factors.T
    off = covariance - torch.diag(torch.diag(covariance))
    assert (off.abs() > 1e-3).double().mean() > 0.9  # every pixel is coupled with nearly every other


def test_each_prompt_and_shape_has_a_distribution_of_its_own_that_repeats():
    a, b = GaussianScorer(seed=5), GaussianScorer(seed=5)
    one = a.distribution("a zombie", (4, 8, 8))
    assert torch.equal(one.means, b.distribution("a zombie", (4, 8, 8)).means)
    for prompt in ("", "a werewolf"):
        other = a.distribution(prompt, (4, 8, 8))
        assert not torch.allclose(one.means, other.means)
        assert not torch.allclose(one.factors, other.factors)
    assert a.distribution("a zombie", (4, 8, 16)).means.shape[1] == 4 * 8 * 16


def test_two_modes_make_a_score_that_is_not_linear():
    t = torch.tensor([300])
    nonlinearity = {}
    for modes in (1, 2):
        scorer = GaussianScorer(modes=modes, seed=5)
        condition = scorer.condition(["a"])
        a, b = (m.view(1, 4, 8, 8) for m in GaussianScorer(modes=2, seed=5).distribution("a", (4, 8, 8)).means)
        ends = [scorer.predict_noise(x, t, {"p": condition})["p"] for x in (a, b, (a + b) / 2)]
        nonlinearity[modes] = float((ends[2] - (ends[0] + ends[1]) / 2).norm())
    assert nonlinearity[1] < 1e-9
    assert nonlinearity[2] > 0.1


def test_decoding_inverts_encoding_on_what_was_decoded():
    scorer = GaussianScorer()
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(scorer.encode(scorer.decode(latents)), latents)


def test_it_keeps_the_contract():
    check_scorer(load_gaussian())


def test_what_it_cannot_use_is_refused():
    scorer = GaussianScorer()
    with pytest.raises(ConfigError, match="no control pose"):
        scorer.condition(["a"], controls={"pose": torch.zeros(1, 3, 16, 16)})
    with pytest.raises(ConfigError, match="prompts and controls only"):
        scorer.condition(["a"], image=torch.zeros(1, 3, 16, 16))
    with pytest.raises(ConfigError, match="no weights"):
        load_gaussian("somewhere")
    with pytest.raises(ConfigError, match="at least one mode"):
        GaussianScorer(modes=0)
