"""How the judges learn: augmentation, corruption, losses, ceilings, and a training that no interruption changes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers")

from distill3d.errors import WeightsError
from distill3d.tiny.train import world
from distill3d.tiny.train.judges import augment, measure
from distill3d.tiny.train.judges.chain import RECIPES, Chain
from distill3d.tiny.train.judges.corruptions import CORRUPTIONS, strangers
from distill3d.tiny.train.judges.face import contrast, likelihood
from distill3d.tiny.train.judges.faces import (
    STORED,
    Faces,
    draw_styled,
    draw_views,
    load_held_out,
    load_training,
)
from distill3d.tiny.train.judges.style import OFF, seen
from distill3d.tiny.train.store import read_tensors, write_tensors
from distill3d.tiny.world import BACKGROUND, IDENTITY_NAMES, STYLE_NAMES

VIEWS = 1 + len(STYLE_NAMES)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def toy_faces(count: int = 9) -> Faces:
    """Heads that are discs of a colour of their own before the data's grey; as `load_held_out` gives them."""
    place = torch.linspace(-1, 1, 64)
    mask = (place[:, None] ** 2 + place[None] ** 2 < 0.5).float().expand(count, VIEWS, 1, 64, 64)
    colour = torch.rand(count, 1, 3, 1, 1, generator=seeded())
    rgb = mask * colour + (1 - mask) * BACKGROUND
    return Faces(
        identity=torch.rand(count, len(IDENTITY_NAMES), generator=seeded()),
        style=torch.tensor([0, *range(len(STYLE_NAMES))]).expand(count, -1),
        rgb=(255 * rgb + 0.5).to(torch.uint8),
        depth=(3.05 - 0.6 * mask * (1 - place**2)).half(),
        mask=(255 * mask).to(torch.uint8),
        yaw=torch.linspace(-1, 1, VIEWS).expand(count, -1),
    )


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    faces = toy_faces()
    write_tensors(work / "data" / "faces.safetensors", vars(faces))
    seen = {name: getattr(faces, name) for name in STORED}
    photos = {f"source_{name}": value[:, :4] for name, value in seen.items()}
    styled = {name: value[:, 4:] for name, value in seen.items()}
    heads = {"identity": faces.identity.flip(0), "style": torch.arange(9) % 7, "yaw": faces.yaw[:, :4]}
    write_tensors(work / "data" / "styles.safetensors", {**photos, **styled, **heads})
    return work


