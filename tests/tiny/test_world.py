"""The embedded world: procedural heads, and the data made from them."""

from __future__ import annotations

import math

import pytest
import torch

from distill3d.cameras import orbit
from distill3d.errors import ConfigError, ShapeError, UnknownNameError
from distill3d.tiny.train import world as data
from distill3d.tiny.train.store import read_tensors
from distill3d.tiny.world import (
    BACKGROUND,
    BACKGROUND_DEPTH,
    CODE_SIZE,
    IDENTITY_NAMES,
    STYLE_NAMES,
    identity_from_codes,
    render_heads,
    sample_identity,
    style_rows,
)
from distill3d.tiny.world.anatomy import measures, named
from distill3d.tiny.world.colour import albedo, materials
from distill3d.tiny.world.render import HEAD_UNIT, OFFSETS, Tracer, rays
from distill3d.tiny.world.shape import nearest, parts


def views(*yaws: float, heads: int = 1, pitch: float = 0.05):
    yaw = torch.tensor([yaws]).expand(heads, -1)
    return orbit(yaw, torch.full_like(yaw, pitch))


def people(count: int, seed: int = 5) -> torch.Tensor:
    return sample_identity(count, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def every_style():
    """One head in every style, from the front and from both sides: (7, 3, C, 32, 32) each."""
    return render_heads(people(1).repeat(7, 1), style_rows(), views(0.0, 0.7, -0.7, heads=7), 32)


def test_normal_codes_give_uniform_identities():
    identity = identity_from_codes(torch.randn(4000, CODE_SIZE, generator=torch.Generator().manual_seed(0)))
    assert identity.shape == (4000, len(IDENTITY_NAMES))
    torch.testing.assert_close(identity.mean(0), torch.full_like(identity[0], 0.5), atol=0.03, rtol=0)
    torch.testing.assert_close(identity.std(0), torch.full_like(identity[0], 12**-0.5), atol=0.02, rtol=0)


def test_depth_leads_along_the_ray_to_the_surface():
    """Wherever the mask is whole, origin + depth * direction lies on the head, to half of a hundredth of its size."""
    identity, style, cameras = people(1), style_rows(["photo"]), views(0.4)
    _, depth, mask = render_heads(identity, style, cameras, 32, samples=1)
    origins, directions = rays(cameras, 32, OFFSETS[1])
    points = (origins + directions * depth.flatten()[:, None] / HEAD_UNIT)[0]
    away = nearest(parts(named(measures(identity[0], style[0])), *points.T))
    hit = mask.flatten() == 1
    assert 0.3 < hit.float().mean() < 0.8
    assert away[hit].abs().max() < 0.01


def test_the_middle_of_a_frontal_picture_is_the_face():
    """The nose stands about 0.6 head units, or 0.2 world units, in front of the axis that the camera orbits."""
    _, depth, mask = render_heads(people(3), style_rows(["photo"] * 3), views(0.0, heads=3), 32)
    middle = depth[:, 0, 0, 14:18, 14:18].amin((1, 2))
    assert (middle > 2.7 - 0.3).all()
    assert (middle < 2.7 - 0.12).all()
    assert (mask[:, 0, 0, 14:18, 14:18] == 1).all()


def test_background_is_exact_and_far(every_style):
    rgb, depth, mask = every_style
    empty = (mask == 0).expand_as(rgb)
    assert (rgb[empty] == torch.tensor(BACKGROUND)).all()
    assert (depth[mask < 0.5] == BACKGROUND_DEPTH).all()
    assert (depth[mask >= 0.5] < BACKGROUND_DEPTH - 0.01).all()


def test_four_samples_are_the_average_of_a_picture_of_twice_the_size():
    one = people(1), style_rows(["photo"]), views(0.3)
    coarse, fine = render_heads(*one, 24, samples=4), render_heads(*one, 48, samples=1)
    assert set(coarse[2].unique().tolist()) == {0.0, 0.25, 0.5, 0.75, 1.0}
    for picture, finer in ((coarse[0], fine[0]), (coarse[2], fine[2])):
        torch.testing.assert_close(picture[0], torch.nn.functional.avg_pool2d(finer[0], 2), atol=1e-5, rtol=0)


def asymmetry(picture):
    """Mean difference between what the right camera sees and, flipped, what the left one does: (7,)."""
    return (picture[:, 1] - picture[:, 2].flip(-1)).abs().mean((1, 2, 3))


def test_a_mirrored_camera_sees_the_flipped_picture(every_style):
    """But for a zombie's wounds, which are on one side."""
    rgb, depth, mask = every_style
    assert (asymmetry(mask) < 1e-4).all()
    assert (asymmetry(depth) < 1e-4).all()
    wounded = torch.tensor([style == "zombie" for style in STYLE_NAMES])
    assert (asymmetry(rgb)[~wounded] < 1e-4).all()
    assert (asymmetry(rgb)[wounded] > 1e-3).all()


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_wounds_alone_break_the_symmetry_of_colours(style):
    """A head's colour at (x, y, z) is that at (-x, y, z), except in the style that has wounds."""
    p = named(measures(people(1)[0], style_rows([style])[0]))
    x, y, z = 0.6 * torch.randn(3, 4000, generator=torch.Generator().manual_seed(2))
    weights = materials(parts(p, x, y, z))
    here, there = (torch.stack(albedo(p, side * x, y, z, weights)) for side in (1, -1))
    assert torch.equal(here, there) == (style != "zombie")


def test_a_full_turn_gives_the_same_picture():
    there, back = render_heads(people(1), style_rows(["statue"]), views(0.5, 0.5 - 2 * math.pi), 32)[0][0]
    assert (there - back).abs().mean() < 1e-3


def test_every_two_styles_differ_in_colour_and_in_shape(every_style):
    rgb, depth, _ = every_style
    for a in range(7):
        for b in range(a):
            assert (rgb[a] - rgb[b]).abs().mean() > 0.02, (STYLE_NAMES[a], STYLE_NAMES[b])
            assert (depth[a] - depth[b]).abs().mean() > 0.002, (STYLE_NAMES[a], STYLE_NAMES[b])


def test_no_pixel_of_the_face_shows_the_background(every_style):
    """Rays that graze the head and lose it leave slivers: pixels less covered than all of their neighbours."""
    mask = every_style[2].flatten(0, 1)
    ring = torch.ones(1, 1, 3, 3)
    ring[..., 1, 1] = 0
    around = torch.nn.functional.conv2d(mask, ring / 8)
    assert (mask[..., 1:-1, 1:-1][around > 0.95] > 0.7).all()


def test_styles_blend_without_a_jump():
    """Half-way rows are heads too, and a small step in a row is a small step in the picture."""
    photo, wolf = style_rows(["photo", "werewolf"])
    rows = torch.stack([torch.lerp(photo, wolf, t) for t in (0.50, 0.52)])
    before, after = render_heads(people(1).repeat(2, 1), rows, views(0.3, heads=2), 32)[0]
    assert (before - after).abs().mean() < 0.01


def test_an_unknown_style_is_named_with_its_likely_meaning():
    with pytest.raises(UnknownNameError, match="Did you mean 'zombie'"):
        style_rows(["zombi"])


def test_heads_and_cameras_must_agree():
    with pytest.raises(ShapeError, match="got 2 identities, 1 styles and 1 rows"):
        render_heads(people(2), style_rows(["photo"]), views(0.0), 16)
    with pytest.raises(ShapeError, match="32 numbers"):
        identity_from_codes(torch.zeros(2, 8))
    with pytest.raises(ConfigError, match="1, 2 or 4 samples, got 3"):
        render_heads(people(1), style_rows(["photo"]), views(0.0), 16, samples=3)


def test_every_identity_number_shows_at_64_pixels():
    """Moved to an end of its range, it changes the front of a short-haired head by as much as three white pixels."""
    count = len(IDENTITY_NAMES)
    identity = torch.full((count + 1, count), 0.4)
    short = {"hair_length": 0.15, "hair_volume": 0.3, "beard": 0.1, "skin_tone": 0.3, "fringe": 0.2}
    for name, value in short.items():
        identity[:, IDENTITY_NAMES.index(name)] = value
    identity[1:].fill_diagonal_(0.98)
    rgb = render_heads(identity, style_rows(["photo"] * (count + 1)), views(0.0, heads=count + 1), 64, samples=1)[0]
    changed = (rgb[1:] - rgb[:1]).abs().amax(2).sum((1, 2, 3))
    hidden = {name: pixels for name, pixels in zip(IDENTITY_NAMES, changed.tolist()) if pixels < 3}
    assert not hidden


TINY_SET = data.Set("photo", 2, 1, views=1, size=8)


def test_data_repeats_bit_for_bit_and_resumes_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "SHARD", 1)
    data.write_set(TINY_SET, tmp_path / "whole", 7, Tracer(), 1)

    def broken(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        calls = iter([data._shard, broken])
        stopped.setattr(data, "_shard", lambda *args, make=data._shard: next(calls)(*args))
        with pytest.raises(KeyboardInterrupt):
            data.write_set(TINY_SET, tmp_path / "halves", 7, Tracer(), 1)
    assert len(list((tmp_path / "halves" / "shards").iterdir())) == 1
    data.write_set(TINY_SET, tmp_path / "halves", 7, Tracer(), 1)

    whole, halves = (read_tensors(tmp_path / name / "photo.safetensors") for name in ("whole", "halves"))
    assert whole.keys() == halves.keys() == {"z", "identity", "rgb", "depth", "mask", "yaw", "pitch"}
    assert all(torch.equal(whole[key], halves[key]) for key in whole)
    assert whole["rgb"].shape == (3, 1, 3, 8, 8)
    assert not list((tmp_path / "halves" / "shards").iterdir())


def test_no_head_is_drawn_twice():
    """Neither within a set, nor in two sets, nor among those held out."""
    sets = [*data.SETS]
    heads = torch.stack([data.draw(one, 1, item)["z"] for one in sets for item in {0, 1, one.training, one.heads - 1}])
    assert len(heads.unique(dim=0)) == len(heads)
    assert not torch.equal(data.draw(sets[0], 1, 0)["z"], data.draw(sets[0], 2, 0)["z"])


def test_the_held_out_heads_wear_every_style_equally_often():
    one = data.SETS[2]
    for items in (range(one.training), range(one.training, one.heads)):
        place = torch.tensor([(i - items.start) % len(one.styles) for i in items])
        assert place.bincount().unique().numel() == 1
    assert [STYLE_NAMES[int(data.draw(one, 1, one.training + i)["style"])] for i in range(7)] == list(STYLE_NAMES)
