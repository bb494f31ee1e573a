"""A subject is cut out where that can be done well, and whatever cannot be done is said."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image, ImageDraw

from distill3d.errors import ConfigError
from distill3d_lrm.backdrop import reachable, soft
from distill3d_lrm.foreground import with_alpha

PHOTO = Path("holidays/anna.jpg")
Cut = Callable[[Image.Image], Image.Image]


def opaque(rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1).astype(np.uint8)


def painted(backdrop: np.ndarray, *, shoulders: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A head in front of a backdrop (160, 120, 3), with shoulders that the lower border cuts, and where it is."""
    where = Image.new("L", (120, 160))
    draw = ImageDraw.Draw(where)
    draw.ellipse((38, 28, 82, 98), fill=255)
    if shoulders:
        draw.ellipse((-10, 95, 130, 260), fill=255)
    mask = np.asarray(where) > 0
    shaded = np.linspace(60, 200, 160)[:, None, None] * np.array([1.0, 0.75, 0.6])
    return opaque(np.where(mask[..., None], shaded, backdrop)), mask


def flat(grey: float = 235) -> np.ndarray:
    return np.full((160, 120, 3), grey)


def as_jpeg(rgba: np.ndarray, quality: int = 85) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(rgba[..., :3]).save(file, "JPEG", quality=quality)
    return opaque(np.asarray(Image.open(file)))


def fake_rembg(monkeypatch: pytest.MonkeyPatch, cut: Cut) -> ModuleType:
    module = ModuleType("rembg")
    module.sessions = 0

    def new_session():
        module.sessions += 1
        return "session"

    def remove(image, session):
        assert session == "session" and image.mode == "RGB"
        return cut(image)

    module.new_session, module.remove = new_session, remove
    monkeypatch.setitem(sys.modules, "rembg", module)
    return module


