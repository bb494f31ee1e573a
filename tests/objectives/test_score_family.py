"""LD, SDS and CSD are one family: their identities, their limits, and what they refuse."""

import pytest
import torch

from distill3d.errors import ConfigError, ShapeError
from distill3d.objectives import CSDLoss, LDLoss, ScoreDistillation, SDSLoss
from distill3d.objectives.guidance import guide
from distill3d.objectives.score import variant
from distill3d.objectives.weighting import WEIGHTINGS
from distill3d.scorers.gaussian import GaussianScorer

SCORERS = {"gaussian": GaussianScorer(seed=1), "mixture": GaussianScorer.mixture(seed=2)}


@pytest.fixture(params=SCORERS)
def scorer(request):
    return SCORERS[request.param]


@pytest.fixture
def drawn():
    latents, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    return latents, noise, torch.tensor([30, 400, 900])


def gradient(loss, drawn, prompt="a zombie", **options):
    latents, noise, timestep = drawn
    leaf = latents.clone().requires_grad_()
    total = loss.on_latents(leaf, prompt, timestep=timestep, noise=noise, **options)
    return torch.autograd.grad(total, leaf)[0]


def test_the_scorers_empty_and_prompt_distributions_differ(scorer, drawn):
    latents, _, timestep = drawn
    branches = {name: scorer.condition([text] * 3) for name, text in (("prompt", "a zombie"), ("empty", ""))}
    predicted = scorer.predict_noise(latents, timestep, branches)
    assert (predicted["prompt"] - predicted["empty"]).norm() > 0.1 * predicted["empty"].norm()


@pytest.mark.parametrize("weighting", sorted(WEIGHTINGS))
@pytest.mark.parametrize("options", [{}, {"rank_weights": (1, 0.75, 0.5, 0.25)}, {"score": "conditional"}])
def test_ld_minus_sds_is_the_weighted_noise(scorer, drawn, weighting, options):
    ld = gradient(LDLoss(scorer, weighting=weighting, **options), drawn)
    sds = gradient(LDLoss(scorer, weighting=weighting, noise_baseline=1.0, **options), drawn)
    _, noise, timestep = drawn
    torch.testing.assert_close(ld - sds, WEIGHTINGS[weighting](scorer.schedule, timestep) * noise)


def test_the_noise_baseline_walks_in_a_straight_line_from_ld_to_sds(scorer, drawn):
    walk = [gradient(LDLoss(scorer, noise_baseline=beta), drawn) for beta in (0.0, 0.25, 1.0)]
    torch.testing.assert_close(walk[1], 0.75 * walk[0] + 0.25 * walk[2])


def test_sds_is_dreamfusions_equation(scorer, drawn):
    latents, noise, timestep = drawn
    noisy = scorer.schedule.add_noise(latents, noise, timestep)
    branches = {name: scorer.condition([text] * 3) for name, text in (("prompt", "a zombie"), ("empty", ""))}
    eps = scorer.predict_noise(noisy, timestep, branches)
    sigma = scorer.schedule.noise(timestep)
    want = sigma**2 * (eps["empty"] + 100 * (eps["prompt"] - eps["empty"]) - noise)
    torch.testing.assert_close(gradient(SDSLoss(scorer), drawn), want)


def test_csd_is_what_guidance_adds(scorer, drawn):
    """full(s) = full(1) + (s - 1) CSD, and CSD is linear in its scale."""
    same = {"weighting": "sigma_squared"}
    csd = gradient(CSDLoss(scorer), drawn)
    full = [gradient(LDLoss(scorer, guidance_scale=s, **same), drawn) for s in (1.0, 5.0)]
    torch.testing.assert_close(full[1], full[0] + 4 * csd)
    torch.testing.assert_close(gradient(CSDLoss(scorer, guidance_scale=3.0), drawn), 3 * csd)


def test_csd_of_the_empty_prompt_is_zero(scorer, drawn):
    assert gradient(CSDLoss(scorer), drawn, prompt="").abs().max() == 0


def test_guidance_scale_zero_is_the_empty_prompts_prediction(scorer, drawn):
    torch.testing.assert_close(
        gradient(LDLoss(scorer, guidance_scale=0.0), drawn),
        gradient(LDLoss(scorer, guidance_scale=1.0), drawn, prompt=""),
    )


def test_a_table_of_ones_own_is_followed():
    branches = {name: torch.randn(1, 4, 2, 2) for name in ("edit", "image", "empty")}
    table = {"edit": 7.5, "image": 1.5 - 7.5, "empty": 1 - 1.5}  # InstructPix2Pix
    want = (
        branches["empty"] + 1.5 * (branches["image"] - branches["empty"]) + 7.5 * (branches["edit"] - branches["image"])
    )
    torch.testing.assert_close(sum(guide(branches, table)), want)


