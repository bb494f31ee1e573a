"""Control pictures: near is bright, edges are OpenCV's, and both are laid out as the pictures are."""

import sys
from dataclasses import replace

import pytest
import torch

from distill3d.cameras import CameraPrior
from distill3d.errors import MissingExtraError, UnknownNameError
from distill3d.objectives.controls import canny_control, control_needs, depth_control, depth_picture
from distill3d.objectives.term import Needs, Side
from distill3d.renderer import Render
from distill3d.views import Grid, Mirror, Single, View

PRIOR = CameraPrior()
MAIN = View("main", PRIOR)
GRID = Grid(2, 2, PRIOR)


def sphere(size=33, distance=2.7, radius=0.5, focal=2.0):
    """Depth along the ray and opacity of a sphere straight ahead, and how far each pixel is from the middle."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) / size - 0.5
    ray = torch.stack([at.expand(size, size) / focal, at[:, None].expand(size, size) / focal, torch.ones(size, size)])
    ray = ray / ray.norm(dim=0)
    along = distance * ray[2]  # to the point of the ray that is nearest to the middle of the sphere
    inside = radius**2 - distance**2 + along**2
    depth = torch.where(inside > 0, along - inside.clamp_min(0).sqrt(), torch.full_like(along, 9.0))
    off_axis = torch.hypot(at.expand(size, size), at[:, None].expand(size, size))
    return depth[None], (inside > 0).double()[None], off_axis


def rendered(depth, opacity, image=None):
    """One view of one subject, (1, 1, C, h, w)."""
    raw = torch.zeros(1, 1, 3, *depth.shape[-2:]).to(depth) if image is None else image
    return Render(raw, depth.expand(1, 1, 1, -1, -1), opacity.expand(1, 1, 1, -1, -1), raw)


def picture_side(views, size=16, subjects=2):
    """Random, smooth renders for each of the views."""
    renders = {}
    for view in views:
        depth = 2 + torch.rand(subjects, 1, 1, size, size, dtype=torch.float64)
        opacity = torch.rand(subjects, 1, 1, size, size, dtype=torch.float64)
        raw, image = torch.rand(2, subjects, 1, 3, size, size, dtype=torch.float64) * 2 - 1
        renders[view] = Render(raw, depth, opacity, image)
    return Side({}, renders)


def flipped(side):
    return Side({}, {view: render.map(lambda t: t.flip(-1)) for view, render in side.views.items()})


def test_a_sphere_is_brightest_in_the_middle_and_falls_to_zero_at_its_rim():
    depth, opacity, off_axis = sphere()
    picture = depth_picture(depth, opacity)[0]
    assert picture[16, 16] == 1
    order = off_axis.flatten().argsort()
    outwards, distances = picture.flatten()[order], off_axis.flatten()[order]
    assert (outwards.diff()[distances.diff() > 1e-9] <= 0).all()
    on_sphere = opacity[0] > 0.5
    assert picture[on_sphere].min() == 0
    assert picture[~on_sphere].abs().max() == 0


def test_the_picture_is_linear_in_one_over_distance():
    near, middle, far = 1.0, 1.5, 3.0
    picture = depth_picture(torch.tensor([[[near, middle, far]]]), torch.ones(1, 1, 3))
    torch.testing.assert_close(picture, torch.tensor([[[1.0, (1 / 1.5 - 1 / 3) / (1 - 1 / 3), 0.0]]]))


@pytest.mark.parametrize("scale", [0.01, 3.0, 1000.0])
def test_the_unit_of_length_does_not_matter(scale):
    depth, opacity, _ = sphere()
    torch.testing.assert_close(depth_picture(scale * depth, opacity), depth_picture(depth, opacity))


def test_a_shift_of_all_distances_does_matter():
    """1/distance is what is normalised: from further away the same relief is another picture."""
    depth, opacity, _ = sphere()
    assert (depth_picture(depth + 3, opacity) - depth_picture(depth, opacity)).abs().max() > 0.01


def test_each_view_has_a_range_of_its_own():
    (near, opacity, _), (far, wide, _) = sphere(distance=2.0), sphere(distance=4.0, radius=1.0)
    together = depth_picture(torch.stack([near, far]), torch.stack([opacity, wide]))
    torch.testing.assert_close(together[0], depth_picture(near, opacity), rtol=0, atol=0)
    torch.testing.assert_close(together[1], depth_picture(far, wide), rtol=0, atol=0)
    assert together.flatten(1).amax(1).tolist() == [1, 1]


def test_what_lies_outside_the_solid_part_does_not_set_the_range():
    """Half-transparent hair at the edge may report any distance."""
    depth, opacity, _ = sphere()
    odd = depth.clone()
    odd[opacity == 0] = 1e-9
    faint = torch.where(opacity == 0, 0.4, opacity)
    on_sphere = opacity > 0.5
    torch.testing.assert_close(depth_picture(odd, faint)[on_sphere], depth_picture(depth, opacity)[on_sphere])
    assert depth_picture(odd, faint).max() <= 1


def test_opacity_dims_the_picture():
    depth, opacity, _ = sphere()
    torch.testing.assert_close(depth_picture(depth, 0.75 * opacity), 0.75 * depth_picture(depth, opacity))


@pytest.mark.parametrize("opacity", [0.0, 0.5])
def test_nothing_in_sight_is_black(opacity):
    depth, _, _ = sphere()
    assert torch.equal(depth_picture(depth, torch.full_like(depth, opacity)), torch.zeros_like(depth))


def test_a_flat_wall_and_a_ray_of_length_zero_stay_finite():
    ones = torch.ones(1, 4, 4)
    assert depth_picture(2 * ones, ones).isfinite().all()
    depth = 2 * ones
    depth[0, 0, 0] = 0
    picture = depth_picture(depth, ones)
    assert picture.isfinite().all() and 0 <= picture.min() <= picture.max() <= 1


@pytest.mark.parametrize("control", [depth_control, canny_control])
@pytest.mark.parametrize("layout", [Single(MAIN), Mirror(MAIN), GRID])
def test_a_control_is_a_grey_picture_of_the_scorers_size(control, layout):
    side = picture_side(layout.shown, size=8)
    picture = control(side, layout, "image", 32)
    assert picture.shape == (2, 3, 32, 32)
    assert 0 <= picture.min() < picture.max() <= 1
    assert torch.equal(picture[:, :1].expand(-1, 3, -1, -1), picture)


@pytest.mark.parametrize("control", [depth_control, canny_control])
def test_a_grids_control_is_tiled_as_its_pictures_are(control):
    """Each quarter is that view's own control: nothing crosses a seam, no tile is out of place."""
    side = picture_side(GRID.views, size=8)
    quarters = GRID.split(control(side, GRID, "raw", 16))
    for i, view in enumerate(GRID.views):
        torch.testing.assert_close(quarters[:, i], control(side, Single(view), "raw", 8), rtol=0, atol=0)
    assert not torch.equal(quarters[:, 0], quarters[:, 1])


