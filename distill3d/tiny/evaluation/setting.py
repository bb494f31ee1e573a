"""Who is looked at, from where, and on which background: the same for every run that is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill3d.cameras import Cameras, orbit
from distill3d.draws import Draws
from distill3d.renderer import Renderer
from distill3d.tiny.subjects import WorldSubjects
from distill3d.tiny.world import identity_from_codes
from distill3d.views import resize

# No run trains on them (its subjects are drawn under another name), none shows them (previews and sheets are seeds 0 to
# 5), and the networks' data and the judges' were drawn from other generators.
SUBJECTS = tuple(range(1000, 1064))
SIZE = 64  # pixels at which pictures are compared: the size that the scorer looks at
YAWS, PITCHES = (-0.5, -0.2, 0.2, 0.5), (0.15, -0.1, 0.1, -0.15)  # radians, of the four cameras of the queries
YAW_RANGE, PITCH_RANGE = 0.6, 0.2  # of the gallery's cameras, radians
NAME = "evaluation"


@dataclass(frozen=True)
class Setting:
    """S subjects; a query of each from one of four cameras, so that subjects who share one can be compared.

    The gallery sees each subject from a camera of its own, at least 0.3 rad of yaw away from the query's, on a flat
    background of another colour.
    """

    seeds: tuple[int, ...]
    queries: Cameras  # (S, 1)
    gallery: Cameras  # (S, 1)
    colours: Tensor  # (S, 3, 1, 1) in [-1, 1]
    camera: Tensor  # (S,) int64: which of the four cameras a query has

    @classmethod
    def of(cls, seeds: Sequence[int] = SUBJECTS) -> Setting:
        """The setting of these subjects; every number depends on a subject's seed and place alone."""
        camera = torch.arange(len(seeds)) % len(YAWS)
        query_yaw, query_pitch = torch.tensor(YAWS)[camera], torch.tensor(PITCHES)[camera]
        numbers = torch.cat([Draws(seed, 0, (0,), f"{NAME}/").uniform("gallery", 5) for seed in seeds])
        # Along the range with its ends joined: a quarter to three quarters of it away from the query's yaw.
        place = (query_yaw / (2 * YAW_RANGE) + 0.5 + 0.25 + 0.5 * numbers[:, 0]) % 1
        yaw, pitch = YAW_RANGE * (2 * place - 1), PITCH_RANGE * (2 * numbers[:, 1] - 1)
        return cls(
            tuple(seeds),
            orbit(query_yaw[:, None], query_pitch[:, None]),
            orbit(yaw[:, None], pitch[:, None]),
            2 * numbers[:, 2:, None, None] - 1,
            camera,
        )

    def codes(self, renderer: Renderer) -> Tensor:
        """(S, *code_shape)."""
        return renderer.codes_of_seeds(self.seeds)

    def identity(self, renderer: Renderer) -> Tensor:
        """(S, K): who the procedural heads of the same subjects are; the renderer is one of `WorldSubjects`."""
        assert isinstance(renderer, WorldSubjects)  # others have no truth
        return identity_from_codes(renderer.world_codes(self.seeds).float().cpu())


def one(cameras: Cameras, subject: int) -> Cameras:
    """(1, V): the cameras of one subject."""
    return Cameras(cameras.cam2world[subject : subject + 1], cameras.intrinsics[subject : subject + 1])


@torch.no_grad()
def query_pictures(renderer: Renderer, setting: Setting) -> Tensor:
    """(S, 3, H, W) in [-1, 1]: the generator's own pictures, full size, on its own background."""
    pictures = []
    for i, code in enumerate(setting.codes(renderer).split(1)):
        render = renderer.render(renderer.scene(code), one(setting.queries, i))
        pictures.append(render.stage("image")[0, 0].float().cpu())
    return torch.stack(pictures)


@torch.no_grad()
def gallery_pictures(renderer: Renderer, setting: Setting, background: float) -> Tensor:
    """(S, 3, SIZE, SIZE): from the gallery's cameras, on its colours.

    Before super-resolution, where the generator says how opaque each pixel is.

    Args:
        background: the generator's own, in [-1, 1].
    """
    pictures = []
    for i, code in enumerate(setting.codes(renderer).split(1)):
        render = renderer.render(renderer.scene(code), one(setting.gallery, i), upto="raw")
        raw, opacity = render.raw[0, 0].float().cpu(), render.opacity[0, 0].float().cpu()
        pictures.append(recoloured(raw, opacity, setting.colours[i], background))
    return at_size(torch.stack(pictures))


def recoloured(picture: Tensor, opacity: Tensor, colour: Tensor, background: float) -> Tensor:
    """A picture (3, H, W) composited over `background`, as if it had been over `colour` (3, 1, 1): exact."""
    return picture + (1 - opacity) * (colour - background)


def at_size(pictures: Tensor) -> Tensor:
    """(S, 3, H, W) at the size of comparison."""
    return resize(pictures, SIZE)
