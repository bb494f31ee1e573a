"""Half precision: float32 goes in and comes out, small gradients survive, and what must not be rounded is not."""

import logging

import pytest
import torch
import torch.nn.functional as F

import distill3d.precision as precision_module
from distill3d.errors import ConfigError
from distill3d.precision import PRECISIONS, best_precision, check_precision, dtypes_of
from distill3d.scorers.autoencoder import dtype_of_vae
from distill3d.scorers.diffusers import load_diffusers, load_tiny
from distill3d.testing import check_scorer
from tests.scorers.networks import encoded, predicted, small, smooth_pictures

HALVES = ("half", "bfloat16", "float16")


@pytest.fixture(scope="module")
def scorers():
    return {name: load_tiny(precision=name) for name in PRECISIONS}


def cosine(a, b):
    return float(F.cosine_similarity(a.flatten().double(), b.flatten().double(), dim=0))


@pytest.mark.parametrize("name", HALVES)
def test_the_embedded_model_keeps_the_contract_in_half_precision(scorers, name):
    assert not check_scorer(scorers[name]).skipped


@pytest.mark.parametrize("name", HALVES)
def test_half_precision_says_nearly_what_float32_says_in_float32(scorers, name):
    images, depth = smooth_pictures(2, 64), smooth_pictures(2, 64).abs()
    (latents, gradient), full = encoded(scorers["float32"], images), predicted(scorers["float32"], depth=depth)
    half_latents, half_gradient = encoded(scorers[name], images)
    half = predicted(scorers[name], depth=depth)
    assert half_latents.dtype == half_gradient.dtype == half["prompt"].dtype == torch.float32
    assert cosine(half_latents, latents) > 0.9999 and cosine(half_gradient, gradient) > 0.999
    assert all(cosine(half[branch], full[branch]) > 0.999 for branch in full)
    assert all(not torch.equal(half[branch], full[branch]) for branch in full)
    assert scorers[name].decode(half_latents).dtype == torch.float32


@pytest.mark.parametrize("name", HALVES)
def test_gradients_that_float16_cannot_hold_come_through_the_encoder(scorers, name):
    images = smooth_pictures(1, 64)
    _, gradient = encoded(scorers[name], images)
    _, small_gradient = encoded(scorers[name], images, cotangent=1e-9)
    torch.testing.assert_close(small_gradient, gradient, rtol=1e-3, atol=1e-3 * float(gradient.std()))


