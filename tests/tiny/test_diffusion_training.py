"""Captions, tokenizer, control pictures, and training that is the same however often it is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

from distill3d.tiny.train.diffusion.captions import OWN_WORDS, PHRASINGS, all_words, caption, traits, view_words
from distill3d.tiny.train.diffusion.chain import RECIPES, Chain
from distill3d.tiny.train.diffusion.controlnet import CONTROLS, batch_control, blurred, build_controlnet
from distill3d.tiny.train.diffusion.data import (
    Subjects,
    depth_control,
    edge_control,
    grid,
    grid_control,
    grid_edges,
    load_subjects,
)
from distill3d.tiny.train.diffusion.loop import Recipe, load_progress
from distill3d.tiny.train.diffusion.optimizer import orthogonalised
from distill3d.tiny.train.diffusion.text import contrast
from distill3d.tiny.train.diffusion.tokenizer import MAX_LENGTH, USUAL_WORDS, build_tokenizer
from distill3d.tiny.train.diffusion.unet import Batch, build_unet, spread_timesteps
from distill3d.tiny.train.store import read_tensors, write_tensors
from distill3d.tiny.world.identity import IDENTITY_NAMES
from distill3d.tiny.world.styles import STYLE_NAMES

CATALOGUE = {
    "photo": "Portrait photo of a person",
    "zombie": "Portrait of a zombie",
    "pixar": "Portrait of a person in Pixar style",
    "joker": "Portrait of the Joker",
    "werewolf": "Portrait of a werewolf",
    "sketch": "Pencil sketch portrait",
    "statue": "Portrait of a marble statue",
}


def some_captions(count: int = 1500):
    generator = torch.Generator().manual_seed(1)
    for index in range(count):
        style = STYLE_NAMES[index % len(STYLE_NAMES)]
        identity = dict(zip(IDENTITY_NAMES, torch.rand(len(IDENTITY_NAMES), generator=generator).tolist()))
        yaw = None if index % 5 == 0 else float(torch.rand((), generator=generator) * 6.28 - 3.14)
        yield style, identity, yaw, caption(style, identity, yaw, generator)


def test_captions_know_every_style_of_the_world_by_its_catalogue_prompt():
    assert set(PHRASINGS) == set(STYLE_NAMES) == set(CATALOGUE)
    for style, prompt in CATALOGUE.items():
        assert PHRASINGS[style][0] == prompt.lower()
    drawn = {(style, said.text) for style, _, _, said in some_captions()}
    assert {(style, prompt.lower()) for style, prompt in CATALOGUE.items()} <= drawn


def test_captions_never_name_another_style():
    for style, _, _, said in some_captions():
        words = set(said.text.replace(",", " ").split())
        for other in STYLE_NAMES:
            if other != style:
                assert not words & set(OWN_WORDS[other]), said


def test_captions_are_true_of_their_picture_and_of_no_other_style():
    for style, identity, yaw, said in some_captions(300):
        views = ("four views",) if yaw is None else view_words(yaw)
        assert said.fits(style, traits(style, identity), views)
        assert said.text.startswith(said.view) or said.view in said.text
        assert not said.fits("joker" if style != "joker" else "photo", traits(style, identity), views)


def test_view_words_agree_with_mirroring_and_turn_from_front_to_back():
    for yaw in (0.0, 0.5, 1.0, 2.0, 3.0):
        assert view_words(yaw) == view_words(-yaw) == view_words(yaw + 6.283185307)
    assert "front view" in view_words(0.3)
    assert view_words(1.57) == ("side view",)
    assert view_words(3.0) == ("back view",)


def test_captions_repeat_from_an_equal_generator():
    identity = dict.fromkeys(IDENTITY_NAMES, 0.9)
    first, second = (
        [caption("photo", identity, 0.1, generator) for _ in range(20)]
        for generator in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3))
    )
    assert first == second
    assert len({said.text for said in first}) > 5


def test_tokenizer_keeps_words_whole_and_gives_captions_back(tmp_path):
    tokenizer = build_tokenizer(tmp_path)
    for word in (*all_words(), *USUAL_WORDS):
        assert len(tokenizer(word).input_ids) == 3, word  # start, word, end
    assert len(tokenizer("mermaid").input_ids) > 4
    for _, _, _, said in some_captions(200):
        ids = tokenizer(said.text).input_ids
        assert len(ids) <= MAX_LENGTH
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",") == said.text


def test_tokenizer_is_numbered_the_same_each_time_it_is_built(tmp_path):
    for name in ("one", "two"):
        build_tokenizer(tmp_path / name)
    for file in ("vocab.json", "merges.txt"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_known_words_are_those_of_the_captions(tmp_path):
    build_tokenizer(tmp_path)
    known = set(json.loads((tmp_path / "known_words.json").read_text()))
    used = {word for *_, said in some_captions() for word in said.text.replace(",", " ").split()}
    assert known == used
    assert "blurry" not in known  # a token of its own, but never learnt


def test_grid_places_four_pooled_views_row_by_row():
    tiles = torch.arange(4.0).view(1, 4, 1, 1, 1).expand(2, 4, 3, 8, 8)
    joined = grid(tiles)
    assert joined.shape == (2, 3, 8, 8)
    assert joined[0, 0, ::4, ::4].tolist() == [[0, 1], [2, 3]]


def test_control_depth_is_near_bright_and_black_behind():
    depth = torch.full((1, 1, 4, 4), 3.05)
    depth[..., 1, 1:3] = torch.tensor([2.5, 2.0])
    mask = (depth < 3).float()
    control = depth_control(depth, mask)
    assert control.shape == (1, 3, 4, 4)
    assert control[0, 0, 1].tolist() == [0, 0, 1, 0]
    assert depth_control(depth, torch.zeros_like(mask)).abs().sum() == 0


def test_each_tile_of_a_control_grid_is_stretched_on_its_own():
    depth = torch.linspace(2.0, 2.2, 8).view(1, 1, 1, 1, 8).expand(1, 4, 1, 8, 8) + torch.arange(4).view(1, 4, 1, 1, 1)
    control = grid_control(depth, torch.ones_like(depth))
    alone = depth_control(torch.nn.functional.avg_pool2d(depth[:, 2], 2), torch.ones(1, 1, 4, 4))
    torch.testing.assert_close(control[..., 4:, :4], alone)


def test_control_edges_lie_where_the_picture_jumps():
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 1.0
    edges = edge_control(image)
    assert edges.shape == image.shape
    assert edges[..., 7:9].amax(-1).min() == 1
    assert edges[..., :6].sum() == edges[..., 10:].sum() == 0
    assert edge_control(0 * image).sum() == 0


def test_the_seams_of_a_grid_are_no_edges():
    tiles = torch.linspace(-1, 1, 4).view(1, 4, 1, 1, 1).expand(1, 4, 3, 16, 16)
    assert grid_edges(tiles).shape == (1, 3, 16, 16)
    assert grid_edges(tiles).sum() == 0


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("views", [None, torch.tensor([2, 1, 3])])
def test_a_control_comes_from_the_photo_where_it_is_asked_to_and_is_mirrored_with_its_picture(work, name, views):
    subjects, _ = load_subjects(work, held_out=1)
    flipped = torch.tensor([False, True, False])

    def batch(flipped):
        return Batch(torch.zeros(3, 4, 16, 16), torch.zeros(3, 1, 1), torch.tensor([0, 2, 1]), views, flipped)

    own, photo, mixed = (
        batch_control(name, subjects, batch(torch.zeros(3).bool()), torch.tensor(source))
        for source in ([False] * 3, [True] * 3, [False, True, False])
    )
    assert own.shape == (3, 3, 64, 64)
    assert not torch.equal(own[1], photo[1])
    assert torch.equal(mixed, torch.stack([own[0], photo[1], own[2]]))
    turned = batch_control(name, subjects, batch(flipped), torch.zeros(3).bool())
    assert torch.equal(turned, torch.stack([own[0], own[1].flip(-1), own[2]]))


def test_a_blur_of_nothing_changes_nothing_and_a_wide_one_spreads_each_picture_by_its_own():
    pictures = torch.zeros(2, 4, 1, 64, 64)
    pictures[..., 32, 32] = 1
    soft = blurred(pictures, torch.tensor([0.0, 1.5]))
    assert torch.equal(soft[0], pictures[0])
    rows = torch.arange(64.0) - 32
    across = soft[1, 2, 0].sum(0)
    torch.testing.assert_close(across.sum(), torch.tensor(1.0))
    torch.testing.assert_close((across * rows.square()).sum().sqrt(), torch.tensor(1.5), atol=0.02, rtol=0)


def test_a_soft_head_keeps_its_place_in_the_control_and_loses_its_detail(work):
    subjects, _ = load_subjects(work, held_out=1)
    views = torch.tensor([2, 1])
    batch = Batch(torch.zeros(2, 4, 16, 16), torch.zeros(2, 1, 1), torch.tensor([0, 2]), views, torch.zeros(2).bool())
    for name in CONTROLS:
        sharp, same, soft = (
            batch_control(name, subjects, batch, torch.zeros(2).bool(), softness)
            for softness in (None, torch.zeros(2), torch.full((2,), 2.0))
        )
        assert torch.equal(sharp, same)
        assert soft[..., 1:].diff().abs().mean() < 0.7 * sharp[..., 1:].diff().abs().mean()


def test_an_untrained_controlnet_changes_nothing_and_starts_from_the_denoiser():
    torch.manual_seed(0)
    unet = build_unet()
    controlnet = build_controlnet(unet)
    down, middle = controlnet(
        torch.randn(1, 4, 16, 16), 500, torch.randn(1, 3, 64), torch.rand(1, 3, 64, 64), return_dict=False
    )
    assert all(residual.abs().max() == 0 for residual in (*down, middle))
    assert torch.equal(controlnet.conv_in.weight, unet.conv_in.weight)
    assert torch.equal(controlnet.down_blocks[1].resnets[0].conv1.weight, unet.down_blocks[1].resnets[0].conv1.weight)
    assert sum(p.numel() for p in controlnet.parameters()) < 0.3 * sum(p.numel() for p in unet.parameters())


def test_timesteps_of_a_batch_cover_the_whole_range():
    timestep = spread_timesteps(torch.rand(10))
    assert (timestep // 100).tolist() == list(range(10))


def test_orthogonalised_makes_all_singular_values_alike():
    matrix = torch.randn(20, 48) @ torch.diag(torch.logspace(0, 2, 48))
    values = torch.linalg.svdvals(orthogonalised(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    torch.testing.assert_close(orthogonalised(matrix.T), orthogonalised(matrix).T)


def test_contrast_is_least_when_all_right_answers_share_the_probability():
    fits = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    right = contrast(20 * fits, fits)
    one_of_two = contrast(20 * torch.eye(3), fits)
    assert right < one_of_two
    entropy = torch.tensor(2.0).log() * 2 / 3
    torch.testing.assert_close(right, entropy, atol=1e-4, rtol=0)


def test_learning_rate_warms_up_falls_and_starts_again_with_each_phase():
    recipe = Recipe(steps=100, lr=1.0, batch=1, warmup=10, decay_share=0.5, last_lr=0.1)
    phases = [100, 50]
    assert recipe.rate(0, phases) == pytest.approx(0.1)
    assert recipe.rate(30, phases) == 1.0
    assert recipe.rate(99, phases) < 0.12
    assert recipe.rate(100, phases) == pytest.approx(0.1)
    assert recipe.rate(120, phases) == 1.0
    assert recipe.rate(149, phases) < 0.14


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A work folder with a data set of coloured squares."""
    work, count = tmp_path_factory.mktemp("work"), 8
    generator = torch.Generator().manual_seed(0)
    subjects = Subjects(
        identity=torch.rand(count, len(IDENTITY_NAMES), generator=generator),
        style=torch.arange(count) % len(STYLE_NAMES),
        rgb=torch.randint(256, (count, 4, 3, 64, 64), generator=generator, dtype=torch.uint8),
        depth=(2.5 + torch.rand(count, 4, 1, 64, 64, generator=generator)).half(),
        mask=torch.full((count, 4, 1, 64, 64), 255, dtype=torch.uint8),
        yaw=torch.rand(count, 4, generator=generator),
        source_rgb=torch.randint(256, (count, 4, 3, 64, 64), generator=generator, dtype=torch.uint8),
        source_depth=(2.5 + torch.rand(count, 4, 1, 64, 64, generator=generator)).half(),
        source_mask=torch.full((count, 4, 1, 64, 64), 255, dtype=torch.uint8),
    )
    write_tensors(work / "data" / "styles.safetensors", vars(subjects))
    return work


