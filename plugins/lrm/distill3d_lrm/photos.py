"""Picture files as RGBA pixels, however a camera or a program wrote them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from distill3d.errors import ConfigError
from distill3d_lrm.preparation import Pixels

MOST_PIXELS = 100_000_000
LONG_SIDE = 2048  # of what is given back; the models read 512 or less
PICTURES = "avif bmp gif heic heif jp2 jpe jpeg jpg mpo pbm pgm png pnm ppm tif tiff webp"  # endings
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF")  # EPS would run a program
READ = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000 and PPM"
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def photo_paths(paths: Sequence[str]) -> list[Path]:
    """The picture files that these paths mean, in order.

    Args:
        paths: files, taken whatever they are called, and folders, whose pictures come sorted by name; what is hidden
            in a folder, or has no ending of pictures, is left out.
    Raises:
        ConfigError: if there are none, or a path is missing, or a folder has no picture.
    """
    if not paths:
        raise ConfigError("No photo is given. Name picture files, or folders of them.")
    return [file for path in paths for file in _files(path)]


def read_photo(path: str | os.PathLike[str]) -> Pixels:
    """One picture file, upright and in 8 bits, (H, W, 4) uint8, neither side above 2048.

    What is larger is averaged down. A picture without transparency has alpha 255.

    Raises:
        ConfigError: if there is no such file, or it is no picture, damaged, animated, or above 100 million pixels.
    """
    path = Path(path)
    if not os.path.isfile(path):
        raise ConfigError(f"There is no photo at {path}. Give a picture file.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are bounded here, and of odd metadata
        try:
            with Image.open(path, formats=_formats()) as image:
                return _pixels(image, path)
        except Image.UnidentifiedImageError as error:
            raise ConfigError(_unknown(path)) from error
        except Image.DecompressionBombError as error:
            raise ConfigError(_too_large(path)) from error
        except ConfigError:
            raise
        except Exception as error:  # whatever a damaged file makes of a decoder
            raise ConfigError(
                f"{path} is damaged or cannot be read ({error or type(error).__name__}). Save it again as PNG or JPEG."
            ) from error


def _files(given: str) -> list[Path]:
    path = Path(given)
    if given and os.path.isfile(path):
        return [path]
    if not given or not os.path.isdir(path):
        raise ConfigError(f"There is no photo at {given!r}. Give a picture file, or a folder of pictures.")
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise ConfigError(f"The folder {path} cannot be read: {error.strerror}.") from error
    shown = [file for file in inside if file.suffix[1:].lower() in PICTURES.split() and not file.name.startswith(".")]
    pictures = [file for file in shown if file.is_file()]
    if not pictures:
        raise ConfigError(f"The folder {path} holds no picture. Put {READ} files there.")
    return pictures


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # AVIF may be missing; a program may have added HEIF


def _pixels(image: Image.Image, path: Path) -> Pixels:
    if image.width * image.height > MOST_PIXELS:
        raise ConfigError(_too_large(path))
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # two-lens and preview JPEGs: the first picture is the photo
        raise ConfigError(f"{path} holds {frames} pictures, or moves. Save the one that you mean as PNG or JPEG.")
    image.draft(None, _bounded(image.size))  # JPEG's decoder shrinks by itself, in a part of the time
    image.load()
    orientation = _orientation(image)  # now: some readers turn a picture while they load it, and say so
    shown = _eight_bits(image, path)
    if max(shown.size) > LONG_SIDE:
        # This filter has no overshoot, which would be specks of alpha.
        shown = shown.resize(_bounded(shown.size), Image.Resampling.HAMMING)
    if orientation in UPRIGHT:
        shown = shown.transpose(UPRIGHT[orientation])
    return np.array(shown.convert("RGBA"))


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged metadata of a sound picture
        return 1


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """As RGB or RGBA."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return _from_sixteen_bits(image)
    if image.mode in ("I", "F"):
        raise ConfigError(f"{path} has pixels of 32 bits, whose range is not known. Save it with 8 or 16 bits.")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    levels = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((levels + 128) // 257).astype(np.uint8))  # Pillow's own conversion cuts off at 255
    hidden = image.info.get("transparency")
    if hidden is None:
        return grey.convert("RGB")
    alpha = Image.fromarray(np.where(levels == hidden, 0, 255).astype(np.uint8))
    return Image.merge("RGBA", (grey, grey, grey, alpha))


def _unknown(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if not head:
        return f"{path} is empty. Copy or save the picture again."
    if head[4:8] == b"ftyp" and head[8:12] in HEIC_BRANDS:
        return f"{path} is a HEIC picture, which cannot be read here. Save it as JPEG or PNG."
    return f"{path} is no picture of a kind that is read: {READ}."


def _too_large(path: Path) -> str:
    most = MOST_PIXELS // 1_000_000
    return f"{path} has more than {most} million pixels. Make it smaller: {LONG_SIDE} a side is enough."
