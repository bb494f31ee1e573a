"""Pictures reach the tokenizers as the published programs make them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from distill3d.errors import ConfigError, ShapeError
from distill3d_lrm.preparation import Preparation, averaged, composited, foreground_square, padded, resized

HERE = Path(__file__).parent
PLACES = (HERE / "data", *(parent / "shared" / "parity" / "lrm" for parent in HERE.parents))
TRIPOSR = Preparation(48, 0.5, "antialiased", 0.85, quantised=True)
OPENLRM = Preparation(56, 1.0, "bicubic", None, quantised=False)


def golden(name: str) -> dict[str, torch.Tensor]:
    for place in PLACES:
        if (place / f"{name}.safetensors").is_file():
            return load_file(place / f"{name}.safetensors")
    pytest.skip(f"{name}.safetensors, the arrays of the published program, is not in {HERE / 'data'}")


def test_triposr_s_pictures_are_those_of_the_published_program():
    arrays = golden("triposr_A")
    rgba = arrays["input_rgba_u8"].numpy()

    square = foreground_square(rgba, 0.85)
    seen = composited(square, 0.5, quantised=True)

    np.testing.assert_array_equal(square, arrays["resized_foreground_rgba_u8"].numpy())
    assert torch.equal((seen * 255).round().to(torch.uint8), arrays["composited_rgb_u8"])
    wanted = arrays["cond_rgb"].permute(0, 3, 1, 2)
    torch.testing.assert_close(TRIPOSR(rgba), wanted[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(resized(arrays["input_image1_rgb"], 48, "antialiased"), wanted[1], rtol=0, atol=1e-6)


def test_openlrm_s_pictures_are_those_of_the_published_program():
    """It stretches what is not square, which only its resize does here: `Preparation` pads first."""
    arrays = golden("openlrm_A")
    seen = composited(arrays["input_rgba_u8"].numpy(), 1.0, quantised=False)
    torch.testing.assert_close(resized(seen, 56, "bicubic"), arrays["cond_rgb"][0], rtol=0, atol=1e-6)


@pytest.fixture
def cut_out() -> np.ndarray:
    """A red block of 21 x 11 in a transparent green picture."""
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[5:26, 30:41] = (255, 0, 0, 255)
    return rgba


def test_a_picture_has_the_shape_type_and_range_that_a_tokenizer_reads(cut_out):
    for preparation in (TRIPOSR, OPENLRM):
        picture = preparation(cut_out)
        assert picture.shape == (3, preparation.image_size, preparation.image_size)
        assert picture.dtype == torch.float32
        assert picture.min() >= 0 and picture.max() <= 1


def test_the_foreground_fills_the_wanted_share_in_the_middle(cut_out):
    """20 x 10 without the last row and column, so 40 x 40 at one half, with 10 and 15 around."""
    square = foreground_square(cut_out, 0.5)
    assert square.shape == (40, 40, 4)
    rows, columns = np.nonzero(square[..., 3])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 15, 24)


def test_what_is_behind_does_not_shine_through(cut_out):
    corner = OPENLRM(cut_out)[:, 0, 0]
    assert torch.equal(corner, torch.ones(3))
    assert torch.equal(TRIPOSR(cut_out)[:, 0, 0], torch.full((3,), 127 / 255))  # cut off, not rounded


def test_a_foreground_of_one_row_or_one_pixel_stays():
    rgba = np.zeros((9, 9, 4), np.uint8)
    rgba[4, 2:7] = 255
    assert foreground_square(rgba, 1.0)[..., 3].any()
    assert foreground_square(np.full((1, 1, 4), 255, np.uint8), 0.85).shape == (1, 1, 4)


def test_a_foreground_that_touches_the_border_is_framed_all_the_same():
    rgba = np.zeros((20, 20, 4), np.uint8)
    rgba[10:, 4:16] = 255
    assert foreground_square(rgba, 0.5).shape == (22, 22, 4)


def test_without_a_ratio_the_framing_stays_and_only_what_lacks_of_a_square_is_added():
    wide = np.full((10, 30, 4), 255, np.uint8)
    wide[..., :3] = 0
    picture = Preparation(30, 1.0, "antialiased", None, quantised=False)(wide)
    assert torch.equal(picture[0].mean(1), torch.tensor([1.0] * 10 + [0.0] * 10 + [1.0] * 10))


def test_a_picture_without_transparency_is_not_framed():
    """The published program frames what it cut out, and takes a whole picture as it is."""
    whole = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    whole[..., 3] = 255
    plain = Preparation(48, 0.5, "antialiased", None, quantised=True)
    assert torch.equal(TRIPOSR(whole), plain(whole))


def test_padding_is_transparent_and_the_odd_pixel_goes_below():
    square = padded(np.full((2, 5, 4), 255, np.uint8))
    assert square[:, 0, 3].tolist() == [0, 255, 255, 0, 0]


def test_shrinking_averages_colours_of_what_is_seen_only():
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[..., 1] = 255  # transparent green
    rgba[:, ::2] = (255, 0, 0, 255)
    assert averaged(rgba, 2).tolist() == [[[255, 0, 0, 128]] * 2] * 2


def test_fine_stripes_come_out_even_when_the_picture_is_shrunk_first_and_do_not_otherwise():
    stripes = np.zeros((1024, 1024, 4), np.uint8)
    stripes[:, ::2] = 255
    stripes[..., 3] = 255
    aliasing = Preparation(100, 1.0, "bicubic", None, quantised=False)
    even = Preparation(100, 1.0, "bicubic", None, quantised=False, shrink_to=512)
    assert even(stripes).std() < 1e-3 < aliasing(stripes).std()


def test_a_picture_smaller_than_that_is_not_enlarged(cut_out):
    even = Preparation(56, 1.0, "bicubic", None, quantised=False, shrink_to=512)
    assert torch.equal(even(cut_out), OPENLRM(cut_out))


def test_nothing_but_transparency_is_refused_where_the_foreground_is_framed():
    with pytest.raises(ConfigError, match="no foreground"):
        TRIPOSR(np.zeros((8, 8, 4), np.uint8))


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8), (0, 8, 4)])
def test_what_is_no_rgba_picture_is_refused(shape):
    with pytest.raises(ShapeError, match=r"\(H, W, 4\) uint8"):
        TRIPOSR(np.zeros(shape, np.uint8))
    with pytest.raises(ShapeError, match="float32"):
        TRIPOSR(np.zeros((8, 8, 4), np.float32))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_size": 0}, "at least 1"),
        ({"shrink_to": 0}, "at least 1"),
        ({"composite": 127}, "grey level"),
        ({"resize": "nearest"}, "nearest"),
        ({"foreground_ratio": 85.0}, "share"),
        ({"foreground_ratio": 0.001}, "share"),
    ],
)
def test_settings_that_cannot_be_are_refused(changed, said):
    settings = {"image_size": 8, "composite": 0.5, "resize": "bicubic", "foreground_ratio": 0.85, "quantised": True}
    with pytest.raises(ConfigError, match=said):
        Preparation(**{**settings, **changed})
