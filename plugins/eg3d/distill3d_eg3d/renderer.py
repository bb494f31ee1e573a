"""EG3D and PanoHead as a `Renderer` of distill3d."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill3d.cameras import CameraPrior, Cameras, look_at, pinhole, to_label
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError, UnknownNameError
from distill3d.renderer import (
    AnySize,
    Field,
    Folding,
    Parted,
    Render,
    Renderer,
    RunDefaults,
    Scene,
    Stage,
    StylePart,
    Thrifty,
)
from distill3d.volume import even_quantiles, mean_depth, pixel_rays
from distill3d_eg3d.architecture import Architecture
from distill3d_eg3d.generator import Generator, RawPicture
from distill3d_eg3d.look import Look
from distill3d_eg3d.low_rank import MARK, add_low_rank, folded
from distill3d_eg3d.networks import directly
from distill3d_eg3d.parts import part_of
from distill3d_eg3d.volume import cropped, density_of, ray_limits, trace

SURFACE = 9.0  # the official scripts' level, 10 before the activation softplus(x - 1)


class TriplaneRenderer(Renderer, AnySize, Field, Thrifty, Folding, Parted):
    """Any EG3D or PanoHead checkpoint.

    Codes are ws, (num_ws, w_dim): what mapping and truncation made of z. The canonical world is the networks' own: they
    look along -z at the face, y up, the head around the origin. (EG3D's average camera looks a little in front of the
    origin; that camera conditions the mapping, as in its own scripts.)

    Args:
        look: how subjects are drawn and shown.
        licence: of the weights.
        weights_name: under which they are published; "" for none.
        subjects: codes (n, num_ws, w_dim) that are drawn and counted instead of the generator's own.
        reference: compute by the published recipe literally; slower.
    """

    subjects: Tensor | None

    def __init__(
        self,
        architecture: Architecture,
        look: Look | None = None,
        *,
        licence: str = "unknown",
        weights_name: str = "",
        subjects: Tensor | None = None,
        reference: bool = False,
    ):
        super().__init__()
        self.look = look or Look()
        if reference and self.look.precision != "float32":
            raise ConfigError("The published recipe is computed in full precision; leave precision at float32.")
        self.generator = Generator(architecture, reference=reference)
        self.code_shape = (architecture.num_ws, architecture.w_dim)
        if subjects is not None and subjects.shape[1:] != self.code_shape:
            raise ShapeError(f"Subjects of this checkpoint are (n, {self.code_shape}), got {tuple(subjects.shape)}.")
        self.register_buffer("subjects", subjects, persistent=False)
        self.image_size, self.raw_size = architecture.image_size, architecture.neural_resolution
        self.weights_licence, self.weights_name = licence, weights_name
        if self.look.compiled:
            self.generator.superresolution.compile()
        self.defaults = run_defaults(architecture)
        self.box_side, self.surface_density = architecture.box_side, SURFACE

    @property
    def architecture(self) -> Architecture:
        return self.generator.architecture

    @property
    def low_memory(self) -> bool:
        """See `Thrifty.low_memory`."""
        return self.look.low_memory

    @low_memory.setter
    def low_memory(self, wanted: bool) -> None:
        self.look = replace(self.look, low_memory=wanted)

    def sample_codes(self, draws: Draws) -> Tensor:
        """(S, num_ws, w_dim)."""
        if self.subjects is not None:
            return self.subjects[draws.integers("subject", len(self.subjects)).to(self.subjects.device)]
        return self._codes(draws.normal("z", self.architecture.z_dim))

    def codes_of_seeds(self, seeds: Sequence[int]) -> Tensor:
        """The subjects that EG3D's and PanoHead's scripts show for these seeds; given subjects, by number."""
        if self.subjects is not None:
            return self.subjects[[seed % len(self.subjects) for seed in seeds]]
        if bad := [seed for seed in seeds if not 0 <= seed < 2**32]:
            raise ConfigError(f"A seed of EG3D lies in [0, 2^32), got {bad[0]}.")
        z = [np.random.RandomState(seed).randn(1, self.architecture.z_dim) for seed in seeds]
        return self._codes(torch.from_numpy(np.concatenate(z)).float())

    @torch.no_grad()
    def _codes(self, z: Tensor) -> Tensor:
        like = self.generator.backbone.mapping.w_avg
        label = average_camera_label(self.architecture).to(like)
        ws = partial(self.generator.ws, label=label, psi=self.look.psi, cutoff=self.look.cutoff)
        # One by one: a subject must not depend on how many are drawn with it, not even in its last bit.
        return torch.cat([ws(one[None].to(like)) for one in z])

    def scene(self, codes: Tensor) -> Scene:
        """ "planes", and "ws", which super-resolution reads; "background" where the checkpoint has one."""
        if codes.shape[1:] != self.code_shape:
            raise ShapeError(f"Codes of this backbone are (S, {self.code_shape}), got {tuple(codes.shape)}.")
        g = self.generator
        scene = {"planes": g.planes(codes, self.look.noise), "ws": codes}
        if g.architecture.background and self.look.background == "learnt":
            scene["background"] = g.flat_background(codes, self.look.noise)
        return scene

    def render(self, scene: Scene, cameras: Cameras, *, upto: Stage = "image", draws: Draws | None = None) -> Render:
        """See `Renderer.render`. The jitter moves every sample within its interval, as in training."""
        pictures, given = self._raw(scene, cameras, self.raw_size, draws)
        if upto == "raw":
            return pictures
        images = [self._upscaled(one, w) for one, w in zip(given, scene["ws"][:, None, -1])]
        return replace(pictures, image=torch.stack(images))

    def render_raw(self, scene: Scene, cameras: Cameras, size: int, *, draws: Draws | None = None) -> Render:
        """See `AnySize.render_raw`."""
        return self._raw(scene, cameras, size, draws)[0]

    def _raw(self, scene: Scene, cameras: Cameras, size: int, draws: Draws | None) -> tuple[Render, list[RawPicture]]:
        """The raw pictures, and for each subject what super-resolution reads, V views."""
        subjects = len(cameras.cam2world)
        if len(scene["ws"]) != subjects:
            raise ShapeError(f"A scene of {len(scene['ws'])} subjects cannot be seen by the cameras of {subjects}.")
        pictures, given = [], []
        for s in range(subjects):
            one = {name: entry[s : s + 1] for name, entry in scene.items()}
            own = Cameras(cameras.cam2world[s : s + 1], cameras.intrinsics[s : s + 1])
            alone = None if draws is None else replace(draws, subjects=draws.subjects[s : s + 1])
            picture, inputs = self._raw_of_one(one, own, size, alone)
            pictures.append(picture)
            given.append(inputs)
        stacked = {name: torch.cat([p.tensors()[name] for p in pictures]) for name in pictures[0].tensors()}
        return Render(**stacked), given

    def _raw_of_one(self, scene: Scene, cameras: Cameras, size: int, draws: Draws | None) -> tuple[Render, RawPicture]:
        planes, views = scene["planes"], cameras.cam2world.shape[1]
        origins, directions = (x.flatten(1, 2) for x in pixel_rays(cameras.to(planes), size, size))  # (1, V*n*n, 3)
        numbers = (x.repeat(1, views, 1) for x in _numbers(origins, size * size, self.architecture, draws))
        gathered = self._trace(planes, origins, directions, *numbers)
        features, depth, opacity, nearest, farthest = (x[0].unflatten(0, (views, size * size)) for x in gathered)
        depth = mean_depth(depth, opacity, nearest.amin(1)[:, None, None], farthest.amax(1)[:, None, None])
        features, depth, opacity = (x.transpose(1, 2).unflatten(2, (size, size)) for x in (features, depth, opacity))
        given = self._behind(features, opacity, scene, size)
        return Render(given.raw[None], depth[None], opacity[None]), given

    def _behind(self, features: Tensor, opacity: Tensor, scene: Scene, size: int) -> RawPicture:
        """With whatever is behind the volume."""
        g = self.generator
        background = g.resized_background(scene["background"], size) if "background" in scene else None
        given = g.raw_picture(features, opacity, scene["ws"], background)
        if self.look.background == "white":
            given = replace(given, raw=given.raw * opacity + (1 - opacity))
        return given

    def _trace(self, planes: Tensor, origins: Tensor, directions: Tensor, jitter: Tensor, u: Tensor) -> list[Tensor]:
        """Features, depth, opacity, nearest and farthest of all rays, (1, R, ...) each."""
        a, g = self.architecture, self.generator
        low = self.look.low_memory and torch.is_grad_enabled()

        def some(
            planes: Tensor, starts: Tensor, headings: Tensor, near: Tensor, far: Tensor, jitter: Tensor, u: Tensor
        ) -> tuple[Tensor, ...]:
            field = cropped(g.field(planes), a)
            found = trace(field, starts, headings, near, far, jitter, u, a, reference=g.reference)
            return found.features, found.depth, found.opacity, found.nearest, found.farthest

        run = partial(_twice, some) if low else some
        whole = g.reference or (torch.is_grad_enabled() and not low)
        at_once = origins.shape[1] if whole else self.look.rays_at_once
        every = (origins, directions, *ray_limits(origins, directions, a), jitter, u)
        parts = [run(planes, *rays) for rays in zip(*(x.split(at_once, 1) for x in every))]
        return [torch.cat(part, 1) for part in zip(*parts)]

    def _upscaled(self, given: RawPicture, w: Tensor) -> Tensor:
        """(V, 3, image_size, image_size) of one subject."""
        low = self.look.low_memory and torch.is_grad_enabled()
        half = None if self.look.precision == "float32" else getattr(torch, self.look.precision)
        network = self.generator.superresolution
        return network(given.raw, given.features, w, run=_twice if low else directly, precision=half)

    def query(self, scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `Field.query`; cropped as the pictures are, colours without a background."""
        g = self.generator
        raw_density, values = cropped(g.field(scene["planes"]), self.architecture)(points)
        features = values.transpose(1, 2)[..., None]  # (S, 32, N, 1): a picture one pixel wide
        given = g.raw_picture(features, torch.ones_like(features[:, :1]), scene["ws"])
        return density_of(raw_density), given.raw[..., 0].transpose(1, 2)

    def trainable(self, group: str = "default") -> dict[str, nn.Parameter]:
        """ "default": synthesis and super-resolution without biases, as in the paper; "decoder"; "all" of these.

        "low-rank": changes of rank 8 of their 3x3 convolutions, added when they are first asked for.
        """
        networks = ("backbone.synthesis.", "superresolution.")
        groups: dict[str, Callable[[str], bool]] = {
            "default": lambda name: name.startswith(networks) and not ("bias" in name or MARK in name),
            "decoder": lambda name: name.startswith("decoder."),
            "all": lambda name: name.startswith((*networks, "decoder.", "torgb.", "bcg_synthesis.")),
            "low-rank": lambda name: MARK in name,
        }
        if group not in groups:
            raise UnknownNameError("training group", group, groups)
        if group == "low-rank":
            add_low_rank(self.generator, networks)
        own = {name: p for name, p in self.generator.named_parameters() if groups[group](name) and self._is_read(name)}
        return {f"generator.{name}": p for name, p in own.items()}

    def folded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Folding.folded`."""
        return folded(dict(self.named_parameters()), tensors)

    def part_of(self, name: str) -> StylePart:
        """See `Parted.part_of`, and `parts.part_of`: a convention."""
        return part_of(name.removeprefix("generator."))

    def _is_read(self, name: str) -> bool:
        """Whether a parameter has any part in a picture: where noise is off, its strength has none, and so on."""
        if name.startswith("bcg_synthesis.") and self.look.background != "learnt":
            return False
        if not name.endswith("noise_strength"):
            return True
        noise = self.architecture.upscaler_noise if name.startswith("superresolution.") else self.look.noise
        return noise != "none"


def _twice(compute: Callable[..., Any], *inputs: Any) -> Any:
    """Keep only the inputs, and compute again on the way back."""
    return checkpoint(compute, *inputs, use_reentrant=False, preserve_rng_state=False)


def _numbers(origins: Tensor, rays: int, a: Architecture, draws: Draws | None) -> tuple[Tensor, Tensor]:
    """Jitter of the even pass and quantiles of the second, of the rays of one view: drawn, or the middles."""
    if draws is None:
        jitter = origins.new_full((1, rays, a.samples), 0.5)
        return jitter, even_quantiles(a.samples_importance, origins).expand(1, rays, -1)
    return tuple(
        draws.uniform(name, rays, count).to(origins)
        for name, count in (("jitter", a.samples), ("importance", a.samples_importance))
    )  # type: ignore[return-value]


def average_camera_label(a: Architecture) -> Tensor:
    """(1, 25): the frontal camera that scripts tell the mapping."""
    position = torch.tensor([0.0, 0.0, a.camera_radius])
    pose = look_at(position, torch.tensor(a.camera_pivot))
    lens = pinhole(a.camera_focal, pose)
    return to_label(Cameras(pose[None, None], lens[None, None]))[0]


def run_defaults(a: Architecture) -> RunDefaults:
    """Cameras that the checkpoint was trained for; EG3D's heads have no backs."""
    views = partial(CameraPrior, pitch=30, focal=a.camera_focal, radius=a.camera_radius)
    all_round = a.family == "panohead" or a.white_back
    return RunDefaults(front=views(yaw=60), around=views(yaw=180 if all_round else 60))
