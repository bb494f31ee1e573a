"""The weights that ship with the package are a genuine diffusers pipeline, and draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import distill3d.tiny
from distill3d.cameras import orbit
from distill3d.tiny.world import IDENTITY_NAMES, render_heads, style_rows

pytest.importorskip("diffusers")

import diffusers

from distill3d.scorers.diffusers import load_tiny
from distill3d.tiny.train.diffusion.captions import GRID_WORDS

FOLDER = Path(distill3d.tiny.__file__).parent / "weights" / "diffusion"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no embedded diffusion weights at {FOLDER}")


@pytest.fixture(scope="module")
def pipeline():
    pipe = diffusers.StableDiffusionControlNetPipeline.from_pretrained(
        FOLDER, safety_checker=None, torch_dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_every_part_loads_by_its_own_folder():
    from transformers import CLIPTextModel, CLIPTokenizer

    vae = diffusers.AutoencoderKL.from_pretrained(FOLDER, subfolder="vae")
    unet = diffusers.UNet2DConditionModel.from_pretrained(FOLDER, subfolder="unet")
    control = diffusers.ControlNetModel.from_pretrained(FOLDER, subfolder="controlnet")
    scheduler = diffusers.DDIMScheduler.from_pretrained(FOLDER, subfolder="scheduler")
    text = CLIPTextModel.from_pretrained(FOLDER, subfolder="text_encoder")
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER, subfolder="tokenizer")

    assert unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1) == 64
    assert unet.config.cross_attention_dim == control.config.cross_attention_dim == text.config.hidden_size
    assert len(control.config.conditioning_embedding_out_channels) == 3  # two halvings, as the autoencoder's
    assert tokenizer.model_max_length == text.config.max_position_embeddings
    assert scheduler.config.prediction_type == "epsilon"


def test_the_words_that_a_run_says_of_grids_are_those_that_captions_of_grids_hold():
    scorer = load_tiny()
    assert scorer.grid_words == GRID_WORDS
    assert scorer.unknown_words(scorer.grid_words) == []


def test_the_shipped_files_are_small():
    size = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert size < 17e6  # with the generator the wheel stays under 20 MB


def test_the_pipeline_draws_what_the_prompt_says_where_the_depth_is(pipeline):
    """A joker's hair and suit are green and purple, a statue is grey: saturation tells them apart."""
    control = torch.zeros(2, 3, 64, 64)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    control[:] = (1 - columns.square() / 0.35 - rows.square() / 0.6).clamp(min=0)
    prompts = ["Portrait of the Joker", "Portrait of a marble statue"]
    images = pipeline(
        prompts,
        image=control,
        num_inference_steps=10,
        guidance_scale=4.0,
        height=64,
        width=64,
        output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images.float()
    assert images.shape == (2, 3, 64, 64)
    saturation = (images.amax(1) - images.amin(1)).mean((1, 2))
    assert saturation[0] > 2 * saturation[1]
    darkness = 0.93 - images.mean(1)
    assert darkness[:, 24:40, 24:40].mean() > darkness[:, :6, :6].mean() + 0.1


def test_the_autoencoder_gives_a_head_back_and_its_latents_have_the_usual_size(pipeline):
    yaw = torch.tensor([[0.4]])
    identity = torch.full((1, len(IDENTITY_NAMES)), 0.4)
    rgb, _, _ = render_heads(identity, style_rows(["photo"]), orbit(yaw, 0 * yaw), 64, samples=1)
    image = rgb[:, 0] * 2 - 1
    with torch.no_grad():
        latents = pipeline.vae.encode(image).latent_dist.mean
        decoded = pipeline.vae.decode(latents).sample
    assert (decoded - image).square().mean() < 0.016  # 24 dB
    assert 0.4 < (latents * pipeline.vae.config.scaling_factor).std() < 2


def test_known_words_and_provenance_travel_along():
    known_path, origin = FOLDER / "tokenizer" / "known_words.json", FOLDER / "provenance.json"
    if not known_path.is_file():
        pytest.skip("these weights were not packed by this package's scripts")
    known = json.loads(known_path.read_text())
    assert {"zombie", "statue", "portrait"} <= set(known)
    networks = json.loads(origin.read_text())["networks"]
    assert set(networks) - {"controlnet-canny"} == {"vae", "text_encoder", "unet", "controlnet"}
    assert all(network["cpu_seconds"] > 0 and len(network["sha256"]) == 64 for network in networks.values())
