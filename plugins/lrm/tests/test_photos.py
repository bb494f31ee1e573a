"""Every kind of picture file comes out as RGBA, or is refused in a sentence that names it."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distill3d.errors import ConfigError
from distill3d_lrm import photos
from distill3d_lrm.photos import photo_paths, read_photo

# What a viewer shows of stored pixels, by EXIF orientation.
SHOWN = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)


def saved(path: Path, picture: Image.Image | np.ndarray, **options) -> Path:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, **options)
    return path


def opaque(rgb: np.ndarray) -> np.ndarray:
    return np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)


def sixteen_bit_png(path: Path, levels: np.ndarray, kind: int) -> Path:
    """Colour type 0 grey, 2 RGB, 4 grey and alpha, 6 RGBA: Pillow writes only the first."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = levels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def refused(path: Path, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_photo(path)
    assert str(path) in str(caught.value)


def test_plain_pictures_are_read_as_they_are(tmp_path, colours):
    for name in ("a.png", "a.bmp", "a.tif", "a.ppm", "a.webp"):
        path = saved(tmp_path / name, colours, **({"lossless": True} if name == "a.webp" else {}))
        np.testing.assert_array_equal(read_photo(path), opaque(colours))


def test_alpha_and_the_colours_below_it_are_kept(tmp_path):
    rgba = np.random.default_rng(1).integers(0, 256, (5, 7, 4), np.uint8)
    np.testing.assert_array_equal(read_photo(saved(tmp_path / "a.png", rgba)), rgba)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_turned_photo_comes_out_upright(tmp_path, colours, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / f"a.{ending}", colours, exif=exif)
    np.testing.assert_array_equal(read_photo(path), opaque(SHOWN[orientation](colours)))


@pytest.mark.parametrize("ending", ["jpg", "tif"])
def test_a_large_turned_photo_is_shrunk_and_upright(tmp_path, ending):
    stored = np.zeros((1000, 4096, 3), np.uint8)
    stored[:, :2048] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    shown = read_photo(saved(tmp_path / f"a.{ending}", stored, exif=exif))
    assert shown.shape == (2048, 500, 4)
    assert shown[:1000, :, 0].min() > 250 and shown[1050:, :, 0].max() < 5


