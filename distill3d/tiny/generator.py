"""The embedded backbone: EG3D's structure, small enough for one CPU core.

Chan et al., CVPR 2022, arXiv:2112.07945: codes -> styles -> tri-planes -> volume rendering -> super-resolution. It is a
toy that knows one procedural family of heads; it stands in for a real backbone and is no evidence for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from distill3d.cameras import CameraPrior, Cameras
from distill3d.draws import Draws
from distill3d.errors import ShapeError, UnknownNameError, WeightsError
from distill3d.files import written_aside
from distill3d.licences import EMBEDDED
from distill3d.renderer import AnySize, Field, Parted, Render, Renderer, RunDefaults, Scene, Stage, StylePart
from distill3d.tiny.subjects import WorldSubjects
from distill3d.tiny.synthesis import Decoder, Mapping, SuperResolution, Synthesis
from distill3d.volume import (
    XY_XZ_ZY,
    Lookup,
    along,
    box_interval,
    composite_samples,
    ellipsoid_interval,
    hull_interval,
    pixel_rays,
    sample_histogram,
    sample_planes,
)

WEIGHTS = Path(__file__).parent / "weights" / "generator.safetensors"
BACKGROUND = 0.86  # .93 in [0, 1]
BACKGROUND_DEPTH = 3.05
TEXTURE = ("decoder.second.", "superresolution.")  # see `TinyTriplane.part_of`
METADATA = "distill3d-tiny-generator"  # the one key: several would be written in no fixed order

# Centre and radii, in head units of 0.3165, of two ellipsoids that hold head and shoulders in every style.
HULL = tuple(
    tuple(0.3165 * x for x in ellipsoid)
    for ellipsoid in ((0.0, 0.08, -0.02, 0.95, 1.08, 1.14), (0.0, -1.0, -0.1, 1.0, 0.62, 0.78))
)


@dataclass(frozen=True, kw_only=True)
class TinyArchitecture:
    """Sizes of the tiny generator; written into its weight file."""

    code_size: int = 32
    style_size: int = 64
    channels: tuple[int, ...] = (128, 128, 96, 64, 48)  # at 4, 8, 16, ... up to the planes' size
    plane_channels: int = 12
    decoder_hidden: int = 32
    features: int = 6  # rendered beside the colours, for super-resolution
    residual_hidden: int = 24
    density_scale: float = 40.0
    samples: int = 12  # along the part of a ray that lies in the hull
    crowd: tuple[float, float] = (0.12, 0.52)  # half of the samples in this part: there 90 % of the surfaces are
    box_side: float = 0.72  # world units
    hull: tuple[tuple[float, ...], ...] = HULL  # centre and radii of ellipsoids, world units
    raw_size: int = 64


class TinyTriplane(Renderer, AnySize, Field, Parted, WorldSubjects):
    """A small tri-plane generator of heads.

    Rays are sampled only where they cross the hull, a union of two ellipsoids around head and shoulders: the rest of
    the box is empty for every subject, and a third of the rays meet nothing at all.
    """

    weights_licence = "Apache-2.0"
    surface_density = 20.0  # half of the decoder's scale
    defaults = RunDefaults(
        scorer="tiny",
        steps=600,
        lr=8e-3,
        batch=1,
        stage="raw",  # as large as the embedded diffusion model's pictures
        path="flow",  # a look of the embedded scorer costs little, and `replay` keeps what it found
        mirror=False,
        grid_every=6,
        rerender=False,
        threads=1,
        replay=150,
        front=CameraPrior(yaw=60, pitch=20),
        around=CameraPrior(yaw=180, pitch=20),
    )

    def __init__(self, architecture: TinyArchitecture | None = None):
        super().__init__()
        self.architecture = a = architecture or TinyArchitecture()
        self.code_shape = (a.code_size,)
        self.raw_size, self.image_size = a.raw_size, 2 * a.raw_size
        self.box_side = a.box_side
        self.mapping = Mapping(a.code_size, a.style_size)
        self.synthesis = Synthesis(a.style_size, a.channels, a.plane_channels)
        self.decoder = Decoder(3 * a.plane_channels, a.decoder_hidden, a.features, a.density_scale)
        self.superresolution = SuperResolution(a.style_size, a.features, a.residual_hidden)

    def sample_codes(self, draws: Draws) -> Tensor:
        """(S, code_size), standard normal."""
        return draws.normal("codes", *self.code_shape).to(self.decoder.first.bias)

    def world_codes(self, seeds: Sequence[int]) -> Tensor:
        """See `WorldSubjects.world_codes`: the codes themselves."""
        return self.codes_of_seeds(seeds)

    def scene(self, codes: Tensor) -> Scene:
        """ "planes" (S, 3, C, 64, 64), and the styles "w" (S, style_size) that super-resolution reads."""
        if codes.shape[1:] != self.code_shape:
            raise ShapeError(f"Codes of this backbone are (S, {self.code_shape[0]}), got {tuple(codes.shape)}.")
        w = self.mapping(codes)
        return {"planes": self.synthesis(w), "w": w}

    def render(self, scene: Scene, cameras: Cameras, *, upto: Stage = "image", draws: Draws | None = None) -> Render:
        """See `Renderer.render`; the jitter is one shift for each ray."""
        pictures, features = self._render_raw(scene, cameras, self.raw_size, draws)
        if upto == "raw":
            return pictures
        subjects, views = features.shape[:2]
        w = scene["w"].repeat_interleave(views, 0)
        image = self.superresolution(pictures.raw.flatten(0, 1), features.flatten(0, 1), w)
        return replace(pictures, image=image.unflatten(0, (subjects, views)))

    def render_raw(self, scene: Scene, cameras: Cameras, size: int, *, draws: Draws | None = None) -> Render:
        """See `AnySize.render_raw`."""
        return self._render_raw(scene, cameras, size, draws)[0]

    def _render_raw(self, scene: Scene, cameras: Cameras, size: int, draws: Draws | None) -> tuple[Render, Tensor]:
        """The raw pictures, and the features (S, V, F, size, size) that super-resolution reads."""
        planes = scene["planes"]
        subjects, views = cameras.cam2world.shape[:2]
        if len(planes) != subjects:
            raise ShapeError(f"A scene of {len(planes)} subjects cannot be seen by the cameras of {subjects}.")
        origins, directions = (x.flatten(1, 2) for x in pixel_rays(cameras.to(planes), size, size))  # (S, V*h*w, 3)
        jitter = None if draws is None else draws.uniform("jitter", size * size, 1).repeat(1, views, 1).to(planes)
        values, depth, opacity = self.trace(planes, origins, directions, jitter)
        pictures = torch.cat([values, depth, opacity], 1).unflatten(-1, (views, size, size)).transpose(1, 2)
        raw, features, depth, opacity = pictures.split([3, self.architecture.features, 1, 1], 2)
        return Render(raw, depth, opacity), features

    def trace(
        self, planes: Tensor, origins: Tensor, directions: Tensor, jitter: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Volume rendering of any rays.

        Args:
            planes: (S, 3, C, h, w).
            origins, directions: (S, N, 3).
            jitter: (S, N, 1 or samples) in [0, 1); None for the middles.
        Returns:
            values (S, 3 + features, N): colours over the background, features over 0; depth and opacity (S, 1, N).
        """
        near, far = self._interval(origins, directions)
        crosses = near < far
        # The rays that cross come first, as many for each subject as the subject with most of them needs.
        count = int(crosses.sum(1).max().clamp(min=1))
        order = crosses.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]  # (S, K)
        near, far = near.gather(1, order), far.gather(1, order)
        length = (far - near).clamp(min=0)[..., None]
        near = torch.where(length > 0, near[..., None], torch.full_like(length, BACKGROUND_DEPTH))  # a miss has inf
        pick = order[..., None].expand(-1, -1, 3)
        if jitter is not None:
            jitter = jitter.gather(1, order[..., None].expand(-1, -1, jitter.shape[-1]))
        start, width = self._cells(planes)
        t = near + length * (start + width * (0.5 if jitter is None else jitter))  # (S, K, n)
        points = along(origins.gather(1, pick), directions.gather(1, pick), t)
        density, values = self.look_up(planes, points.flatten(1, 2))
        ray = composite_samples(
            t,
            length * width,
            density.unflatten(-1, t.shape[1:]),
            values.unflatten(-1, t.shape[1:]).movedim(1, -1),
        )
        found = torch.cat([ray.values, ray.depth, ray.opacity], -1).transpose(1, 2)  # (S, 3 + F + 2, K)
        everywhere = found.new_zeros(*found.shape[:2], origins.shape[1])
        everywhere = everywhere.scatter(2, order[:, None].expand_as(found), found)
        values, depth, opacity = everywhere.split([values.shape[1], 1, 1], 1)
        behind = values.new_zeros(values.shape[1], 1)
        behind[:3] = BACKGROUND
        return values + (1 - opacity) * behind, depth + (1 - opacity) * BACKGROUND_DEPTH, opacity

    def look_up(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """The field at points (S, N, 3): density (S, N) per world unit and values (S, 3 + features, N)."""
        exact = planes.is_cuda and torch.are_deterministic_algorithms_enabled()
        lookup: Lookup = "deterministic" if exact else "fast"
        found = sample_planes(planes, points, XY_XZ_ZY, self.architecture.box_side, lookup=lookup)
        return self.decoder(found.flatten(1, 2))

    def query(self, scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `Field.query`; outside of the hull there is nothing, as rays are not sampled there."""
        density, values = self.look_up(scene["planes"], points)
        hull = torch.tensor(self.architecture.hull).to(points)
        inside = (((points[..., None, :] - hull[:, :3]) / hull[:, 3:]).square().sum(-1) < 1).any(-1)
        return density * inside, values[:, :3].transpose(1, 2)

    def _cells(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Start and width (samples,) of the pieces of a ray's part in the hull, as fractions of it."""
        low, high = self.architecture.crowd
        edges = like.new_tensor([0.0, low, high, 1.0])
        weights = 0.5 * edges.diff() + 0.5 * like.new_tensor([0.0, 1.0, 0.0])
        cuts = torch.linspace(0, 1, self.architecture.samples + 1).to(like)
        cells = sample_histogram(edges, weights, cuts, floor=0.0)
        return cells[:-1], cells.diff()

    def trainable(self, group: str = "default") -> dict[str, nn.Parameter]:
        """ "default": planes and decoder; "superresolution": that as well; "decoder"; "all".

        Super-resolution stays as it is by default: a scorer that looks at 64 px cannot teach what it adds.
        """
        groups = {
            "default": ("synthesis", "decoder"),
            "superresolution": ("synthesis", "decoder", "superresolution"),
            "decoder": ("decoder",),
            "all": ("mapping", "synthesis", "decoder", "superresolution"),
        }
        if group not in groups:
            raise UnknownNameError("training group", group, groups)
        return {name: p for name, p in self.named_parameters() if name.split(".")[0] in groups[group]}

    def part_of(self, name: str) -> StylePart:
        """See `Parted.part_of`: the decoder's last layer and super-resolution are texture, all before it geometry.

        Measured on the default group of three runs (zombie, pixar, statue; four heads, three views, raw pictures), in
        parts of what the whole change does. The decoder's last layer alone moves depth by .05, .05, .12 and colours by
        .54, .49, .32; all else alone moves depth by 1.00, .99, 1.02 (to within .04, .07, .17 of the run's) and colours
        by .87, .75, .79: what shapes a head is coloured with it. No other boundary comes near. Late layers, which in
        generators of pictures are texture (Pinkney and Adler, 2020, arXiv:2010.05334), are not so here: those of 64
        cells with all that follows move depth by .9, for what they refine, the planes, holds density and colour both.
        """
        return "texture" if name.startswith(TEXTURE) else "geometry"

    def _interval(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays cross hull and box: near and far (S, N), near > far for a miss."""
        hull = torch.tensor(self.architecture.hull).to(origins)
        near, far = hull_interval([ellipsoid_interval(origins, directions, h[:3], h[3:]) for h in hull])
        corner = origins.new_full((3,), self.architecture.box_side / 2)
        enter, leave = box_interval(origins, directions, -corner, corner)
        return torch.maximum(near, enter).clamp(min=0), torch.minimum(far, leave)


def save_tiny(renderer: TinyTriplane, path: Path) -> None:
    """Write the weights in half precision, with the architecture as metadata, aside and then renamed."""
    metadata = {METADATA: json.dumps({"architecture": asdict(renderer.architecture)})}
    tensors = {name: value.detach().half().cpu().contiguous() for name, value in renderer.state_dict().items()}
    with written_aside(path) as aside:
        save_file(tensors, aside, metadata)


def load_tiny(weights: str | None = None, device: str = "cpu") -> TinyTriplane:
    """The embedded generator, float32.

    Args:
        weights: a file that `save_tiny` wrote; None or "embedded" for the one that comes with the package, so a file
            that is called so is ./embedded.
        device: where to put it.
    Raises:
        WeightsError: if the file is missing, damaged, or no tiny generator.
    """
    path = WEIGHTS if weights is None or weights == EMBEDDED else Path(weights)
    advice = "Reinstall distill3d" if path == WEIGHTS else "Give the path of a file that save_tiny wrote"
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}. {advice}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if METADATA not in metadata:
            raise WeightsError(f"{path} holds no tiny generator. {advice}.")
        renderer = TinyTriplane(_architecture(json.loads(metadata[METADATA])["architecture"]))
        renderer.load_state_dict(tensors)
        renderer.weights_name = EMBEDDED if path == WEIGHTS else ""
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"The weight file {path} is damaged ({first_line}). {advice}.") from error
    return renderer.to(device).eval()


def _architecture(stored: dict[str, object]) -> TinyArchitecture:
    def frozen(value: object) -> object:
        return tuple(frozen(v) for v in value) if isinstance(value, Iterable) and not isinstance(value, str) else value

    known = {f.name for f in fields(TinyArchitecture)}
    if unknown := set(stored) - known:
        raise ValueError(f"unknown architecture fields {sorted(unknown)}")
    return TinyArchitecture(**{name: frozen(value) for name, value in stored.items()})  # type: ignore[arg-type]
