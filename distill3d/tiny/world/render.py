"""Heads to pictures: rays that step along the distance until they meet the surface."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.cameras import Cameras
from distill3d.errors import ConfigError, ShapeError
from distill3d.tiny.world.anatomy import measures, named
from distill3d.tiny.world.colour import albedo, materials
from distill3d.tiny.world.shading import shade
from distill3d.tiny.world.shape import nearest, parts

HEAD_UNIT = 0.3165  # world units; EG3D's face cameras show +-1 head unit around the origin
BACKGROUND = 0.93
BACKGROUND_DEPTH = 3.05  # beyond the farthest point of the head
OFFSETS = {
    1: ((0.0, 0.0),),
    2: ((-0.25, -0.25), (0.25, 0.25)),
    4: ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25)),
}
CHUNK = 8192  # rays at a time: their temporaries stay in the cache
FEW = 512  # compiled code knows two shapes: a chunk, and the few rays that graze the head and take long
ROUNDS = (6, 4, 4, 4, 6, 8, 12, 16, 32, 64, 64)  # steps before the rays that are done are set aside
STEP = 0.85  # of the distance: it is a bound of the true one only roughly

AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))  # central differences: as symmetric as the head is

# Ellipsoids, (centre, radii), that hold every head, its shoulders and a wolf's ears; other rays see the background.
BOUNDS = (
    ((0.0, 0.02, 0.0), (0.95, 1.12, 1.12)),
    ((0.0, -1.05, -0.1), (1.0, 0.5, 0.65)),
    ((0.0, 0.8, 0.05), (0.95, 0.4, 0.45)),
)


def render_heads(
    identity: Tensor,
    styles: Tensor,
    cameras: Cameras,
    size: int,
    *,
    background: float = BACKGROUND,
    samples: int = 4,
    tracer: Tracer | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures of S heads from V cameras each.

    Args:
        identity: (S, K) in [0, 1], ordered as `IDENTITY_NAMES`.
        styles: (S, len(STYLE_KEYS)), as `style_rows` gives them.
        cameras: (S, V), in the canonical world.
        size: height and width of the pictures.
        background: grey in [0, 1].
        samples: rays in each pixel, averaged: 1, 2 (on its diagonal) or 4.
        tracer: a `Tracer(compiled=True)` to reuse; by default the plain one.
    Returns:
        rgb (S, V, 3, size, size) in [0, 1]; depth (S, V, 1, size, size) along the ray in world units, that of the
        head where it covers at least half of the pixel, `BACKGROUND_DEPTH` elsewhere; mask (S, V, 1, size, size),
        the part of the pixel that the head covers.
    Raises:
        ShapeError: if identity, styles and cameras disagree on S.
        ConfigError: if `samples` is another number.
    """
    if not len(identity) == len(styles) == len(cameras.cam2world):
        raise ShapeError(
            f"One style row and one row of cameras for each head, got {len(identity)} identities, "
            f"{len(styles)} styles and {len(cameras.cam2world)} rows of cameras."
        )
    if samples not in OFFSETS:
        raise ConfigError(f"A pixel takes 1, 2 or 4 samples, got {samples}.")
    tracer = tracer or Tracer()
    origins, directions = rays(cameras, size, OFFSETS[samples])
    pixel = float(1 / (cameras.intrinsics[0, 0, 0, 0] * size * samples**0.5))
    values = measures(identity, styles)
    pictures = [tracer(row, o, d, pixel, background) for row, o, d in zip(values, origins, directions)]
    shape = (cameras.cam2world.shape[1], samples, size, size)
    rgb, depth, mask = (torch.stack(picture).unflatten(1, shape) for picture in zip(*pictures))
    return _average(rgb.movedim(-1, 3), depth[:, :, :, None], mask[:, :, :, None])