def test_damaged_exif_leaves_the_picture(tmp_path, colours):
    path = saved(tmp_path / "a.png", colours, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    np.testing.assert_array_equal(read_photo(path), opaque(colours))


def test_grey_and_grey_with_alpha(tmp_path):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    shown = read_photo(saved(tmp_path / "l.png", grey))
    assert (shown[..., :3] == grey[..., None]).all() and (shown[..., 3] == 255).all()

    both = Image.merge("LA", (Image.fromarray(grey), Image.fromarray(255 - grey)))
    shown = read_photo(saved(tmp_path / "la.png", both))
    assert (shown[..., 0] == grey).all() and (shown[..., 3] == 255 - grey).all()


def test_black_and_white(tmp_path):
    shown = read_photo(saved(tmp_path / "one.png", Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")))
    np.testing.assert_array_equal(shown[..., 0], np.eye(8, dtype=np.uint8) * 255)


def test_cmyk(tmp_path):
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    shown = read_photo(path)[4, 4].astype(int)
    assert abs(shown - (255, 0, 0, 255)).max() <= 3


def test_a_palette_with_a_transparent_colour(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 2), 1)
    for name, options in (("a.png", {"transparency": bytes([255, 64])}), ("a.gif", {"transparency": 1})):
        shown = read_photo(saved(tmp_path / name, picture, **options))
        assert shown[0, 0].tolist() == [255, 0, 0, 255]
        assert shown[2, 1, 3] == (64 if name == "a.png" else 0)


def test_a_transparent_colour_of_an_rgb_picture(tmp_path, colours):
    path = saved(tmp_path / "a.png", colours, transparency=tuple(int(c) for c in colours[2, 3]))
    assert read_photo(path)[2, 3, 3] == 0 and read_photo(path)[0, 0, 3] == 255


LEVELS = np.array([0, 128, 129, 257, 300, 32896, 65534, 65535], np.uint16).reshape(2, 4)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_are_scaled_and_not_cut_off(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    if ending == "pgm":
        path.write_bytes(b"P5 4 2 65535\n" + LEVELS.astype(">u2").tobytes())
    else:
        saved(path, LEVELS)
    shown = read_photo(path)
    assert shown[..., 1].ravel().tolist() == [0, 0, 1, 1, 1, 128, 255, 255]
    assert (shown[..., 3] == 255).all()


def test_a_transparent_level_of_sixteen_bits(tmp_path):
    shown = read_photo(saved(tmp_path / "a.png", LEVELS, transparency=300))
    assert shown[..., 3].ravel().tolist() == [255, 255, 255, 255, 0, 255, 255, 255]


@pytest.mark.parametrize(("kind", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_colours_are_scaled(tmp_path, kind, channels):
    levels = np.random.default_rng(2).integers(0, 65536, (5, 6, channels), np.uint16)
    shown = read_photo(sixteen_bit_png(tmp_path / "a.png", levels, kind)).astype(int)
    if channels == 2:
        shown = shown[..., 2:]
    assert abs(shown[..., :channels] - levels / 257).max() <= 1


def test_a_file_of_two_pictures_from_a_camera_is_its_first(tmp_path):
    first, second = (Image.new("RGB", (16, 16), c) for c in ("red", "blue"))
    path = saved(tmp_path / "a.jpg", first, format="MPO", save_all=True, append_images=[second])
    assert Image.open(path).format == "MPO"
    assert read_photo(path)[8, 8, 0] > 250


def test_one_pixel(tmp_path):
    assert read_photo(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), "red"))).tolist() == [[[255, 0, 0, 255]]]


def test_a_large_jpeg_is_shrunk_by_its_decoder(tmp_path, monkeypatch):
    sizes = []
    resize = Image.Image.resize

    def watched(self, *args, **kwargs):
        sizes.append(self.size)
        return resize(self, *args, **kwargs)

    path = saved(tmp_path / "a.jpg", Image.new("RGB", (9000, 60), "red"))
    monkeypatch.setattr(Image.Image, "resize", watched)
    shown = read_photo(path)
    assert shown.shape == (14, 2048, 4) and shown[..., 0].min() > 250
    assert sizes == [(2250, 15)]


def test_a_very_long_picture_keeps_a_pixel_of_height(tmp_path):
    assert read_photo(saved(tmp_path / "a.png", Image.new("L", (9000, 1)))).shape == (1, 2048, 4)


def test_shrinking_does_not_mix_in_what_is_transparent(tmp_path):
    rgba = np.zeros((4, 4096, 4), np.uint8)
    rgba[..., 1] = 255  # transparent green
    rgba[:, :1999] = (255, 0, 0, 255)
    shown = read_photo(saved(tmp_path / "a.png", rgba))
    seen = shown[..., 3] > 0
    assert shown.shape == (2, 2048, 4)
    assert (shown[seen][:, :3] == (255, 0, 0)).all()
    assert seen[0].sum() == 1000 and shown[0, :, 3].max() == 255  # no overshoot: no specks beside the edge


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    def decoded(self):
        raise AssertionError("decoded")

    path = saved(tmp_path / "a.png", Image.new("1", (40, 30)))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    monkeypatch.setattr(photos, "MOST_PIXELS", 1000)
    refused(path, "more than 0 million pixels")


@pytest.mark.parametrize("side", [10_001, 60_000])
def test_a_small_file_that_says_it_is_huge_is_refused(tmp_path, side):
    """The larger of them already makes Pillow refuse to open it."""
    body = saved(tmp_path / "a.png", Image.new("L", (1, 1))).read_bytes()
    head = b"IHDR" + struct.pack(">II", side, side) + body[24:29]
    (tmp_path / "a.png").write_bytes(body[:12] + head + struct.pack(">I", zlib.crc32(head)) + body[33:])
    refused(tmp_path / "a.png", "100 million pixels")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_what_moves_or_has_pages_is_refused(tmp_path, name):
    first, second = (Image.new("RGB", (16, 16), c) for c in ("red", "blue"))
    refused(saved(tmp_path / name, first, save_all=True, append_images=[second]), "holds 2 pictures")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.gif", "a.bmp"])
def test_a_file_that_stops_in_the_middle_is_refused(tmp_path, name):
    noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    whole = saved(tmp_path / name, noise).read_bytes()
    for share in (0.2, 0.5, 0.9):
        (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
        refused(tmp_path / name, "damaged|no picture")


def test_a_damaged_file_gives_a_picture_or_the_one_error(tmp_path, colours):
    random = np.random.default_rng(4)
    outcomes = set()
    for name in ("a.png", "a.jpg", "a.tif", "a.webp", "a.gif"):
        whole = bytearray(saved(tmp_path / name, colours).read_bytes())
        for _ in range(60):
            damaged = bytearray(whole)
            for place in random.integers(0, len(whole), 3):
                damaged[place] = random.integers(256)
            (tmp_path / name).write_bytes(damaged)
            try:
                outcomes.add(read_photo(tmp_path / name).dtype)
            except ConfigError:
                outcomes.add(ConfigError)
    assert outcomes == {np.dtype(np.uint8), ConfigError}


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.jpg").touch()
    refused(tmp_path / "a.jpg", "is empty")


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("hello")
    refused(tmp_path / "a.jpg", "no picture of a kind that is read: JPEG")


def test_a_drawing_that_a_program_would_have_to_run_is_refused(tmp_path):
    saved(tmp_path / "a.eps", Image.new("RGB", (4, 4)))
    refused(tmp_path / "a.eps", "no picture of a kind")


def test_heic_is_named(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    refused(tmp_path / "a.heic", "HEIC .* Save it as JPEG")


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_32_bits_are_refused(tmp_path, mode):
    refused(saved(tmp_path / "a.tif", Image.new(mode, (4, 4))), "8 or 16 bits")


def test_a_missing_file_and_a_folder_are_no_photos(tmp_path):
    refused(tmp_path / "nobody.png", "no photo at")
    refused(tmp_path, "no photo at")
    refused(tmp_path / ("x" * 5000), "no photo at")


def test_a_file_that_may_not_be_read_is_refused(tmp_path, colours, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = saved(tmp_path / "a.png", colours)
    monkeypatch.setattr(Image, "open", forbidden)
    refused(path, "Permission denied")


def test_files_and_folders_come_in_order_without_what_is_hidden_or_no_picture(tmp_path):
    for name in ("b.PNG", "a.jpeg", ".hidden.png", "notes.txt", "c.heic"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    found = photo_paths([str(tmp_path / "notes.txt"), str(tmp_path), str(tmp_path / "b.PNG")])
    assert [path.name for path in found] == ["notes.txt", "a.jpeg", "b.PNG", "c.heic", "b.PNG"]


def test_paths_that_mean_no_photo_are_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match="No photo is given"):
        photo_paths([])
    for given, said in (
        (str(tmp_path), "holds no picture"),
        (str(tmp_path / "nobody"), "nobody"),
        ("", "no photo at ''"),
        ("a\0b", "no photo at"),
    ):
        with pytest.raises(ConfigError, match=said):
            photo_paths([given])


def test_a_folder_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    def forbidden(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(ConfigError, match="Permission denied"):
        photo_paths([str(tmp_path)])


def test_the_content_decides_and_not_the_ending(tmp_path, colours):
    saved(tmp_path / "a.jpg", colours, format="PNG")
    np.testing.assert_array_equal(read_photo(tmp_path / "a.jpg"), opaque(colours))
