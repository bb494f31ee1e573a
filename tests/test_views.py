"""Layouts join views into a picture and split it again."""

import pytest
import torch

from distill3d.cameras import CameraPrior
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError
from distill3d.views import Grid, Mirror, Single, View, fit, resize

PRIOR = CameraPrior()
MAIN = View("main", PRIOR)
GRIDS = [Grid(2, 2, PRIOR), Grid(1, 3, PRIOR), Grid(3, 2, PRIOR)]


@pytest.mark.parametrize("layout", [Single(MAIN), Mirror(MAIN), *GRIDS])
def test_joining_what_was_split_gives_the_picture_back(layout):
    picture = torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(layout.join(layout.split(picture)), picture, rtol=0, atol=0)


@pytest.mark.parametrize("layout", [Single(MAIN), *GRIDS])
def test_splitting_what_was_joined_gives_the_tiles_back(layout):
    tiles = torch.randn(2, len(layout.views), 3, 4, 6)
    torch.testing.assert_close(layout.split(layout.join(tiles)), tiles, rtol=0, atol=0)


def test_grid_tiles_are_read_row_by_row():
    tiles = torch.arange(6.0).view(1, 6, 1, 1, 1).expand(1, 6, 1, 2, 2)
    joined = Grid(2, 3, PRIOR).join(tiles)
    assert joined[0, 0, ::2, ::2].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_the_mirror_has_the_value_of_one_view_and_the_derivatives_of_both():
    tiles = torch.randn(1, 2, 3, 4, 4, requires_grad=True)
    joined = Mirror(MAIN, (0.75, 0.25)).join(tiles)
    torch.testing.assert_close(joined, tiles[:, 0], rtol=0, atol=0)
    direction = torch.randn_like(joined)
    (gradient,) = torch.autograd.grad((joined * direction).sum(), tiles)
    torch.testing.assert_close(gradient[:, 0], 0.75 * direction)
    torch.testing.assert_close(gradient[:, 1], 0.25 * direction.flip(-1))


def test_a_mirrored_view_is_the_same_draw_mirrored():
    plain, mirrored = Mirror(MAIN).views
    draws = Draws(0, 7, (0, 1))
    torch.testing.assert_close(mirrored.cameras(draws).yaw(), -plain.cameras(draws).yaw())
    torch.testing.assert_close(mirrored.cameras(draws).pitch(), plain.cameras(draws).pitch())


def test_equal_requests_are_one_view():
    assert Grid(2, 2, PRIOR).views == Grid(2, 2, PRIOR).views
    assert len({*Grid(2, 2, PRIOR).views, *Grid(2, 2, PRIOR).views}) == 4
    assert View("main", CameraPrior(yaw=10)) != MAIN


def test_fitting_is_per_view_and_differentiable():
    tiles = torch.zeros(1, 2, 1, 8, 8)
    tiles[:, 1] = 1
    small, large = fit(tiles, 4), fit(tiles, 16)
    for fitted in (small, large):
        assert fitted[:, 0].abs().max() == 0  # nothing bleeds over the seam
        assert (fitted[:, 1] - 1).abs().max() < 1e-6
    leaf = torch.randn(1, 3, 9, 9, requires_grad=True)
    assert torch.autograd.grad(resize(leaf, 4).sum(), leaf)[0].abs().min() > 0


def test_area_resizing_keeps_the_mean():
    picture = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(resize(picture, 16).mean((-1, -2)), picture.mean((-1, -2)))


def test_impossible_grids_are_refused():
    with pytest.raises(ConfigError, match="at least one row"):
        Grid(0, 2, PRIOR)
    with pytest.raises(ConfigError, match="does not divide"):
        Grid(3, 3, PRIOR).tile(64)
    with pytest.raises(ShapeError, match="joins 4 views, got 3"):
        Grid(2, 2, PRIOR).join(torch.zeros(1, 3, 1, 2, 2))