@pytest.mark.parametrize("name", ["face", "style", "depth", "clip"])
def test_a_training_that_is_interrupted_ends_with_the_same_bits(work, tmp_path, name):
    recipes = {name: replace(RECIPES[name], steps=4, batch=4)}
    for folder, stops in (("whole", [None]), ("halves", [2, None])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data").symlink_to(work / "data")
        for until in stops:
            Chain(tmp_path / folder, recipes).run(name, until)
    ends = [
        read_tensors(tmp_path / f / "judges/training" / f"{name}.checkpoint.safetensors") for f in ("whole", "halves")
    ]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


@pytest.mark.parametrize("load", [load_training, load_held_out])
def test_data_that_is_not_there_is_missed(tmp_path, load):
    with pytest.raises(WeightsError, match="train world"):
        load(tmp_path)


def test_a_training_head_is_seen_four_times_as_a_photo_and_by_the_same_cameras_in_its_style(work):
    learnt, stored = load_training(work), read_tensors(work / "data" / "styles.safetensors")
    assert len(learnt) == 7  # the others are held out from the diffusion model, and from the judges
    assert learnt.style.tolist() == [[0] * 4 + [style] * 4 for style in range(7)]
    assert torch.equal(learnt.yaw[:, :4], learnt.yaw[:, 4:])
    assert torch.equal(learnt.rgb[:, :4], stored["source_rgb"][:7])
    assert torch.equal(learnt.depth[:, 4:], stored["depth"][:7])


def test_no_head_of_the_ceilings_is_one_that_a_network_was_trained_on():
    """Their draws have a name of their own."""
    faces = [world.draw(one, 1, 0)["z"] for one in world.SETS if one.name == "faces"]
    others = [world.draw(one, 1, item)["z"] for one in world.SETS if one.name != "faces" for item in (0, one.training)]
    assert len(torch.stack(faces + others).unique(dim=0)) == 7
    assert next(one for one in world.SETS if one.name == "faces").training == 0


def test_another_background_leaves_the_head_as_it_is():
    faces = toy_faces()
    pictures = faces.pictures(torch.arange(3), torch.tensor([0, 1, 2]))
    there = pictures.mask.expand(-1, 3, -1, -1) == 1
    behind = augment.backgrounds(3, 64, seeded(3))
    image = pictures.over(behind)
    torch.testing.assert_close(image[there], pictures.rgb[there])
    torch.testing.assert_close(image[~there], behind[~there], atol=0.01, rtol=0)


@pytest.mark.parametrize("name", ["moved", "blurred", "coarse", "tinted", "noisy"])
def test_an_augmentation_is_a_function_of_its_generator_and_changes_pictures_a_little(name):
    image = toy_faces().pictures(torch.arange(8), torch.arange(8)).rgb
    change = getattr(augment, name)
    given = (64,) if name == "moved" else ()
    once, again = (change(image, *given, seeded()) for _ in range(2))
    assert torch.equal(once, again)
    assert 0 < (once - image).abs().mean() < 0.15
    assert not torch.equal(once, change(image, *given, seeded(2)))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_changes_a_picture_much(kind):
    faces = toy_faces()
    first, other = (faces.pictures(torch.arange(8), torch.arange(8).roll(by)) for by in (0, 1))
    image = first.rgb * (0.8 + 0.2 * torch.rand(8, 3, 64, 64, generator=seeded()))
    spoiled = CORRUPTIONS[kind](image, other.rgb.flip(0), first.mask, seeded())
    assert spoiled.shape == image.shape
    assert (spoiled - image).abs().mean() > 0.02


def test_the_first_pictures_of_a_style_batch_are_off_and_the_others_keep_their_style():
    faces = toy_faces()
    image, answer = seen(faces, torch.arange(9), torch.tensor([0, 0, *range(7)]), 4, seeded())
    assert image.shape == (9, 3, 64, 64)
    assert image.abs().max() <= 1.0001
    assert answer.tolist() == [OFF] * 4 + faces.style[0, 2:7].tolist()
    assert torch.equal(faces.style, toy_faces().style)  # not written to


def test_a_stranger_is_of_another_style():
    style = torch.tensor([0, 0, 1, 2, 2, 2, 0])
    assert (style[strangers(style, 5, seeded())] != style[:5]).all()


def test_a_batch_shows_different_heads_by_different_cameras_half_of_them_as_photos(work):
    learnt = load_training(work)
    chosen, views = draw_views(learnt, 6, seeded())
    assert len(chosen[:, 0].unique()) == 6
    assert (chosen == chosen[:, :1]).all()
    assert all(sorted(row) == [0, 1, 2, 3] for row in (views % 4).tolist())
    assert ((views < 4).sum(1) == 2).all()
    heads, styled = draw_styled(learnt, 50, seeded())
    assert torch.equal(learnt.style[heads, styled], heads)  # of these heads, the style is the number


def test_a_head_from_behind_is_in_no_contrast():
    who = torch.tensor([0, 0, 1, 1, 2])
    assert torch.isfinite(contrast(torch.eye(5), who))
    assert contrast(torch.eye(5)[who], who) < 1e-3  # the last has no other view, and counts for nothing


def test_the_contrast_is_least_where_views_of_a_head_agree_and_heads_do_not():
    who = torch.tensor([0, 0, 1, 1])
    apart = torch.eye(4)[who]
    assert contrast(apart, who) < 1e-3
    assert contrast(torch.eye(4)[1 - who], who) < 1e-3  # whatever the directions are
    assert contrast(torch.eye(4)[torch.tensor([0, 1, 0, 1])], who) > 5
    assert contrast(torch.ones(4, 2) / math.sqrt(2), who).item() == pytest.approx(math.log(3), abs=1e-4)


def test_the_likelihood_lets_what_is_hidden_be_unknown():
    truth = torch.randn(1000, 1, generator=seeded())
    unknown, sure = torch.zeros(1000, 1), torch.full((1000, 1), -3.0)
    assert likelihood(unknown, torch.zeros(1000, 1), truth) < likelihood(unknown, sure, truth)
    assert likelihood(truth, sure, truth) < likelihood(truth, torch.zeros(1000, 1), truth)


def test_the_ceiling_counts_how_often_a_judge_finds_the_head_in_another_style():
    faces = toy_faces(30)

    def centre(image):
        return image[:, :, 31:33, 31:33].mean((2, 3))

    def blind(image):
        return torch.randn(len(image), 8, generator=seeded(int(1e6 * image.mean().abs())))

    assert set(measure.face_ceiling(centre, faces)) == set(STYLE_NAMES)
    assert min(measure.face_ceiling(centre, faces).values()) > 0.95
    assert max(measure.face_ceiling(blind, faces).values()) < 0.25


def test_a_correlation_looks_at_the_head_alone():
    one = torch.rand(2, 1, 8, 8, generator=seeded())
    mask = torch.zeros(2, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    other = 3 * one - 1
    other[..., 0, 0] = 99
    torch.testing.assert_close(measure.masked_correlation(one, other, mask), torch.ones(2))
    torch.testing.assert_close(measure.masked_correlation(one, -other, mask), -torch.ones(2))
