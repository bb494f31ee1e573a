"""A surface out of a density field: marching cubes, coloured at its vertices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from distill3d.errors import ConfigError, MissingExtraError
from distill3d.files import written_aside
from distill3d.renderer import Field, Renderer, Scene, example
from distill3d.report.pictures import to_uint8

SUFFIXES = (".glb", ".ply", ".obj")
AT_ONCE = 1 << 17  # points that are asked for together


@dataclass(frozen=True)
class Mesh:
    """A closed surface, its faces turned outwards."""

    vertices: np.ndarray  # (N, 3) float32, the canonical world
    faces: np.ndarray  # (M, 3) int64
    colours: np.ndarray  # (N, 3) uint8


@torch.no_grad()
def extract_mesh(
    renderer: Renderer,
    scene: Scene,
    *,
    resolution: int = 128,
    level: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mesh:
    """The surface of one subject.

    Args:
        scene: as returned by `renderer.scene`, one subject.
        resolution: points along each side of the box.
        level: density per world unit that is the surface; None for the backbone's own.
        progress: told how many of how many slices were asked for.
    Raises:
        ConfigError: if the backbone has no field, or nothing in it is that dense.
        MissingExtraError: without the `mesh` extra.
    """
    if not isinstance(renderer, Field):
        raise ConfigError(f"{type(renderer).__name__} has no field that can be asked, so no mesh can be made of it.")
    try:
        from skimage.measure import marching_cubes
    except ImportError as error:
        raise MissingExtraError("A mesh", "mesh") from error
    if resolution < 8:
        raise ConfigError(f"A mesh needs at least 8 points along a side, got {resolution}.")
    level = renderer.surface_density if level is None else level
    if not level > 0:
        raise ConfigError(f"The level of a surface is a density above 0, got {level}.")
    density = _grid(renderer, scene, resolution, progress)
    if not level < density.max():
        raise ConfigError(
            f"Nothing here is denser than {level:g}; the most is {density.max():.3g}. Give a lower level."
        )
    # A frame of nothing closes the surface where it leaves the box.
    corners, faces, _, _ = marching_cubes(np.pad(density, 1), level, gradient_direction="ascent")
    step = renderer.box_side / (resolution - 1)
    vertices = ((corners - 1) * step - renderer.box_side / 2).astype(np.float32)
    parts = torch.from_numpy(vertices).to(example(scene)).split(AT_ONCE)
    colours = torch.cat([renderer.query(scene, part[None])[1][0] for part in parts])  # (N, 3)
    in_bytes = to_uint8(colours.T[:, :, None])[:, 0]  # as a picture one pixel wide
    return Mesh(vertices, _outwards(vertices, faces.astype(np.int64)), in_bytes)


def _grid(renderer: Field, scene: Scene, resolution: int, progress: Callable[[int, int], None]) -> np.ndarray:
    """Densities (resolution,) * 3, axes x, y, z."""
    place = torch.linspace(-renderer.box_side / 2, renderer.box_side / 2, resolution).to(example(scene))
    y, z = torch.meshgrid(place, place, indexing="ij")
    slices = []
    for number, x in enumerate(place):
        points = torch.stack([x.expand_as(y), y, z], -1).flatten(0, 1)
        found = [renderer.query(scene, part[None])[0][0].float().cpu() for part in points.split(AT_ONCE)]
        slices.append(torch.cat(found).view(resolution, resolution).numpy())
        progress(number + 1, resolution)
    return np.stack(slices)


def _outwards(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces whose normals point out: then the volume under them is positive."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    volume = (a * np.cross(b, c)).sum() / 6
    return faces if volume > 0 else faces[:, ::-1]


def save_mesh(mesh: Mesh, path: Path) -> None:
    """Write .glb, .ply or .obj, with the colours at the vertices, whole or not at all.

    Colours are written as the pictures show them. (Strict glTF viewers take vertex colours as linear light and show
    them paler; Blender and most others do not.)

    Raises:
        ConfigError: for another suffix.
        MissingExtraError: without the `mesh` extra.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"A mesh is written as {', '.join(SUFFIXES)}, got {path.name!r}.")
    try:
        import trimesh
    except ImportError as error:
        raise MissingExtraError("Writing a mesh", "mesh") from error
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_colors=mesh.colours, process=False)
    with written_aside(path) as aside:
        made.export(aside, file_type=path.suffix.lower().lstrip("."))
