"""Does a backbone that reads photographs make subjects of them?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from distill3d.errors import ConfigError
from distill3d.renderer import FromPhotos
from distill3d.testing.contract import NotApplicable, expect, expect_finite, expect_same, expect_shape
from distill3d.testing.renderer_bench import RendererBench

SIDE = 96


def photos_name_subjects(bench: RendererBench) -> None:
    """A backbone with the capability `FromPhotos` makes of each picture its own subject, and refuses what is none."""
    renderer = bench.renderer
    assert isinstance(renderer, FromPhotos)  # asked for by check_renderer
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        paths = [_cut_out(Path(folder) / f"{name}.png", name) for name in ("red", "blue")]
        try:
            codes = renderer.codes_of_photos(paths)
        except ConfigError as error:
            raise NotApplicable(f"it refuses a made-up cut-out: {error}") from error
        again, second = renderer.codes_of_photos(paths), renderer.codes_of_photos(paths[1:])
        refusals = _refusals(renderer, paths[0])
    expect_shape("codes_of_photos of two pictures", codes, (2, *renderer.code_shape))
    kind = bench.codes.dtype
    expect(codes.dtype == kind, "codes_of_photos", f"codes as of sample_codes, {kind}", codes.dtype)
    if codes.is_floating_point():
        expect_finite("codes_of_photos", codes)
    expect_same("codes_of_photos, asked again", again, codes, 0.0, "the same codes")
    expect_same("codes_of_photos of two pictures", codes[1:], second, bench.tolerance, "the second picture's alone")
    expect(bool((codes[0] != codes[1]).any()), "codes_of_photos", "different subjects", "one for two pictures")
    for what, got in refusals.items():
        expect(got == "ConfigError", f"codes_of_photos of {what}", "distill3d.errors.ConfigError", got)


def _cut_out(path: Path, colour: str) -> Path:
    """A disc with a nose on a transparent background: a picture that asks nothing of who cuts subjects out."""
    picture = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((SIDE // 6, SIDE // 8, 5 * SIDE // 6, 7 * SIDE // 8), fill=colour)
    draw.polygon([(SIDE // 2, SIDE // 3), (3 * SIDE // 5, SIDE // 2), (SIDE // 2, SIDE // 2)], fill="white")
    picture.save(path)
    return path


def _refusals(renderer: FromPhotos, good: Path) -> dict[str, str]:
    """What becomes of a file that is missing and of one that is damaged."""
    torn = good.with_name("torn.png")
    torn.write_bytes(good.read_bytes()[:40])
    got = {}
    for what, path in (("a missing file", good.with_name("none.png")), ("a damaged picture", torn)):
        try:
            renderer.codes_of_photos([path])
            got[what] = "codes"
        except ConfigError:
            got[what] = "ConfigError"
        except Exception as error:
            got[what] = f"{type(error).__name__}: {error}"
    return got
