"""The canonical world: where cameras are, what the mirror does, EG3D's label."""

import math

import pytest
import torch

from distill3d.cameras import (
    HEAD_FOCAL,
    CameraPrior,
    Cameras,
    focal_from_fov,
    from_label,
    look_at,
    orbit,
    pinhole,
    to_label,
)
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError

ANGLES = torch.tensor([[0.0, 0.4, -1.2], [3.0, -0.1, 0.7]], dtype=torch.float64)
PITCH = torch.tensor([[0.0, 0.3, -0.5], [0.2, 0.0, 1.0]], dtype=torch.float64)


def project(cameras, point):
    """Pixel coordinates, divided by image size, of a world point: x right, y down."""
    homogeneous = torch.cat([point, torch.ones(1).to(point)])
    local = torch.linalg.inv(cameras.cam2world) @ homogeneous
    image = cameras.intrinsics @ local[..., :3, None]
    return (image[..., :2, 0] / image[..., 2:, 0]), local[..., 2]


def test_every_orbit_camera_looks_at_the_origin_from_its_radius():
    cameras = orbit(ANGLES, PITCH, radius=2.7)
    pixel, depth = project(cameras, torch.zeros(3).double())
    torch.testing.assert_close(pixel, torch.full_like(pixel, 0.5))
    torch.testing.assert_close(depth, torch.full_like(depth, 2.7))


def test_poses_are_rotations():
    rotation = orbit(ANGLES, PITCH).cam2world[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(2, 3).double())


def test_yaw_and_pitch_read_back():
    cameras = orbit(ANGLES, PITCH)
    torch.testing.assert_close(cameras.yaw(), ANGLES)
    torch.testing.assert_close(cameras.pitch(), PITCH)


def test_the_front_camera_sees_up_as_up_and_the_subjects_left_on_the_right():
    front = orbit(torch.zeros(1, 1), torch.zeros(1, 1))
    above, _ = project(front, torch.tensor([0.0, 0.1, 0.0]))
    aside, _ = project(front, torch.tensor([0.1, 0.0, 0.0]))
    assert above[0, 0, 1] < 0.5  # y is down in a picture
    assert aside[0, 0, 0] > 0.5
    assert front.cam2world[0, 0, 2, 3] > 0  # on the side that the subject faces


def test_positive_yaw_moves_to_plus_x_and_positive_pitch_up():
    position = orbit(torch.full((1, 1), 0.5), torch.full((1, 1), 0.3)).cam2world[0, 0, :3, 3]
    assert position[0] > 0
    assert position[1] > 0


def test_the_mirror_is_its_own_inverse_and_stays_a_rotation():
    cameras = orbit(ANGLES, PITCH)
    shifted = Cameras(cameras.cam2world, cameras.intrinsics + torch.tensor([[0, 0, 0.1], [0, 0, 0], [0, 0, 0]]))
    twice = shifted.mirrored().mirrored()
    torch.testing.assert_close(twice.cam2world, shifted.cam2world, rtol=0, atol=0)
    torch.testing.assert_close(twice.intrinsics, shifted.intrinsics)
    torch.testing.assert_close(torch.linalg.det(shifted.mirrored().cam2world), torch.ones(2, 3).double())


def test_a_mirrored_camera_sees_a_mirrored_point_at_the_flipped_pixel():
    cameras, point = orbit(ANGLES, PITCH), torch.tensor([0.1, -0.05, 0.2]).double()
    pixel, depth = project(cameras, point)
    flipped, same_depth = project(cameras.mirrored(), point * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(flipped[..., 0], 1 - pixel[..., 0])
    torch.testing.assert_close(flipped[..., 1], pixel[..., 1])
    torch.testing.assert_close(same_depth, depth)


def test_mirroring_an_orbit_camera_negates_its_yaw():
    mirrored = orbit(ANGLES, PITCH).mirrored()
    torch.testing.assert_close(mirrored.cam2world, orbit(-ANGLES, PITCH).cam2world)


def test_the_label_of_25_numbers_round_trips():
    cameras = orbit(ANGLES, PITCH)
    label = to_label(cameras)
    assert label.shape == (2, 3, 25)
    torch.testing.assert_close(label[..., 3], cameras.cam2world[..., 0, 3])  # row by row
    assert label[0, 0, 16] == pytest.approx(HEAD_FOCAL)
    back = from_label(label)
    torch.testing.assert_close(back.cam2world, cameras.cam2world, rtol=0, atol=0)
    torch.testing.assert_close(back.intrinsics, cameras.intrinsics, rtol=0, atol=0)
    with pytest.raises(ShapeError, match="25"):
        from_label(label[..., :24])


def test_a_field_of_view_spans_the_picture():
    assert focal_from_fov(90) == pytest.approx(0.5)
    assert focal_from_fov(18.837, diagonal=True) == pytest.approx(HEAD_FOCAL, rel=1e-3)
    half = math.atan(0.5 / focal_from_fov(40))
    assert math.degrees(2 * half) == pytest.approx(40)
    with pytest.raises(ConfigError, match="between 0 and 180"):
        focal_from_fov(200)


def test_looking_straight_down_is_refused():
    with pytest.raises(ConfigError, match="straight up or down"):
        look_at(torch.tensor([0.0, 2.7, 0.0]), torch.zeros(3))


def test_a_range_covers_itself_and_nothing_else():
    prior = CameraPrior(yaw=40, pitch=20)
    cameras = prior.draw(Draws(0, 0, tuple(range(400))), "main")
    yaw, pitch = torch.rad2deg(cameras.yaw()), torch.rad2deg(cameras.pitch())
    assert yaw.abs().max() <= 40.001
    assert pitch.abs().max() <= 20.001
    assert yaw.max() > 35
    assert yaw.min() < -35
    with pytest.raises(ConfigError, match=r"yaw in \[0, 180\]"):
        CameraPrior(yaw=200)


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match=r"\(S, V, 4, 4\)"):
        Cameras(torch.eye(4), pinhole(1.0, torch.zeros(1)))
