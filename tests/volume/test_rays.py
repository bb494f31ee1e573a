import math

import pytest
import torch

from distill3d.cameras import Cameras, orbit
from distill3d.errors import ConfigError
from distill3d.volume import along, pixel_rays


def cameras(seed: int = 0, subjects: int = 2, views: int = 3) -> Cameras:
    g = torch.Generator().manual_seed(seed)
    yaw = torch.rand(subjects, views, generator=g, dtype=torch.float64) * 6 - 3
    return orbit(yaw, torch.rand(subjects, views, generator=g, dtype=torch.float64) - 0.5)


def test_the_ray_through_the_middle_of_the_picture_hits_the_point_that_the_camera_looks_at():
    origins, directions = pixel_rays(cameras(), 5, 5)
    middle = along(origins[:, :, 12], directions[:, :, 12], torch.full((2, 3, 1), 2.7, dtype=torch.float64))
    torch.testing.assert_close(middle, torch.zeros_like(middle), atol=1e-12, rtol=0)


def test_a_point_on_a_ray_projects_back_to_the_centre_of_its_pixel():
    """Non-square picture, skewed lens, principal point off the middle: a swap of rows and columns cannot pass."""
    seen = cameras()
    lens = seen.intrinsics.clone()
    lens[..., 0, 1], lens[..., 0, 2], lens[..., 1, 2], lens[..., 1, 1] = 0.3, 0.45, 0.58, 3.1
    height, width = 3, 4
    origins, directions = pixel_rays(Cameras(seen.cam2world, lens), height, width)
    points = along(origins, directions, torch.full((2, 3, 12, 1), 1.7, dtype=torch.float64))[..., 0, :]
    pose = seen.cam2world
    local = (points - pose[..., None, :3, 3]) @ pose[..., :3, :3]
    picture = local @ lens.transpose(-1, -2)
    uv = picture[..., :2] / picture[..., 2:]
    columns = (torch.arange(12) % width + 0.5) / width
    rows = (torch.arange(12) // width + 0.5) / height
    torch.testing.assert_close(uv, torch.stack([columns, rows], -1).double().expand_as(uv))


def test_directions_have_unit_length_and_point_away_from_the_camera():
    origins, directions = pixel_rays(cameras(), 4, 4)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 3, 16, dtype=torch.float64))
    assert ((origins * directions).sum(-1) < 0).all()


def test_a_mirrored_camera_has_the_mirrored_bundle_of_rays():
    """Column c of the mirrored camera is the reflected column w - 1 - c, also with an off-centre lens."""
    seen = cameras()
    lens = seen.intrinsics.clone()
    lens[..., 0, 2] = 0.4
    seen = Cameras(seen.cam2world, lens)
    flip = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    for ours, mirrored in zip(pixel_rays(seen, 4, 6), pixel_rays(seen.mirrored(), 4, 6)):
        expected = ours.unflatten(2, (4, 6)).flip(3).flatten(2, 3) * flip
        torch.testing.assert_close(mirrored, expected)


def test_rays_are_differentiable_in_the_camera():
    seen = cameras(subjects=1, views=1)

    def rays(pose, lens):
        return pixel_rays(Cameras(pose, lens), 2, 3)

    inputs = (seen.cam2world.clone().requires_grad_(), seen.intrinsics.clone().requires_grad_())
    assert torch.autograd.gradcheck(rays, inputs)


def test_the_angle_between_the_outermost_rays_is_the_field_of_view():
    _, directions = pixel_rays(orbit(torch.zeros(1, 1), torch.zeros(1, 1)), 1, 512)
    angle = math.acos(float(directions[0, 0, 0] @ directions[0, 0, -1]))
    assert angle == pytest.approx(2 * math.atan(0.5 / 4.2647 * 511 / 512), abs=1e-4)


def test_an_empty_picture_is_refused():
    with pytest.raises(ConfigError, match="at least one pixel"):
        pixel_rays(cameras(), 0, 4)
