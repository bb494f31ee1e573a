"""A surface out of a field: where it is, which way round, how it is coloured, and that files keep it."""

import math
import sys

import numpy as np
import pytest
import torch
import trimesh

from distill3d.errors import ConfigError, MissingExtraError
from distill3d.export import Mesh, extract_mesh, save_mesh
from distill3d.renderer import Field
from distill3d.tiny.generator import load_tiny
from tests.toys import toy

RADIUS, MIDDLE = 0.3, torch.tensor([0.05, -0.1, 0.02])


class Ball(Field):
    """A dense ball whose colour is the place."""

    box_side, surface_density = 1.0, 5.0

    def query(self, scene, points):
        return 10 * ((RADIUS - (points - MIDDLE).norm(dim=-1)) / 0.1 + 0.5).clamp(0, 1), points * 2


SCENE = {"nothing": torch.zeros(1, 1)}


def loaded(mesh, path):
    save_mesh(mesh, path)
    return trimesh.load(path, force="mesh", process=False)


def test_a_ball_comes_out_where_it_is_and_as_large_as_it_is():
    found = extract_mesh(Ball(), SCENE, resolution=48)
    distance = np.linalg.norm(found.vertices - MIDDLE.numpy(), axis=1)
    assert abs(distance - RADIUS).max() < 0.003
    solid = trimesh.Trimesh(found.vertices, found.faces, process=False)
    assert solid.is_watertight and solid.is_winding_consistent
    assert solid.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.02)  # positive: faces look outwards


@pytest.mark.parametrize("level", [2.0, 8.0])
def test_a_lower_level_is_a_larger_surface(level):
    found = extract_mesh(Ball(), SCENE, resolution=48, level=level)
    distance = np.linalg.norm(found.vertices - MIDDLE.numpy(), axis=1).mean()
    assert distance == pytest.approx(RADIUS + 0.1 * (0.5 - level / 10), abs=0.003)


def test_a_surface_that_leaves_the_box_is_closed_at_its_sides():
    class Everywhere(Ball):
        def query(self, scene, points):
            return torch.full(points.shape[:2], 7.0), points

    found = extract_mesh(Everywhere(), SCENE, resolution=8)
    solid = trimesh.Trimesh(found.vertices, found.faces, process=False)
    assert solid.is_watertight
    assert solid.volume == pytest.approx((1 + 1 / 7) ** 3, rel=0.2)


@pytest.mark.parametrize("suffix", ["glb", "ply", "obj"])
def test_files_keep_surface_and_colours(suffix, tmp_path):
    found = extract_mesh(Ball(), SCENE, resolution=24)
    back = loaded(found, tmp_path / "sub" / f"ball.{suffix}")
    assert len(back.vertices) == len(found.vertices)
    assert back.volume == pytest.approx(trimesh.Trimesh(found.vertices, found.faces, process=False).volume, rel=1e-4)
    order = np.lexsort(np.round(np.asarray(back.vertices), 4).T)
    ours = np.lexsort(np.round(found.vertices, 4).T)
    shown = np.asarray(back.visual.vertex_colors)[order, :3] / 255
    field = (np.clip(found.vertices[ours] * 2, -1, 1) + 1) / 2
    assert abs(shown - field).max() < 0.02


def test_a_head_of_the_embedded_generator_is_one_closed_solid_with_the_colours_of_its_field(tmp_path):
    renderer = load_tiny()
    scene = renderer.scene(renderer.codes_of_seeds([3]))
    steps = []
    found = extract_mesh(renderer, scene, resolution=64, progress=lambda done, total: steps.append((done, total)))
    assert steps[0] == (1, 64) and steps[-1] == (64, 64)
    head = loaded(found, tmp_path / "head.glb")
    assert head.volume > 0.03
    assert trimesh.Trimesh(found.vertices, found.faces, process=False).is_watertight
    assert head.extents.max() < renderer.box_side
    with torch.no_grad():
        field = renderer.query(scene, torch.from_numpy(found.vertices)[None])[1][0]
    assert abs(found.colours / 255 - (field.clamp(-1, 1).numpy() + 1) / 2).max() < 0.02


def test_what_cannot_be_made_is_said(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no field"):
        extract_mesh(toy(), SCENE)
    with pytest.raises(ConfigError, match="Nothing here is denser than 50; the most is 10"):
        extract_mesh(Ball(), SCENE, resolution=16, level=50)
    with pytest.raises(ConfigError, match="at least 8"):
        extract_mesh(Ball(), SCENE, resolution=4)
    mesh = Mesh(np.zeros((3, 3), np.float32), np.array([[0, 1, 2]]), np.zeros((3, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"\.glb, \.ply, \.obj, got 'x.stl'"):
        save_mesh(mesh, tmp_path / "x.stl")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    for call in (lambda: save_mesh(mesh, tmp_path / "x.glb"), lambda: extract_mesh(Ball(), SCENE)):
        with pytest.raises(MissingExtraError, match=r"distill3d\[mesh\]"):
            call()
    assert list(tmp_path.iterdir()) == []