def left_half(image: Image.Image) -> Image.Image:
    rgba = np.array(image.convert("RGBA"))
    rgba[:, image.width // 2 :] = 0
    return Image.fromarray(rgba)


@pytest.fixture
def no_rembg(monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)  # makes the import fail


def agreement(alpha: np.ndarray, mask: np.ndarray) -> float:
    """Overlap divided by union."""
    found = alpha > 127
    return (found & mask).sum() / (found | mask).sum()


@pytest.mark.parametrize("how", ["auto", "keep", "plain", "rembg"])
def test_transparency_of_the_picture_is_taken_as_it_is(no_rembg, how):
    rgba = np.random.default_rng(0).integers(0, 256, (9, 9, 4), np.uint8)
    np.testing.assert_array_equal(with_alpha(rgba, how, PHOTO), rgba)


def test_keep_takes_the_whole_picture(no_rembg):
    rgba, _ = painted(flat())
    np.testing.assert_array_equal(with_alpha(rgba, "keep", PHOTO), rgba)


@pytest.mark.parametrize("grey", [0, 128, 235, 255])
@pytest.mark.parametrize("shoulders", [True, False])
def test_a_plain_backdrop_is_keyed_out_also_behind_who_is_cut_by_the_border(no_rembg, grey, shoulders):
    rgba, mask = painted(flat(grey), shoulders=shoulders)
    found = with_alpha(rgba, "auto", PHOTO)
    np.testing.assert_array_equal(found[..., 3] > 0, mask)
    np.testing.assert_array_equal(found[..., :3], rgba[..., :3])


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_subject_in_a_corner_is_keyed_out(no_rembg, corner):
    rgb = np.full((80, 80, 3), 250)
    place = tuple(np.s_[60:] if far else np.s_[:20] for far in corner)
    rgb[place] = 40
    alpha = with_alpha(opaque(rgb), "auto", PHOTO)[..., 3]
    assert (alpha > 0).sum() == 400 and (alpha[place] > 0).all()


def test_a_subject_may_touch_the_border_in_several_places(no_rembg):
    rgb = np.full((80, 80, 3), 250)
    for place in (np.s_[:20, :20], np.s_[:20, 50:60], np.s_[30:40, 60:]):
        rgb[place] = 40
    assert (with_alpha(opaque(rgb), "auto", PHOTO)[..., 3] > 0).sum() == 400 + 200 + 200


def test_noise_of_a_sensor_and_of_jpeg_does_not_matter(no_rembg):
    noisy, mask = painted(flat() + np.random.default_rng(0).normal(0, 4, (160, 120, 3)))
    assert agreement(with_alpha(noisy, "auto", PHOTO)[..., 3], mask) > 0.99
    clean, mask = painted(flat())
    assert agreement(with_alpha(as_jpeg(clean), "auto", PHOTO)[..., 3], mask) > 0.98


def test_the_edge_is_soft_and_the_picture_s_border_is_not(no_rembg):
    rgba, _ = painted(flat())
    alpha = with_alpha(rgba, "auto", PHOTO)[..., 3]
    inside = set(np.unique(alpha[40:90])) - {0, 255}
    assert inside
    assert (alpha[-1] == 255).all()


def test_a_light_subject_does_not_leak_into_an_even_white(no_rembg):
    rgb = np.full((64, 64, 3), 255)
    rgb[16:48, 16:48] = 240
    rgb[16:48, 16] = rgb[16:48, 47] = rgb[16, 16:48] = rgb[47, 16:48] = 90
    rgb[15:18, 30:34] = 240  # a gap in the dark outline
    assert with_alpha(opaque(rgb), "auto", PHOTO)[30, 30, 3] == 255


def test_what_the_subject_encloses_stays(no_rembg):
    rgb = np.full((60, 60, 3), 255)
    rgb[15:45, 15:45] = (200, 30, 30)
    rgb[25:35, 25:35] = 255
    assert with_alpha(opaque(rgb), "auto", PHOTO)[30, 30, 3] == 255


def test_specks_of_dust_are_no_foreground(no_rembg):
    """One dark pixel in the corner would make the subject small in its frame."""
    rgba, mask = painted(flat(), shoulders=False)
    rgba[5, 5, :3] = rgba[150, 110, :3] = rgba[151, 110, :3] = 0
    np.testing.assert_array_equal(with_alpha(rgba, "auto", PHOTO)[..., 3] > 0, mask)


def textured() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:160, :120].astype(float)
    blurred = np.asarray(
        Image.fromarray(random.integers(0, 256, (6, 5, 3), np.uint8)).resize((120, 160), Image.Resampling.BICUBIC)
    )
    bricks = np.where(((rows % 16 < 3) | (columns % 30 < 3))[..., None], 190.0, [150.0, 70, 50])
    return {
        "grain": random.normal(128, 40, (160, 120, 3)),
        "out of focus": blurred.astype(float),
        "shading": np.repeat((rows + columns)[..., None], 3, -1) * 0.9,
        "bricks": bricks,
        "checks": np.repeat(((rows // 8 + columns // 8) % 2 * 200)[..., None], 3, -1),
        "pebbles": np.kron(random.random((80, 60)) < 0.1, np.ones((2, 2)))[..., None] * -150.0 + flat(),
        "three stripes": np.repeat((columns // 40 * 100)[..., None], 3, -1),
        "many posts": np.repeat((columns // 10 % 2 * 200)[..., None], 3, -1),
    }


@pytest.mark.parametrize("kind", textured())
def test_a_photograph_with_texture_is_left_to_rembg(monkeypatch, kind):
    rgba, _ = painted(np.clip(textured()[kind], 0, 255))
    module = fake_rembg(monkeypatch, left_half)
    found = with_alpha(rgba, "auto", PHOTO)
    assert module.sessions == 1
    np.testing.assert_array_equal(found, np.asarray(left_half(Image.fromarray(rgba))))


def test_a_horizon_is_no_outline_of_a_subject(no_rembg):
    """Half the border is one colour, but the picture shades off from it: keying would cut it at no edge."""
    rgb = np.full((100, 100, 3), 200.0)
    rgb[55:] -= (np.arange(45) * 4)[:, None, None]
    with pytest.raises(ConfigError, match="rembg"):
        with_alpha(opaque(rgb), "auto", PHOTO)


def test_without_rembg_the_error_names_the_photo_the_extra_and_the_way_around(no_rembg):
    rgba, _ = painted(np.clip(textured()["grain"], 0, 255))
    for how in ("auto", "rembg"):
        with pytest.raises(ConfigError, match=r"anna\.jpg .*'distill3d-lrm\[rembg\].* PNG with transparency"):
            with_alpha(rgba, how, PHOTO)


@pytest.mark.parametrize("content", ["sys.exit(1)", "new_session = lambda: sys.exit(1)"])
def test_rembg_that_exits_for_want_of_its_runtime_counts_as_missing(monkeypatch, tmp_path, content):
    (tmp_path / "rembg.py").write_text(f"import sys\nremove = None\n{content}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rembg", raising=False)
    with pytest.raises(ConfigError, match="not installed"):
        with_alpha(painted(flat())[0], "rembg", PHOTO)
    sys.modules.pop("rembg", None)


def test_rembg_is_used_for_a_plain_backdrop_where_it_is_asked_for(monkeypatch):
    rgba, _ = painted(flat())
    fake_rembg(monkeypatch, left_half)
    assert with_alpha(rgba, "rembg", PHOTO)[..., 3].max(0).tolist() == [255] * 60 + [0] * 60


def test_a_plain_backdrop_needs_no_rembg(monkeypatch):
    module = fake_rembg(monkeypatch, left_half)
    with_alpha(painted(flat())[0], "auto", PHOTO)
    assert module.sessions == 0


def test_many_photos_share_one_session(monkeypatch):
    module = fake_rembg(monkeypatch, left_half)
    for _ in range(3):
        with_alpha(painted(flat())[0], "rembg", PHOTO)
    assert module.sessions == 1


def test_what_rembg_says_is_passed_on(monkeypatch):
    def fail(image):
        raise ConnectionError("no route to host")

    fake_rembg(monkeypatch, fail)
    with pytest.raises(ConfigError, match=r"anna\.jpg \(no route to host\)"):
        with_alpha(painted(flat())[0], "rembg", PHOTO)


def test_another_size_from_rembg_is_refused(monkeypatch):
    fake_rembg(monkeypatch, lambda image: image.resize((5, 5)))
    with pytest.raises(ConfigError, match="another size"):
        with_alpha(painted(flat())[0], "rembg", PHOTO)


def test_plain_keys_out_the_commonest_colour_without_looking(no_rembg):
    rgba, _ = painted(np.clip(textured()["many posts"], 0, 255), shoulders=False)
    alpha = with_alpha(rgba, "plain", PHOTO)[..., 3]
    assert 0 < (alpha > 0).mean() < 1


@pytest.mark.parametrize("how", ["auto", "keep", "plain"])
def test_a_picture_that_is_all_transparent_is_refused(how):
    with pytest.raises(ConfigError, match=r"anna\.jpg has no foreground"):
        with_alpha(np.zeros((8, 8, 4), np.uint8), how, PHOTO)


@pytest.mark.parametrize("how", ["auto", "plain"])
@pytest.mark.parametrize("shape", [(40, 50), (1, 1), (1, 9), (2, 2)])
def test_a_picture_of_one_colour_has_no_foreground(how, shape):
    with pytest.raises(ConfigError, match="no foreground"):
        with_alpha(np.full((*shape, 4), 255, np.uint8), how, PHOTO)


def test_a_rembg_that_finds_nobody_is_no_foreground(monkeypatch):
    fake_rembg(monkeypatch, lambda image: Image.new("RGBA", image.size, (9, 9, 9, 2)))
    with pytest.raises(ConfigError, match="no foreground"):
        with_alpha(painted(flat())[0], "rembg", PHOTO)


def test_an_unknown_way_is_refused():
    with pytest.raises(ConfigError, match="auto, keep, plain, rembg, not by 'magic'"):
        with_alpha(painted(flat())[0], "magic", PHOTO)


def walked(open_: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    reached = np.zeros_like(open_)
    todo = [tuple(place) for place in np.argwhere(seeds & open_)]
    while todo:
        y, x = todo.pop()
        if 0 <= y < open_.shape[0] and 0 <= x < open_.shape[1] and open_[y, x] and not reached[y, x]:
            reached[y, x] = True
            todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return reached


@pytest.mark.parametrize("share", [0.4, 0.6, 0.7, 1.0, 0.0])
def test_what_is_reachable_is_what_a_walk_reaches(share):
    """Near 0.6 the ways are longest."""
    random = np.random.default_rng(0)
    for shape in ((40, 31), (1, 12), (12, 1), (1, 1)):
        open_, seeds = random.random(shape) < share, random.random(shape) < 0.02
        np.testing.assert_array_equal(reachable(open_, seeds), walked(open_, seeds))


def test_the_way_through_a_labyrinth_is_found():
    """A comb that turns at every second column, its seed at one end."""
    open_ = np.zeros((200, 201), bool)
    open_[:, ::2] = True
    open_[0, 1::4] = open_[-1, 3::4] = True
    seeds = np.zeros_like(open_)
    seeds[-1, 0] = True
    np.testing.assert_array_equal(reachable(open_, seeds), open_)


def test_a_soft_mask_stays_inside_of_the_mask():
    mask = np.zeros((7, 7), bool)
    mask[2:, 2:5] = True
    alpha = soft(mask)
    assert (alpha[~mask] == 0).all()
    assert alpha[2, 2] == 255 * 4 // 9 and alpha[4, 2] == 255 * 6 // 9 and alpha[4, 3] == 255
    assert alpha[6, 3] == 255