def layouts(scorer):
    """Of the convolutions whose weights tell the layouts apart."""
    weights = [p for p in scorer.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    return {w.is_contiguous(memory_format=torch.channels_last) for w in weights}


def test_only_half_precision_lays_its_networks_out_channels_last_and_so_go_the_pictures(scorers):
    found = {name: layouts(scorer) for name, scorer in scorers.items()}
    assert found == {"float32": {False}, "half": {True}, "bfloat16": {True}, "float16": {True}}
    seen = []
    hooks = [
        net.register_forward_hook(lambda m, a, out: seen.append(out.is_contiguous(memory_format=torch.channels_last)))
        for net in (scorers["bfloat16"].unet.mid_block, scorers["bfloat16"].vae.encoder.mid_block)
    ]
    predicted(scorers["bfloat16"]), encoded(scorers["bfloat16"], smooth_pictures(1, 64))
    for hook in hooks:
        hook.remove()
    assert seen == [True, True]


@pytest.mark.parametrize(
    ("name", "networks", "vae"),
    [
        ("float32", torch.float32, torch.float32),
        ("half", torch.float16, torch.bfloat16),
        ("bfloat16", torch.bfloat16, torch.bfloat16),
        ("float16", torch.float16, torch.float32),
    ],
)
def test_every_network_computes_in_its_own_and_what_stays_in_float32_is_not_rounded(scorers, name, networks, vae):
    scorer = scorers[name]
    assert dtypes_of(name) == (networks, vae)
    dtypes = {part: {p.dtype for p in net.parameters()} for part, net in scorer.named_children()}
    assert dtypes == {part: {vae if part == "vae" else networks} for part in dtypes}
    kept = all(torch.equal(a, b) for a, b in zip(scorer.vae.parameters(), scorers["float32"].vae.parameters()))
    assert kept == (vae == torch.float32)


def test_the_guidance_difference_is_that_of_float32_in_half_and_not_in_bfloat16(scorers):
    """What guidance multiplies by 7.5 is a small difference: bfloat16's eight bits are too few for it."""
    far = {}
    for name, scorer in scorers.items():
        found = predicted(scorer, depth=smooth_pictures(2, 64).abs())
        far[name] = found["prompt"] - found["empty"]
    cosines = {name: cosine(far[name], far["float32"]) for name in HALVES}
    assert cosines["half"] > 0.9995 and cosines["float16"] > 0.9995 and cosines["bfloat16"] < 0.9995, cosines


def test_the_autoencoder_of_sdxl_is_never_rounded():
    half, full = torch.bfloat16, torch.float32
    published = {"force_upcast": True, "sample_size": 1024}
    assert (
        dtype_of_vae(published, half)
        == dtype_of_vae(published, torch.float16)
        == dtype_of_vae({}, torch.float16)
        == full
    )
    assert dtype_of_vae({**published, "force_upcast": False}, half) == half  # the one mended for half precision
    assert dtype_of_vae({**published, "sample_size": 512}, half) == half
    assert dtype_of_vae({}, half) == half


def test_timesteps_are_embedded_alike_in_every_precision(scorers):
    """500 and 501 are one number in bfloat16: the embedding's angles must not be rounded before the sine."""
    seen = {}
    for name in PRECISIONS:
        hook = scorers[name].unet.time_proj.register_forward_hook(lambda m, a, out, name=name: seen.update({name: out}))
        predicted(scorers[name], (500, 501))
        hook.remove()
    assert all(torch.equal(seen[name], seen["float32"]) for name in HALVES)
    assert not torch.equal(seen["bfloat16"][0], seen["bfloat16"][1])


def test_a_v_prediction_is_turned_into_noise_in_float32(scorers):
    scorer = small(scorers["float32"], "v_prediction", controls=(), dtype=torch.bfloat16)
    v, noisy, t = torch.full((1, 4, 8, 8), 0.5), torch.randn(1, 4, 8, 8), torch.tensor([50])
    scorer.unet.register_forward_hook(lambda m, a, out: type(out)(sample=v.bfloat16()))
    (noise,) = scorer.predict_noise(noisy, t, {"p": scorer.condition(["a"])}).values()
    signal, sigma = (f(t).float() for f in (scorer.schedule.signal, scorer.schedule.noise))
    torch.testing.assert_close(noise, signal * v + sigma * noisy, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("load", [load_tiny, load_diffusers])
def test_an_unknown_precision_is_named_before_anything_is_read(load):
    with pytest.raises(ConfigError, match=r"float32, half, bfloat16 or float16, got 'fp16'"):
        load(precision="fp16")
    with pytest.raises(ConfigError, match="got 'fp8'"):
        check_precision("fp8")


def test_nothing_is_said_while_a_model_is_rounded(caplog, capsys):
    with caplog.at_level(logging.WARNING):
        load_tiny(precision="half")
    assert not caplog.records and not "".join(capsys.readouterr())


def test_the_best_precision_is_half_on_a_gpu_that_has_bfloat16(monkeypatch):
    assert best_precision("cpu") == best_precision("mps") == "float32"
    for available, has, best in ((True, True, "half"), (True, False, "float32"), (False, True, "float32")):
        cuda = precision_cuda(monkeypatch, available, has)
        assert best_precision("cuda:1") == best
        assert cuda["asked of"] == (["cuda:1"] if available else [])


def precision_cuda(monkeypatch, available, has):
    """A torch.cuda that says so of its devices."""
    seen = {"asked of": []}

    class device:
        def __init__(self, where):
            seen["asked of"].append(str(where))

        __enter__ = __exit__ = lambda self, *error: None

    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has and not including_emulation)
    return seen


def test_the_names_of_precisions_are_to_be_had_without_torch():
    assert precision_module.PRECISIONS == ("float32", "half", "bfloat16", "float16")
    assert "torch" not in vars(precision_module)