@pytest.mark.parametrize("control", [depth_control, canny_control])
def test_the_mirror_needs_the_control_of_the_shown_view_alone(control):
    side = picture_side([MAIN])  # no mirrored view was rendered
    joined = control(side, Mirror(MAIN), "image", 16)
    torch.testing.assert_close(joined, control(side, Single(MAIN), "image", 16), rtol=0, atol=0)


def test_a_flipped_picture_has_the_flipped_depth_control():
    """So the control of a mirrored view, on a symmetric subject, is the flipped one, as `Mirror.split` has it."""
    side = picture_side([MAIN])
    mirrored = replace(MAIN, mirrored=True)
    other = Side({}, {mirrored: flipped(side).views[MAIN]})
    of_view = depth_control(side, Mirror(MAIN), "image", 16)
    of_mirrored = depth_control(other, Single(mirrored), "image", 16)
    torch.testing.assert_close(of_mirrored, of_view.flip(-1), rtol=0, atol=0)
    torch.testing.assert_close(Mirror(MAIN).split(of_view)[:, 1], of_mirrored, rtol=0, atol=0)


def test_the_depth_control_of_a_render_is_the_depth_picture_of_it():
    depth, opacity, _ = sphere(size=16)
    picture = depth_control(Side({}, {MAIN: rendered(depth, opacity)}), Single(MAIN), "raw", 16)
    torch.testing.assert_close(picture[0, :1], depth_picture(depth, opacity), rtol=0, atol=0)