def rays(cameras: Cameras, size: int, offsets: Sequence[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    """Origins and unit directions, each (S, V * len(offsets) * size * size, 3), in head units.

    `offsets` are (right, down) from the middle of each pixel, in pixels.
    """
    middle = torch.arange(size, dtype=torch.float32) + 0.5
    v, u = torch.meshgrid(middle, middle, indexing="ij")
    grids = [torch.stack([(u + right) / size, (v + down) / size, torch.ones_like(u)], -1) for right, down in offsets]
    pixels = torch.stack(grids).flatten(0, 2)  # (P, 3)
    local = pixels @ torch.linalg.inv(cameras.intrinsics).transpose(-1, -2)  # (S, V, P, 3)
    directions = F.normalize(local @ cameras.cam2world[..., :3, :3].transpose(-1, -2), dim=-1)
    origins = (cameras.cam2world[..., None, :3, 3] / HEAD_UNIT).expand_as(directions)
    return origins.flatten(1, 2), directions.flatten(1, 2)


def _average(rgb: Tensor, depth: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(S, V, samples, C, H, W) to (S, V, C, H, W); depth averages only the samples that meet the head."""
    cover = mask.mean(2)
    depth = (depth * mask).mean(2) / cover.clamp(min=1e-6)
    return rgb.mean(2), torch.where(cover >= 0.5, depth, BACKGROUND_DEPTH), cover


class Tracer:
    """Traces the rays of one head at a time.

    Args:
        compiled: through `torch.compile`, many times faster after about a minute of compilation; for making data.
    """

    def __init__(self, compiled: bool = False):
        wrap: Callable = (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        self.distance, self.colour, self.compiled = wrap(_distance), wrap(_colour), compiled

    @torch.no_grad()
    def __call__(self, row: Tensor, origins: Tensor, directions: Tensor, pixel: float, background: float):
        """One row of `measures`, rays (N, 3): rgb (N, 3), depth (N,) in world units, mask (N,) of 0 and 1."""
        rgb = origins.new_full((len(origins), 3), background)
        depth, mask = origins.new_full((len(origins),), BACKGROUND_DEPTH), origins.new_zeros(len(origins))
        near, far = _bounds(origins, directions)
        index = (near < far).nonzero()[:, 0]
        table = torch.cat([origins[index], directions[index]], 1).T.contiguous()  # (6, M)
        hit, distance = self._meet(row, table, near[index], far[index], pixel)
        table, distance, index = table[:, hit], distance[hit], index[hit]
        for piece in torch.arange(len(index)).split(CHUNK):
            rgb[index[piece]] = self._surface(row, table[:, piece], distance[piece], pixel).T
        depth[index], mask[index] = distance * HEAD_UNIT, 1.0
        return rgb, depth, mask

    def _meet(self, row: Tensor, table: Tensor, near: Tensor, far: Tensor, pixel: float) -> tuple[Tensor, Tensor]:
        """Which rays meet the head, and where; `near` and `far` bound the search."""
        t, gap = near.clone(), torch.full_like(near, torch.inf)
        going = torch.arange(len(t))
        for steps in ROUNDS:
            for piece in going.split(CHUNK):
                start, along, place = table[:3, piece], table[3:, piece], t[piece]
                for _ in range(steps):
                    residual = self._call(self.distance, row, start + along * place)
                    place = place + STEP * residual
                t[piece], gap[piece] = place, residual
            # A ray is done once its last step was a small part of a pixel, or behind the head.
            going = going[(gap[going].abs() > 0.1 * pixel * t[going]) & (t[going] < far[going])]
        return (gap < pixel * t) & (t < far), t

    def _surface(self, row: Tensor, table: Tensor, t: Tensor, pixel: float) -> Tensor:
        """(3, N): the colour that each ray brings back from where it stopped."""
        points = table[:3] + table[3:] * t
        ends = points.new_tensor(AXES)[..., None] * (0.6 * pixel * t)  # (3, 3, N)
        slopes = [
            self._call(self.distance, row, points + end) - self._call(self.distance, row, points - end) for end in ends
        ]
        normals = F.normalize(torch.stack(slopes), dim=0)
        near, far = (self._call(self.distance, row, points + by * normals) / by for by in (0.03, 0.10))
        open_sky = 0.4 * near.clamp(0, 1) + 0.6 * far.clamp(0, 1)
        facing = (normals * table[3:]).sum(0).abs()
        return self._call(self.colour, row, torch.cat([points, normals, facing[None], open_sky[None]]))

    def _call(self, function: Callable, row: Tensor, columns: Tensor) -> Tensor:
        if not self.compiled:
            return function(row, columns)
        count = columns.shape[1]
        padding = (FEW if count <= FEW else CHUNK) - count
        return function(row, F.pad(columns, (0, padding), value=1.0))[..., :count]


def _bounds(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """Where each ray enters and leaves the ellipsoids around the head; near = inf for a ray that misses."""
    near, far = torch.full_like(origins[:, 0], torch.inf), torch.full_like(origins[:, 0], -torch.inf)
    for centre, radii in BOUNDS:
        o = (origins - origins.new_tensor(centre)) / origins.new_tensor(radii)
        d = directions / origins.new_tensor(radii)
        a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
        root = (b * b - a * c).clamp(min=0).sqrt()
        meets = b * b > a * c
        near = torch.where(meets, torch.minimum(near, (-b - root) / a), near)
        far = torch.where(meets, torch.maximum(far, (-b + root) / a), far)
    return near, far


def _distance(row: Tensor, points: Tensor) -> Tensor:
    """(N,): distance of points (3, N) to the head."""
    return nearest(parts(named(row), *points.unbind(0)))


def _colour(row: Tensor, columns: Tensor) -> Tensor:
    """(3, N) from (8, N): surface points, normals, cosine to the ray, and openness to the sky."""
    p = named(row)
    x, y, z, nx, ny, nz, facing, open_sky = columns.unbind(0)
    weights = materials(parts(p, x, y, z))
    return shade(p, albedo(p, x, y, z, weights), (x, y, z), (nx, ny, nz), facing, open_sky, weights)
