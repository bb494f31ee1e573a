import pytest
import torch

from distill3d.errors import ShapeError
from distill3d.volume import EG3D_AXES, PANOHEAD_AXES, XY_XZ_YZ, XY_XZ_ZY, mean_of_planes, sample_planes


def random_case(depth: int | None = None, seed: int = 0, reach: float = 1.3):
    """Planes of unequal sides, and points that reach beyond the box."""
    g = torch.Generator().manual_seed(seed)
    size = (5, 7) if depth is None else (depth, 5, 7)
    planes = torch.randn(2, 3, 4, *size, generator=g, dtype=torch.float64)
    points = (torch.rand(2, 50, 3, generator=g, dtype=torch.float64) * 2 - 1) * 0.6 * reach
    return planes, points


@pytest.mark.parametrize("axes", [XY_XZ_ZY, XY_XZ_YZ, EG3D_AXES])
@pytest.mark.parametrize("lookup", ["fast", "deterministic"])
def test_a_linear_function_is_looked_up_exactly(axes, lookup):
    """Each plane holds its own linear function of its two world axes: a swapped axis cannot pass."""
    side, size = 1.2, 8
    place = ((torch.arange(size).double() + 0.5) / size - 0.5) * side  # cell centres
    slopes = [(2.0, -0.7, 0.3), (-1.1, 0.4, 0.0), (0.6, 1.9, -0.2)]
    grid_v, grid_u = torch.meshgrid(place, place, indexing="ij")
    planes = torch.stack([a * grid_u + b * grid_v + c for a, b, c in slopes])[None, :, None]
    points = random_case(reach=0.8)[1][:1]
    found = sample_planes(planes, points, axes, side, lookup=lookup)[0, :, 0]
    for row, (u, v), (a, b, c) in zip(found, axes, slopes):
        torch.testing.assert_close(row, a * points[0, :, u] + b * points[0, :, v] + c)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("depth", "axes"), [(None, XY_XZ_ZY), (3, PANOHEAD_AXES)])
def test_the_deterministic_form_equals_grid_sample_and_so_do_its_gradients(padding, align_corners, depth, axes):
    planes, points = random_case(depth)
    results = []
    for lookup in ("fast", "deterministic"):
        leaves = [planes.clone().requires_grad_(), points.clone().requires_grad_()]
        found = sample_planes(*leaves, axes, 1.2, lookup=lookup, padding=padding, align_corners=align_corners)
        results.append([found, *torch.autograd.grad(found.sin().sum(), leaves)])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_the_two_forms_agree_in_single_precision():
    planes, points = (x.float() for x in random_case())
    fast, exact = (sample_planes(planes, points, XY_XZ_ZY, 1.2, lookup=m) for m in ("fast", "deterministic"))
    torch.testing.assert_close(fast, exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_gradients_of_the_deterministic_form_are_those_of_finite_differences(padding):
    planes, points = random_case()
    planes, points = planes[:, :, :2].clone().requires_grad_(), points[:, :6].clone().requires_grad_()

    def look_up(planes, points):
        return sample_planes(planes, points, EG3D_AXES, 1.2, lookup="deterministic", padding=padding)

    assert torch.autograd.gradcheck(look_up, (planes, points))


@pytest.mark.parametrize("lookup", ["fast", "deterministic"])
def test_outside_the_box_zeros_fade_and_the_border_repeats(lookup):
    planes = torch.full((1, 3, 1, 4, 4), 2.0)
    far_away = torch.tensor([[[5.0, 5.0, 5.0]]])
    assert (sample_planes(planes, far_away, XY_XZ_ZY, 1.0, lookup=lookup) == 0).all()
    assert (sample_planes(planes, far_away, XY_XZ_ZY, 1.0, lookup=lookup, padding="border") == 2).all()


@pytest.mark.parametrize("lookup", ["fast", "deterministic"])
def test_no_subject_sees_the_planes_of_another(lookup):
    planes, points = random_case()
    planes.requires_grad_()
    found = sample_planes(planes, points, XY_XZ_ZY, 1.2, lookup=lookup)
    (slope,) = torch.autograd.grad(found[0].sum(), planes)
    assert slope[0].abs().sum() > 0
    assert (slope[1] == 0).all()


def test_planes_and_axes_that_do_not_belong_together_are_refused():
    planes, points = random_case()
    with pytest.raises(ShapeError, match="one tuple of 2"):
        sample_planes(planes, points, PANOHEAD_AXES, 1.2)
    with pytest.raises(ShapeError, match="one tuple of 2"):
        sample_planes(planes, points[:1], XY_XZ_ZY, 1.2)


@pytest.mark.parametrize(("depth", "axes"), [(None, EG3D_AXES), (3, PANOHEAD_AXES)])
def test_the_mean_of_planes_is_the_mean_of_their_look_ups_and_so_are_its_gradients(depth, axes):
    """Also outside of the box, and for points without a gradient."""
    planes, points = random_case(depth)
    results = []
    for look_up in (mean_of_planes, lambda *given: sample_planes(*given).mean(1).transpose(1, 2)):
        leaves = [planes.clone().requires_grad_(), points.clone().requires_grad_()]
        found = look_up(*leaves, axes, 1.2)
        alone = look_up(leaves[0], points, axes, 1.2)
        results.append([found, *torch.autograd.grad(found.sin().sum(), leaves)])
        results[-1] += torch.autograd.grad(alone.cos().sum(), leaves[:1])
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


def test_the_mean_of_planes_refuses_what_a_look_up_refuses():
    planes, points = random_case()
    with pytest.raises(ShapeError):
        mean_of_planes(planes, points[:1], EG3D_AXES, 1.2)
