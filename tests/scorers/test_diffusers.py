"""The diffusers scorer, on small random networks of the real classes and on the embedded model."""

import logging
import shutil
from pathlib import Path

import pytest
import torch

import distill3d
import distill3d.scorers.diffusers as diffusers_module
import distill3d.scorers.published as published
from distill3d.errors import ConfigError, WeightsError
from distill3d.scorer import encode_at_unit_scale
from distill3d.scorers.diffusers import DiffusersScorer, load_diffusers, load_tiny
from distill3d.testing import check_scorer
from tests.scorers.networks import small

EMBEDDED = Path(distill3d.__file__).parent / "tiny" / "weights" / "diffusion"


@pytest.fixture(scope="module")
def embedded():
    return load_tiny()


def test_the_embedded_model_keeps_the_contract(embedded):
    check_scorer(embedded)


def test_a_random_model_with_two_controlnets_keeps_the_contract(embedded):
    scorer = small(embedded)
    assert (scorer.image_size, scorer.latent_size, scorer.controls) == (16, 8, ("depth", "canny"))
    condition = scorer.condition(["a"], controls={"depth": torch.zeros(1, 3, 16, 16)})
    assert set(condition.controls) == {"depth"}


def test_branches_in_one_batch_are_what_each_is_alone_and_the_unet_is_called_once(embedded):
    scorer, calls = small(embedded), []
    scorer.unet.register_forward_hook(lambda *_: calls.append(1))
    noisy, t = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    depth = torch.rand(2, 3, 16, 16)
    conditions = {n: scorer.condition([p] * 2, controls={"depth": depth}) for n, p in (("prompt", "a"), ("empty", ""))}
    together = scorer.predict_noise(noisy, t, conditions)
    assert len(calls) == 1
    for name, condition in conditions.items():
        alone = scorer.predict_noise(noisy, t, {name: condition})[name]
        torch.testing.assert_close(together[name], alone, rtol=1e-4, atol=1e-5)
    plain = scorer.predict_noise(noisy, t, {"prompt": scorer.condition(["a"] * 2)})["prompt"]
    assert not torch.allclose(plain, together["prompt"], atol=1e-3)


def test_two_controls_add_their_residuals(embedded):
    scorer = small(embedded)
    noisy, t = torch.randn(1, 4, 8, 8), torch.tensor([10])
    pictures = {name: torch.rand(1, 3, 16, 16) for name in ("depth", "canny")}
    seen = {
        names: scorer.predict_noise(noisy, t, {"p": scorer.condition(["a"], controls={n: pictures[n] for n in names})})[
            "p"
        ]
        for names in (("depth",), ("canny",), ("depth", "canny"))
    }
    assert len({round(float(x.sum()), 4) for x in seen.values()}) == 3


def test_a_v_prediction_becomes_the_same_noise(embedded):
    """A network that outputs v = signal eps - sigma x_0 must be read as the network that outputs eps."""
    eps_scorer, v_scorer = small(embedded, controls=()), small(embedded, "v_prediction", controls=())
    noisy, t = torch.randn(2, 4, 8, 8), torch.tensor([50, 800])
    eps = eps_scorer.predict_noise(noisy, t, {"p": eps_scorer.condition(["a"] * 2)})["p"]
    signal, sigma = (f(t).float() for f in (v_scorer.schedule.signal, v_scorer.schedule.noise))
    x0 = (noisy - sigma * eps) / signal
    v = signal * eps - sigma * x0
    v_scorer.unet.register_forward_hook(lambda net, given, output: type(output)(sample=v))
    torch.testing.assert_close(
        v_scorer.predict_noise(noisy, t, {"p": v_scorer.condition(["a"] * 2)})["p"], eps, rtol=1e-4, atol=1e-4
    )


def test_other_predictions_are_refused(embedded):
    with pytest.raises(ConfigError, match="'sample'"):
        small(embedded, "sample", controls=())


def test_text_is_embedded_once(embedded):
    scorer, calls = small(embedded, controls=()), []
    handle = scorer.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(3):
        scorer.condition(["a portrait", "", "a portrait"])
    handle.remove()
    assert len(calls) == 2


def test_encoding_is_differentiable_and_leaves_the_weights_alone(embedded):
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    embedded.encode(images).square().sum().backward()
    assert images.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in embedded.parameters())


def test_a_half_precision_encoder_keeps_small_gradients():
    """fp16 loses what is below 6e-8; the hooks carry it through at RMS 1."""
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 4, 2, stride=2)
    half = torch.nn.Conv2d(3, 4, 2, stride=2).half()
    half.load_state_dict(conv.state_dict())

    class Half:
        def encode(self, images, noise=None):
            return half(images.half()).float()

    def gradient(encode, scale):
        images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        latents = encode(images)
        weights = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
        return torch.autograd.grad((latents * weights * scale).sum(), images)[0] / scale

    exact = gradient(conv, 1.0)
    lost = gradient(lambda x: Half().encode(x), 1e-7)
    kept = gradient(lambda x: encode_at_unit_scale(Half(), x), 1e-7)
    assert (kept - exact).norm() < 2e-3 * exact.norm()
    assert (lost - exact).norm() > 0.1 * exact.norm()


def test_a_prompt_that_is_too_long_is_cut_with_the_cut_text_shown(embedded, caplog):
    words = "portrait of a zombie " * 20 + "werewolf"
    with caplog.at_level(logging.WARNING):
        embedded.condition([words])
    assert "Cut off" in caplog.text
    assert "werewolf" in caplog.text


def test_words_that_the_embedded_model_was_not_taught_are_named(embedded):
    assert embedded.unknown_words("Portrait of a zombie") == []
    assert embedded.unknown_words("a zombie with a spaceship") == ["spaceship"]


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "controlnet"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_missing_or_damaged_part_is_named(tmp_path, part, damage):
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    if damage == "gone":
        shutil.rmtree(folder / part)
    else:
        for file in (folder / part).iterdir():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match=part):
        load_tiny(str(folder))


def test_without_a_network_a_hub_model_names_the_command_to_fetch_it(monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="hf download nobody/no-such-model"):
        DiffusersScorer.load("nobody/no-such-model")


def test_a_pickled_model_is_refused(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(EMBEDDED, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(WeightsError, match="unet"):
        DiffusersScorer.load(str(folder))


@pytest.mark.parametrize("here", [(), ("unet", "depth"), ("unet", "depth", "canny")])
def test_default_models_that_are_missing_are_named_with_size_licence_and_command(here, monkeypatch):
    def fail(*given, **options):
        raise WeightsError("no network")

    def cached(repo, file):
        return "a path" if any(word in f"{repo}/{file}" for word in here) else None

    monkeypatch.setattr(diffusers_module.DiffusersScorer, "load", fail)
    monkeypatch.setattr(published, "try_to_load_from_cache", cached)
    with pytest.raises(WeightsError) as error:
        load_diffusers()
    said = str(error.value)
    if len(here) == 3:
        assert said == "no network"  # nothing is missing, so that is not what is wrong
        return
    for word, model in {"unet": published.MODEL, **published.CONTROLNETS}.items():
        line = f"{model.repo} ({model.size}, licence {model.licence}): hf download {model.repo}"
        assert (line in said) == (word not in here)
    assert "--scorer tiny" in said


def test_a_folder_that_is_given_is_not_told_of_the_default_models(tmp_path):
    with pytest.raises(WeightsError, match="there is no folder"):
        load_diffusers(str(tmp_path / "nothing"))
