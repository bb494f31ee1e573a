"""What is not finite comes out as it is: whoever steps must see it, and skip the step."""

import pytest
import torch

from distill3d.scorer import Economy, encode_at_unit_scale
from distill3d.scorers.diffusers import load_tiny
from tests.scorers.networks import predicted, small, smooth_pictures, tiny_autoencoder

ECONOMIES = [Economy(), Economy(True, True, True, True)]


@pytest.fixture(scope="module")
def embedded():
    return load_tiny()


def spoil(network, value=float("nan")):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)


@pytest.mark.parametrize("economy", ECONOMIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("part", ["unet", "controlnets.depth", "text_encoder"])
def test_a_network_of_nan_predicts_nan(embedded, part, dtype, economy):
    scorer = small(embedded, dtype=dtype)
    spoil(scorer.get_submodule(part))
    scorer.economise(economy)
    found = predicted(scorer, depth=torch.rand(2, 3, 16, 16))
    assert all(bool(prediction.isnan().all()) for prediction in found.values())


@pytest.mark.parametrize("economy", ECONOMIES)
@pytest.mark.parametrize("fast", [False, True])
def test_an_autoencoder_of_nan_gives_nan_and_a_gradient_of_nan(embedded, fast, economy):
    scorer = small(embedded, **({"vae": tiny_autoencoder()} if fast else {}))
    spoil(scorer.vae)
    scorer.economise(economy)
    images = smooth_pictures(1, 16).requires_grad_()
    latents = encode_at_unit_scale(scorer, images)
    (gradient,) = torch.autograd.grad(latents.sum(), images)
    assert bool(latents.isnan().all()) and bool(gradient.isnan().any())
    assert bool(scorer.decode(latents.detach()).isnan().all())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_reaches_the_pixels_as_one(embedded, value):
    """Dividing it by its size must not make it a number."""
    scorer, images = small(embedded), smooth_pictures(2, 16).requires_grad_()
    latents = encode_at_unit_scale(scorer, images)
    score = torch.ones_like(latents)
    score[0, 0, 0, 0] = value
    (gradient,) = torch.autograd.grad((latents * score).sum(), images)
    assert bool((~gradient[0].isfinite()).any()) and bool(gradient[1].isfinite().all())


def test_float16_that_overflows_comes_out_as_what_is_not_finite(embedded):
    scorer = small(embedded, dtype=torch.float16)
    spoil(scorer.unet.conv_out, 6e4)
    found = predicted(scorer)
    assert all(bool((~prediction.isfinite()).any()) for prediction in found.values())
