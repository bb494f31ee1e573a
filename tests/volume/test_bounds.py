import math

import torch

from distill3d.cameras import orbit
from distill3d.volume import along, box_interval, ellipsoid_interval, hull_interval, pixel_rays

LOW, HIGH = torch.tensor([-0.3, -0.2, -0.4]).double(), torch.tensor([0.2, 0.5, 0.1]).double()
CENTRE, RADII = torch.tensor([0.1, -0.05, 0.02]).double(), torch.tensor([0.2, 0.3, 0.1]).double()


def some_rays():
    angles = torch.tensor([[0.3, -1.0, 2.5]]).double()
    return pixel_rays(orbit(angles, 0.3 * angles), 12, 12)


def test_box_ends_lie_on_the_box_and_the_middle_inside():
    origins, directions = some_rays()
    near, far = box_interval(origins, directions, LOW, HIGH)
    hit = near < far
    assert 0.1 < hit.double().mean() < 0.9
    ends = along(origins, directions, torch.stack([near, far], -1))[hit]
    outside = torch.maximum(LOW - ends, ends - HIGH).amax(-1)
    torch.testing.assert_close(outside, torch.zeros_like(outside), atol=1e-12, rtol=0)
    middle = along(origins, directions, (near + far)[..., None] / 2)[hit]
    assert ((middle > LOW) & (middle < HIGH)).all()


def test_a_ray_that_misses_the_box_has_no_point_inside():
    origins, directions = some_rays()
    near, far = box_interval(origins, directions, LOW, HIGH)
    missed = near > far
    points = along(origins, directions, torch.linspace(0, 6, 400).double().expand(*near.shape, 400))[missed]
    assert not ((points > LOW) & (points < HIGH)).all(-1).any()


def test_a_ray_along_an_axis_meets_the_box_without_dividing_by_zero():
    origins = torch.tensor([[0.0, 0.0, 2.0], [0.9, 0.0, 2.0], [0.2, 0.5, 2.0]]).double()
    near, far = box_interval(origins, torch.tensor([0.0, 0.0, -1.0]).double().expand(3, 3), LOW, HIGH)
    torch.testing.assert_close(near[0], torch.tensor(1.9).double())
    torch.testing.assert_close(far[0], torch.tensor(2.4).double())
    assert near[1] > far[1]
    assert not near.isnan().any() | far.isnan().any()


def test_ellipsoid_ends_lie_on_the_ellipsoid():
    origins, directions = some_rays()
    near, far = ellipsoid_interval(origins, directions, CENTRE, RADII)
    hit = near < far
    assert 0.05 < hit.double().mean() < 0.95
    ends = along(origins, directions, torch.stack([near, far], -1))[hit]
    level = (((ends - CENTRE) / RADII) ** 2).sum(-1)
    torch.testing.assert_close(level, torch.ones_like(level))
    assert (near[~hit] == math.inf).all()
    assert (far[~hit] == -math.inf).all()


def test_ellipsoid_gradients_are_finite_at_a_miss_and_right_at_a_hit():
    origins, directions = some_rays()
    centre = CENTRE.clone().requires_grad_()
    near, _ = ellipsoid_interval(origins, directions, centre, RADII)
    (slope,) = torch.autograd.grad(near[near.isfinite()].sum(), centre)
    assert slope.isfinite().all()
    hit = near.isfinite().nonzero()[0]
    ray = (origins[tuple(hit)], directions[tuple(hit)])
    assert torch.autograd.gradcheck(lambda c: ellipsoid_interval(*ray, c, RADII), centre)


def test_the_hull_spans_what_is_hit_and_ignores_what_is_missed():
    first = (torch.tensor([1.0, 1.0, 5.0]), torch.tensor([2.0, 0.5, 4.0]))
    second = (torch.tensor([3.0, 3.0, 7.0]), torch.tensor([4.0, 4.0, 6.0]))
    near, far = hull_interval([first, second])
    assert near[:2].tolist() == [1.0, 3.0]
    assert far[:2].tolist() == [4.0, 4.0]
    assert near[2] > far[2]