def test_depth_needs_no_image_and_no_gradient():
    depth, opacity, _ = sphere(size=16)
    raw_only = replace(rendered(depth, opacity), image=None)
    picture = depth_control(Side({}, {MAIN: raw_only}), Single(MAIN), "image", 16)
    assert picture.max() > 0.9 and not picture.requires_grad


def square(size=32):
    """A bright square on black, with a weak step inside that the thresholds leave out, as (1, 1, 3, H, W)."""
    image = torch.full((1, 1, 3, size, size), -1.0)
    image[..., 0, 8:24, 8:24] = 1.0
    image[..., 0, 8:24, 16:24] = 0.98
    return image


def test_canny_is_opencvs_of_the_red_channel():
    cv2 = pytest.importorskip("cv2")
    image = square()
    image[:, :, 1:] = torch.rand(1, 1, 2, 32, 32) * 2 - 1  # green and blue are noise, and not read
    side = Side({}, {MAIN: rendered(torch.ones(1, 32, 32), torch.ones(1, 32, 32), image)})
    picture = canny_control(side, Single(MAIN), "image", 32)
    red = ((image[0, 0, 0] + 1) * 127.5).round().byte()
    expected = torch.from_numpy(cv2.Canny(red.numpy(), 50, 250)).float() / 255
    assert torch.equal(picture[0, 0], expected)
    assert set(picture.unique().tolist()) == {0, 1}
    assert expected[12, 13:20].sum() == 0  # the weak step is no edge
    assert expected[12].sum() >= 2  # the square's left and right sides are


def test_canny_reads_the_picture_of_the_terms_stage():
    pytest.importorskip("cv2")
    ones = torch.ones(1, 32, 32)
    both = replace(rendered(ones, ones, square()), raw=torch.zeros(1, 1, 3, 32, 32))
    side = Side({}, {MAIN: both})
    assert canny_control(side, Single(MAIN), "image", 32).sum() > 0
    assert canny_control(side, Single(MAIN), "raw", 32).sum() == 0


def test_colours_outside_the_range_do_not_wrap_around():
    pytest.importorskip("cv2")
    ones = torch.ones(1, 32, 32)
    inside, outside = (
        canny_control(Side({}, {MAIN: rendered(ones, ones, image)}), Single(MAIN), "image", 32)
        for image in (square().sign(), 1.5 * square().sign())
    )
    assert torch.equal(inside, outside) and inside.sum() > 0


def test_without_opencv_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"distill3d\[control\]"):
        canny_control(picture_side([MAIN]), Single(MAIN), "image", 16)


def test_an_unknown_control_is_named():
    with pytest.raises(UnknownNameError, match=r"'cany'.*Did you mean 'canny'"):
        control_needs(("cany",), Single(MAIN), "image")


@pytest.mark.parametrize("stage", ["raw", "image"])
@pytest.mark.parametrize("layout", [Single(MAIN), Mirror(MAIN), GRID])
def test_depth_asks_for_the_raw_stage_and_canny_for_the_terms(layout, stage):
    of = lambda *names: control_needs(names, layout, stage)  # noqa: E731
    assert of("depth") == Needs(reference=dict.fromkeys(layout.shown, "raw"))
    assert of("canny") == of("depth", "canny") == Needs(reference=dict.fromkeys(layout.shown, stage))
    assert of() == Needs()


def test_the_mirrored_view_of_the_reference_is_not_asked_for():
    assert list(control_needs(("depth",), Mirror(MAIN), "image").reference) == [MAIN]
