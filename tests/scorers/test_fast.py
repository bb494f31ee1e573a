"""A tiny autoencoder in place of the VAE: what it is given, what it gives, and where it is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny

import distill3d
import distill3d.scorers.diffusers as diffusers_module
import distill3d.scorers.published as published
from distill3d.errors import ConfigError, WeightsError
from distill3d.precision import dtypes_of
from distill3d.scorers.diffusers import load_diffusers, load_tiny
from distill3d.testing import check_scorer
from tests.scorers.networks import encoded, small, smooth_pictures, tiny_autoencoder

EMBEDDED = Path(distill3d.__file__).parent / "tiny" / "weights" / "diffusion"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny autoencoder for the embedded model's shapes: 4 pixels to a latent."""
    place = tmp_path_factory.mktemp("taesd")
    tiny_autoencoder(stages=3).save_pretrained(place)
    return str(place)


def test_a_folder_takes_the_place_of_the_vae_which_is_not_read(folder, tmp_path):
    shutil.copytree(EMBEDDED, tmp_path / "model")
    shutil.rmtree(tmp_path / "model" / "vae")
    scorer = load_diffusers(str(tmp_path / "model"), fast=folder)
    assert isinstance(scorer.vae, AutoencoderTiny)
    assert (scorer.image_size, scorer.latent_size, scorer.latent_channels) == (64, 16, 4)


def test_it_keeps_the_contract_but_for_a_posterior(folder):
    report = check_scorer(load_diffusers(str(EMBEDDED), fast=folder))
    assert [check.note for check in report.skipped] == ["noise changes nothing: the encoder has no posterior"]


def test_latents_are_its_own_unscaled_and_noise_changes_nothing(folder):
    scorer, images = load_diffusers(str(EMBEDDED), fast=folder), smooth_pictures(2, 64)
    alone = AutoencoderTiny.from_pretrained(folder)
    with torch.no_grad():
        latents = scorer.encode(images)
        assert torch.equal(latents, alone.encode(images).latents)
        assert torch.equal(scorer.encode(images, torch.randn_like(latents)), latents)
        assert torch.equal(scorer.decode(latents), alone.decode(latents).sample)


def test_pictures_are_read_from_minus_one_to_one(folder):
    """Its layers are made for [0, 1]: black must reach them as 0."""
    scorer, seen = load_diffusers(str(EMBEDDED), fast=folder), []
    scorer.vae.encoder.layers[0].register_forward_pre_hook(lambda layer, given: seen.append(given[0]))
    scorer.encode(torch.tensor([-1.0, 1.0])[:, None, None, None].expand(2, 3, 64, 64))
    assert [float(x.mean()) for x in seen[0]] == [0.0, 1.0]


@pytest.mark.parametrize("precision", ["half", "bfloat16", "float16"])
def test_in_half_precision_it_stays_in_float32(folder, precision):
    """Its ReLUs would switch where activations are rounded: a tenth of the gradient on random weights."""
    scorer, images = load_diffusers(str(EMBEDDED), precision=precision, fast=folder), smooth_pictures(1, 64)
    assert scorer.vae.dtype == torch.float32 and scorer.unet.dtype == dtypes_of(precision).networks
    exact = encoded(load_diffusers(str(EMBEDDED), fast=folder), images)
    for got, expected in zip(encoded(scorer, images, cotangent=1e-8), exact):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_nothing_is_said_while_it_is_read(folder, caplog, capsys):
    load_diffusers(str(EMBEDDED), fast=folder)
    assert not caplog.records and not "".join(capsys.readouterr())


def test_a_scorer_takes_the_network_itself():
    scorer = small(load_tiny(), vae=tiny_autoencoder())
    assert (scorer.image_size, scorer.latent_channels) == (16, 4)


def test_one_of_other_latents_is_refused():
    with pytest.raises(ConfigError, match="makes 16 channels, the UNet reads 4"):
        small(load_tiny(), vae=tiny_autoencoder(channels=16))


def test_the_embedded_scorer_has_none(folder):
    for fast in (True, folder):
        with pytest.raises(ConfigError, match="embedded scorer has no tiny autoencoder"):
            load_tiny(fast=fast)


def test_taesd_is_refused_for_latents_that_it_was_not_taught():
    """The embedded model's are scaled by its own factor, and each of 4 pixels."""
    with pytest.raises(ConfigError, match=r"4 channels, 4 pixels, scaled by 0\.55511"):
        load_diffusers(str(EMBEDDED), fast=True)


def test_taesd_is_taken_for_a_vae_of_stable_diffusion(folder, tmp_path, monkeypatch):
    """Its config says so, or says nothing: 0.18215 is what diffusers assumes."""
    shutil.copytree(EMBEDDED, tmp_path / "model")
    config = {"_class_name": "AutoencoderKL", "block_out_channels": [128, 256, 512, 512], "latent_channels": 4}
    (tmp_path / "model" / "vae" / "config.json").write_text(json.dumps(config))
    asked = []

    def load_part(kind, source, *others):
        asked.append(source)
        return real(kind, folder if source == published.TINY_AUTOENCODER.repo else source, *others)

    real = diffusers_module.load_part
    monkeypatch.setattr(diffusers_module, "load_part", load_part)
    load_diffusers(str(tmp_path / "model"), fast=True)
    assert "madebyollin/taesd" in asked


def test_without_a_network_taesd_is_named_with_size_licence_and_command(monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    line = "madebyollin/taesd (10 MB, licence MIT): hf download madebyollin/taesd"
    with pytest.raises(WeightsError) as missing:
        load_diffusers(fast=True)
    assert line in str(missing.value)
    with pytest.raises(WeightsError) as plain:
        load_diffusers()
    assert "taesd" not in str(plain.value)
    with pytest.raises(WeightsError, match="hf download somebody/tiny"):
        load_diffusers(str(EMBEDDED), fast="somebody/tiny")


def test_a_damaged_folder_is_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "tiny")
    (tmp_path / "tiny" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="tiny: the files are damaged"):
        load_diffusers(str(EMBEDDED), fast=str(tmp_path / "tiny"))
    with pytest.raises(WeightsError, match="there is no folder"):
        load_diffusers(str(EMBEDDED), fast=str(tmp_path / "nothing"))