def test_the_mean_over_noise_of_ld_and_sds_is_the_same(scorer):
    """The noise that SDS subtracts has mean zero, so it changes the variance, not the mean."""
    latents = torch.randn(1, 4, 8, 8, dtype=torch.float64).expand(400, -1, -1, -1)
    drawn = (latents, torch.randn(400, 4, 8, 8, dtype=torch.float64), torch.full((400,), 700))
    ld, sds = (gradient(LDLoss(scorer, noise_baseline=beta), drawn) for beta in (0.0, 1.0))
    spread = (ld - sds).std(0) / 400**0.5
    assert ((ld - sds).mean(0).abs() / spread).mean() < 1.0  # |standard normal| has mean 0.8


def test_the_gradient_of_a_batch_is_that_of_its_pictures(scorer, drawn):
    latents, noise, timestep = drawn
    together = gradient(LDLoss(scorer), drawn, prompt=["a", "b", "c"])
    for i, prompt in enumerate("abc"):
        alone = gradient(LDLoss(scorer), (latents[i : i + 1], noise[i : i + 1], timestep[i : i + 1]), prompt=prompt)
        torch.testing.assert_close(together[i : i + 1], alone)


def test_a_mask_of_zero_silences_and_of_one_changes_nothing(scorer, drawn):
    plain = gradient(LDLoss(scorer), drawn)
    mask = torch.zeros(3, 1, 16, 16, dtype=torch.float64)
    mask[..., 8:] = 1
    masked = gradient(LDLoss(scorer), drawn, mask=mask)
    torch.testing.assert_close(masked[..., 4:], plain[..., 4:])
    assert masked[..., :4].abs().max() == 0


def test_the_generator_decides_noise_and_timestep(scorer):
    images = torch.rand(2, 3, 20, 20, dtype=torch.float64, requires_grad=True)
    draw = lambda seed: torch.autograd.grad(  # noqa: E731
        LDLoss(scorer)(images, "a", generator=torch.Generator().manual_seed(seed)), images
    )[0]
    torch.testing.assert_close(draw(1), draw(1), rtol=0, atol=0)
    assert not torch.equal(draw(1), draw(2))


def test_drawn_timesteps_stay_in_their_range(scorer):
    loss = LDLoss(scorer, t_range=(0.2, 0.3))
    drawn = loss._timesteps(None, torch.zeros(500, 4, 8, 8), torch.Generator().manual_seed(0))
    assert drawn.min() >= 200
    assert drawn.max() < 300
    assert len(drawn.unique()) > 50


def test_clamp_and_nan_are_counted_and_handled(scorer, drawn):
    loss = LDLoss(scorer, clamp=0.1, nan="zero")
    _latents, noise, timestep = drawn
    broken = noise.clone()
    broken[0, 0, 0, 0] = torch.nan
    gradient_ = loss.latent_gradient({"prompt": broken, "empty": noise}, noise, timestep)
    assert gradient_.isfinite().all()
    assert gradient_.abs().max() <= 0.1
    assert loss.figures["not_finite"] >= 1
    assert 0 < loss.figures["clamped"] <= 1
    assert (
        not variant(loss, nan="keep")
        .latent_gradient({"prompt": broken, "empty": noise}, noise, timestep)
        .isfinite()
        .all()
    )


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"t_range": (20, 300)}, "fraction"),
        ({"score": "both"}, "'guidance'"),
        ({"weighting": "papr"}, "Did you mean 'paper'"),
        ({"rank_on": "noise"}, "rank_on"),
        ({"nan": "ignore", "score": "full"}, "nan"),
    ],
)
def test_a_wrong_setting_says_what_is_right(scorer, drawn, options, word):
    with pytest.raises(ConfigError, match=word):
        gradient(ScoreDistillation(scorer, **options), drawn)


def test_wrong_shapes_are_refused(scorer):
    with pytest.raises(ShapeError, match=r"\(B, 3, H, W\)"):
        LDLoss(scorer)(torch.zeros(3, 8, 8), "a")
    with pytest.raises(ShapeError, match="2 pictures"):
        LDLoss(scorer)(torch.zeros(2, 3, 16, 16), ["a", "b", "c"])
    with pytest.raises(ConfigError, match="name the one"):
        LDLoss(scorer)(torch.zeros(2, 3, 16, 16), "a", control=torch.zeros(2, 3, 16, 16))
