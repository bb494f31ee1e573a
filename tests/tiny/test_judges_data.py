"""The judges' own data: heads of no other set, each in every style."""

from __future__ import annotations

import torch

from distill3d.cameras import orbit
from distill3d.tiny.train import world as data
from distill3d.tiny.train.store import read_tensors
from distill3d.tiny.world import STYLE_NAMES, Tracer, render_heads, style_rows

FACES = next(one for one in data.SETS if one.name == "faces")


def test_every_head_is_seen_twice_as_a_photo_and_once_in_every_other_style():
    for item in (0, 1, FACES.held_out - 1):
        assert data.draw(FACES, 1, item)["style"].tolist() == [0, *range(len(STYLE_NAMES))]


def test_most_cameras_see_the_front_and_some_stand_anywhere():
    yaw = torch.stack([data.draw(FACES, 1, item)["yaw"] for item in range(60)]).abs()
    outside = (yaw > FACES.front).float().mean()
    assert 0.04 < outside < 0.2
    assert yaw.max() > 2.5


def test_each_view_is_the_picture_of_its_own_style_and_camera(tmp_path):
    names = ("photo", "joker")
    one = data.Set("faces", 1, 1, views=2, size=8, styles=names, each_view=True, front=1.0)
    data.write_set(one, tmp_path, 3, Tracer(), 1)
    stored = read_tensors(tmp_path / "faces.safetensors")
    assert stored["rgb"].shape == (2, 2, 3, 8, 8)
    assert stored["mask"].shape == (2, 2, 1, 8, 8)
    assert stored["style"].tolist() == [[0, 3], [0, 3]]
    cameras = orbit(stored["yaw"][1:, 1:], stored["pitch"][1:, 1:])
    rgb, _, _ = render_heads(stored["identity"][1:], style_rows(("joker",)), cameras, 8, samples=1)
    assert torch.equal(stored["rgb"][1, 1], (255 * rgb[0, 0] + 0.5).to(torch.uint8))