def chain_in(folder: Path, work: Path, steps: int = 20) -> Chain:
    folder.mkdir()
    (folder / "data").symlink_to(work / "data")
    return Chain(folder, {name: replace(recipe, steps=steps, batch=2) for name, recipe in RECIPES.items()})


def same_checkpoint(stage: str, *chains: Chain) -> bool:
    """Whether weights, average and optimisers of the chains' stage have equal bits."""
    first, *others = (read_tensors(chain.folder / f"{stage}.checkpoint.safetensors") for chain in chains)
    return all(
        first.keys() == other.keys() and all(torch.equal(first[key], other[key]) for key in first) for other in others
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, work) -> Path:
    """A diffusion folder with all networks, hardly trained."""
    chain = chain_in(tmp_path_factory.mktemp("prepared") / "run", work, steps=1)
    for stage in ("vae", "clip", "unet"):
        chain.run(stage)
    return chain.folder


@pytest.mark.parametrize("stage", ["vae", "unet", "canny"])
def test_every_network_repeats_its_first_steps_and_goes_on_from_a_kill_bit_for_bit(tmp_path, work, prepared, stage):
    chains = [chain_in(tmp_path / name, work, steps=4) for name in ("straight", "killed")]
    for chain in chains:
        shutil.copytree(prepared, chain.folder)
        (chain.folder / f"{stage}.checkpoint.safetensors").unlink(missing_ok=True)
    straight, killed = chains
    straight.run(stage, until=2)
    killed.run(stage, until=2)
    assert same_checkpoint(stage, straight, killed)
    straight.run(stage)
    Chain(killed.work, killed.recipes).run(stage)
    assert same_checkpoint(stage, straight, killed)
    assert load_progress(killed.folder / f"{stage}.checkpoint.safetensors").step == 4


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["vae", "clip"])
def test_the_first_50_steps_at_full_size_are_the_same_in_another_process(tmp_path, work, stage):
    script = (
        "import sys; from pathlib import Path; from distill3d.tiny.train.diffusion.chain import RECIPES, Chain\n"
        "Chain(Path(sys.argv[1]), RECIPES).run(sys.argv[2], until=50)"
    )
    chains = [chain_in(tmp_path / name, work) for name in ("one", "two")]
    for seed, chain in enumerate(chains):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", script, str(chain.work), stage], check=True, env=environment)
    assert same_checkpoint(stage, *chains)
    assert load_progress(chains[0].folder / f"{stage}.checkpoint.safetensors").step == 50


def test_training_that_was_killed_goes_on_bit_for_bit(tmp_path, work):
    """20 steps in one go equal 10, a fresh start from the file, and 10 more: weights, average, both optimisers."""
    straight = chain_in(tmp_path / "straight", work)
    straight.run("clip")
    broken = chain_in(tmp_path / "broken", work)
    broken.run("clip", until=10)
    Chain(broken.work, broken.recipes).run("clip")

    assert same_checkpoint("clip", straight, broken)
    assert load_progress(broken.folder / "clip.checkpoint.safetensors").step == 20


def test_a_finished_stage_is_extended_once_and_then_goes_on(tmp_path, work):
    chain = chain_in(tmp_path / "run", work, steps=2)
    path = chain.folder / "clip.checkpoint.safetensors"
    chain.run("clip")
    chain.run("clip", extend=3, until=4)
    assert (load_progress(path).phases, load_progress(path).step) == ([2, 3], 4)
    chain.run("clip", extend=3)
    assert (load_progress(path).phases, load_progress(path).step) == ([2, 3], 5)
