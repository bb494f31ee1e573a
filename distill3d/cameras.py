"""Cameras in the canonical world.

The world is right-handed, y up, the subject at the origin facing +z. Camera axes are OpenCV's: x right, y down, z
forward. Yaw 0 looks at the face; positive yaw moves the camera towards +x, positive pitch upwards. A backbone whose
model lives in another world converts inside its `render`, so everybody else can rely on this page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError

HEAD_FOCAL = 4.2647  # EG3D's face cameras: focal length divided by image size
HEAD_RADIUS = 2.7


@dataclass(frozen=True)
class Cameras:
    """V cameras for each of S subjects."""

    cam2world: Tensor  # (S, V, 4, 4)
    intrinsics: Tensor  # (S, V, 3, 3), divided by image size: focal about 4, principal point 0.5

    def __post_init__(self) -> None:
        if self.cam2world.shape[-2:] != (4, 4) or self.intrinsics.shape != (*self.cam2world.shape[:2], 3, 3):
            raise ShapeError(
                "Cameras take cam2world (S, V, 4, 4) and intrinsics (S, V, 3, 3), "
                f"got {tuple(self.cam2world.shape)} and {tuple(self.intrinsics.shape)}."
            )

    def mirrored(self) -> Cameras:
        """The cameras that see the mirrored world: S cam2world S with S = diag(-1, 1, 1, 1).

        S on both sides keeps det(R) = +1, so the mirrored pose is still a rotation. On a symmetric subject the
        mirrored camera sees the horizontally flipped picture.
        """
        flip = torch.diag(self.cam2world.new_tensor([-1.0, 1.0, 1.0, 1.0]))
        intrinsics = self.intrinsics.clone()
        intrinsics[..., 0, 2] = 1 - intrinsics[..., 0, 2]
        return Cameras(flip @ self.cam2world @ flip, intrinsics)

    @classmethod
    def side_by_side(cls, cameras: Sequence[Cameras]) -> Cameras:
        """The views of all, of the same S subjects, in their order."""
        if len(cameras) == 1:
            return cameras[0]
        return cls(torch.cat([c.cam2world for c in cameras], 1), torch.cat([c.intrinsics for c in cameras], 1))

    def to(self, like: Tensor) -> Cameras:
        """Device and dtype of `like`."""
        return Cameras(self.cam2world.to(like), self.intrinsics.to(like))

    def yaw(self) -> Tensor:
        """(S, V) radians, 0 = front."""
        position = self.cam2world[..., :3, 3]
        return torch.atan2(position[..., 0], position[..., 2])

    def pitch(self) -> Tensor:
        """(S, V) radians above the horizon."""
        position = F.normalize(self.cam2world[..., :3, 3], dim=-1)
        return torch.asin(position[..., 1].clamp(-1, 1))


def focal_from_fov(degrees: float, diagonal: bool = False) -> float:
    """Focal length divided by image size.

    Args:
        degrees: the full angle between two opposite sides of the picture, or corners if `diagonal`.
        diagonal: the convention behind EG3D's and PanoHead's "18.837 degrees".
    """
    if not 0 < degrees < 180:
        raise ConfigError(f"A field of view lies between 0 and 180 degrees, got {degrees}.")
    focal = 0.5 / math.tan(math.radians(degrees) / 2)
    return focal * math.sqrt(2) if diagonal else focal


def pinhole(focal: float, like: Tensor) -> Tensor:
    """(3, 3) intrinsics divided by image size, principal point in the middle."""
    return like.new_tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])


def look_at(position: Tensor, target: Tensor) -> Tensor:
    """(..., 3) and (..., 3) to cam2world (..., 4, 4); the picture's up is the world's.

    Raises:
        ConfigError: if a camera looks straight up or down, where no up is defined.
    """
    forward = F.normalize(target - position, dim=-1)
    up = torch.tensor([0.0, 1.0, 0.0]).to(forward).expand_as(forward)
    side = torch.linalg.cross(forward, up)
    if side.norm(dim=-1).min() < 1e-6:
        raise ConfigError("A camera that looks straight up or down has no up; keep pitch within +-89.9 degrees.")
    right = F.normalize(side, dim=-1)
    down = torch.linalg.cross(forward, right)
    pose = torch.eye(4).to(position).repeat(*position.shape[:-1], 1, 1)
    pose[..., :3, :] = torch.stack([right, down, forward, position], -1)
    return pose


def orbit(yaw: Tensor, pitch: Tensor, radius: float = HEAD_RADIUS, focal: float = HEAD_FOCAL) -> Cameras:
    """Cameras on a sphere, looking at the origin.

    Args:
        yaw, pitch: (S, V) radians.
        radius: distance from the origin, world units.
        focal: focal length divided by image size.
    """
    position = radius * torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], -1)
    return Cameras(look_at(position, torch.zeros_like(position)), pinhole(focal, yaw).expand(*yaw.shape, 3, 3))


def to_label(cameras: Cameras) -> Tensor:
    """EG3D's camera label (S, V, 25): 16 numbers of cam2world, row by row, then 9 of the intrinsics."""
    return torch.cat([cameras.cam2world.flatten(-2), cameras.intrinsics.flatten(-2)], -1)


def from_label(label: Tensor) -> Cameras:
    """Inverse of `to_label`."""
    if label.ndim != 3 or label.shape[-1] != 25:
        raise ShapeError(f"A camera label has shape (S, V, 25), got {tuple(label.shape)}.")
    return Cameras(label[..., :16].unflatten(-1, (4, 4)), label[..., 16:].unflatten(-1, (3, 3)))


@dataclass(frozen=True)
class CameraPrior:
    """A range of cameras around the head: yaw and pitch uniform within +- the given degrees."""

    yaw: float = 60.0
    pitch: float = 30.0
    focal: float = HEAD_FOCAL
    radius: float = HEAD_RADIUS

    def __post_init__(self) -> None:
        if not (0 <= self.yaw <= 180 and 0 <= self.pitch < 90):
            raise ConfigError(
                f"A camera range takes yaw in [0, 180] and pitch in [0, 90) degrees, got {self.yaw} and {self.pitch}."
            )

    def draw(self, draws: Draws, name: str) -> Cameras:
        """(S, 1): one camera for each subject of `draws`."""
        angles = torch.deg2rad((2 * draws.uniform(name, 2) - 1) * torch.tensor([self.yaw, self.pitch]))
        return orbit(angles[:, :1], angles[:, 1:], self.radius, self.focal)
