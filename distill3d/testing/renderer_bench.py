"""What the checks of a renderer look at, computed once: codes, scene, cameras, pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from distill3d.cameras import Cameras, orbit
from distill3d.draws import Draws
from distill3d.renderer import Render, Renderer, Scene, Stage
from distill3d.testing.contract import NotApplicable, default_tolerance, outer_dtype

STEP = 0.3  # radians that a camera is moved by: much to see, little that becomes hidden
FARTHER = 1.2  # times the distance: still within the fixed sampling range of published backbones
SOLID = 0.9  # opacity of a surface


@dataclass(frozen=True)
class Look:
    """What one camera saw of one subject."""

    camera: Cameras  # (1, 1)
    raw: Tensor  # (3, n, n)
    depth: Tensor  # (1, n, n)
    opacity: Tensor  # (1, n, n)

    @property
    def solid(self) -> Tensor:
        """(n, n) bool: pixels of a surface."""
        return self.opacity[0] > SOLID


class RendererBench:
    """A renderer, a few subjects, and what was rendered of them so far."""

    def __init__(self, renderer: Renderer, subjects: int, tolerance: float | None):
        self.renderer, self.subjects = renderer, subjects
        self.tolerance = default_tolerance(renderer) if tolerance is None else tolerance
        self.dtype = outer_dtype(renderer)
        self.draws = Draws(0, 0, tuple(range(subjects)))
        if isinstance(renderer, Renderer):
            renderer.trainable("default")  # the group may add parameters; they belong to what is checked
        self.before = snapshot(renderer)

    @property
    def trained(self) -> dict[str, Tensor]:
        """What the default group trains, as it is."""
        return {name: parameter.detach() for name, parameter in self.renderer.trainable("default").items()}

    @cached_property
    def codes(self) -> Tensor:
        """(S, *code_shape)."""
        with torch.no_grad():
            return self.renderer.sample_codes(self.draws)

    @cached_property
    def scene(self) -> Scene:
        """Of all subjects, without a graph."""
        with torch.no_grad():
            return self.renderer.scene(self.codes)

    @property
    def radius(self) -> float:
        """Of the backbone's own front cameras, world units."""
        return self.renderer.defaults.front.radius

    def orbit(self, angles: list[tuple[float, float]], *, farther: float = 1.0, subjects: int | None = None) -> Cameras:
        """(S, V): cameras at (yaw, pitch) radians, with the backbone's own radius and focal length."""
        at = torch.tensor(angles, dtype=self.dtype, device=self.codes.device)
        yaw, pitch = at.expand(self.subjects if subjects is None else subjects, *at.shape).unbind(-1)
        return orbit(yaw, pitch, self.radius * farther, self.renderer.defaults.front.focal)

    @cached_property
    def cameras(self) -> Cameras:
        """(S, 2): two cameras, neither of them frontal."""
        return self.orbit([(STEP, 0.1), (-0.5 * STEP, -0.1)])

    def camera(self, view: int) -> Cameras:
        """(S, 1): one of `cameras`."""
        pick = slice(view, view + 1)
        return Cameras(self.cameras.cam2world[:, pick], self.cameras.intrinsics[:, pick])

    @cached_property
    def pictures(self) -> Render:
        """Of all subjects by both cameras, to the last stage, without jitter."""
        return self.render(self.scene, self.cameras)

    @cached_property
    def jittered(self) -> Render:
        """The same with draws."""
        return self.render(self.scene, self.cameras, draws=self.draws)

    def render(self, scene: Scene, cameras: Cameras, upto: Stage = "image", draws: Draws | None = None) -> Render:
        """Without a graph."""
        with torch.no_grad():
            return self.renderer.render(scene, cameras, upto=upto, draws=draws)

    @cached_property
    def looks(self) -> dict[str, Look]:
        """The first subject, by cameras that each differ from "front" in one thing."""
        angles = {"front": (0.0, 0.0), "yaw": (STEP, 0.0), "pitch": (0.0, STEP)}
        around, away = self.orbit([*angles.values()], subjects=1), self.orbit([(0.0, 0.0)], farther=FARTHER, subjects=1)
        front = around.intrinsics[:, :1]
        lenses = {"zoomed": front.clone(), "right": front.clone(), "down": front.clone()}
        lenses["zoomed"][..., :2, :2] *= 3  # an odd factor: every third ray is one of the front camera's
        lenses["right"][..., 0, 2] += self.shift / self.renderer.raw_size
        lenses["down"][..., 1, 2] += self.shift / self.renderer.raw_size
        poses = [around.cam2world, away.cam2world, *[around.cam2world[:, :1]] * len(lenses)]
        cameras = Cameras(torch.cat(poses, 1), torch.cat([around.intrinsics, away.intrinsics, *lenses.values()], 1))
        seen = self.render({name: entry[:1] for name, entry in self.scene.items()}, cameras, "raw")
        return {
            name: Look(
                Cameras(cameras.cam2world[:, i : i + 1], cameras.intrinsics[:, i : i + 1]),
                seen.raw[0, i],
                seen.depth[0, i],
                seen.opacity[0, i],
            )
            for i, name in enumerate([*angles, "farther", *lenses])
        }

    @property
    def shift(self) -> int:
        """Pixels by which a principal point is moved."""
        return max(1, self.renderer.raw_size // 8)

    def surface(self, *names: str) -> list[Look]:
        """Looks that show a surface before an empty background; where they do not, the check is not applicable."""
        looks = [self.looks[name] for name in names]
        for look in looks:
            if look.opacity.mean() > 0.9:
                raise NotApplicable("the opacity fills the picture, so the subject has no outline")
            if int(look.solid.sum()) < 12:
                raise NotApplicable(f"fewer than 12 pixels have an opacity above {SOLID}, so there is no surface")
        return looks


@contextmanager
def training_only(module: nn.Module, trained: dict[str, nn.Parameter]) -> Iterator[None]:
    """Gradients for these parameters and no others, as in a run; afterwards all flags are as before."""
    before = [(p, p.requires_grad) for p in module.parameters()]
    try:
        module.requires_grad_(False)
        for parameter in trained.values():
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, flag in before:
            parameter.requires_grad_(flag)


def snapshot(renderer: Renderer) -> dict[str, Tensor]:
    """A copy of every parameter and buffer, by name."""
    return {name: t.detach().clone() for name, t in [*renderer.named_parameters(), *renderer.named_buffers()]}


def changed_tensors(renderer: Renderer, before: dict[str, Tensor]) -> list[str]:
    """Names of the parameters and buffers that are not what they were."""
    now = dict([*renderer.named_parameters(), *renderer.named_buffers()])
    return [name for name, old in before.items() if name not in now or not torch.equal(now[name], old)]


def put_back(renderer: Renderer, before: dict[str, Tensor]) -> None:
    """The old values of what changed."""
    now = dict([*renderer.named_parameters(), *renderer.named_buffers()])
    with torch.no_grad():
        for name in changed_tensors(renderer, before):
            if name in now and now[name].shape == before[name].shape:
                now[name].copy_(before[name])
