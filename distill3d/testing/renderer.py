"""The contract of a backbone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from distill3d.cameras import Cameras
from distill3d.draws import Draws
from distill3d.errors import ShapeError
from distill3d.renderer import AnySize, Field, Folding, FromPhotos, Parted, Render, Renderer, RunDefaults, Thrifty
from distill3d.testing.camera_checks import CAMERA_CHECKS
from distill3d.testing.contract import (
    NotApplicable,
    Report,
    expect,
    expect_finite,
    expect_same,
    expect_shape,
    run_checks,
)
from distill3d.testing.part_checks import parts_are_told_apart, untrained_changes_fold_to_nothing
from distill3d.testing.photo_checks import photos_name_subjects
from distill3d.testing.renderer_bench import RendererBench, put_back, training_only
from distill3d.testing.weight_checks import WEIGHT_CHECKS
from distill3d.volume import along, pixel_rays


def check_renderer(renderer: Renderer, *, subjects: int = 2, tolerance: float | None = None) -> Report:
    """Check all that the core relies on; about sixty views are rendered.

    The renderer is left as it was: weights, buffers, `requires_grad`, mode.

    Args:
        subjects: how many are made together, at least 2.
        tolerance: relative difference that batching may make; None chooses by the dtype of the weights.
    Returns:
        What was checked, and what could not be and why.
    Raises:
        ContractError: at the first broken promise.
    """
    expect(subjects >= 2, "check_renderer", "at least 2 subjects", subjects)
    expect(isinstance(renderer, Renderer), "The backbone", "a distill3d.renderer.Renderer", type(renderer).__name__)
    bench = RendererBench(renderer, subjects, tolerance)
    try:
        able = [check for kind, check in CAPABILITY_CHECKS.items() if isinstance(renderer, kind)]
        checks = (*FORM_CHECKS, *able, *WEIGHT_CHECKS, *PICTURE_CHECKS, *CAMERA_CHECKS)
        # Frozen, but where a check trains: torch chooses some kernels by requires_grad, and their last bits differ.
        with training_only(renderer, {}):
            return run_checks(type(renderer).__name__, checks, bench)
    finally:
        put_back(renderer, bench.before)


def declares_itself(bench: RendererBench) -> None:
    """Declares code_shape, image_size, raw_size, weights_licence, weights_name and defaults."""
    backbone = bench.renderer
    shape = getattr(backbone, "code_shape", None)
    sizes = isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)
    expect(sizes, "code_shape", "a tuple of positive integers", repr(shape))
    for name in ("image_size", "raw_size"):
        size = getattr(backbone, name, None)
        expect(isinstance(size, int) and size > 0, name, "a positive integer", repr(size))
    expect(
        backbone.image_size >= backbone.raw_size,
        "image_size",
        f"at least raw_size ({backbone.raw_size})",
        backbone.image_size,
    )
    licence = backbone.weights_licence
    expect(isinstance(licence, str) and licence != "", "weights_licence", 'a name such as "Apache-2.0"', repr(licence))
    expect(isinstance(backbone.weights_name, str), "weights_name", 'text, "" for none', repr(backbone.weights_name))
    expect(isinstance(backbone.defaults, RunDefaults), "defaults", "RunDefaults", type(backbone.defaults).__name__)


def codes_follow_their_draws(bench: RendererBench) -> None:
    """Codes are a function of the seed, the step and the subject alone."""
    codes = expect_shape("sample_codes", bench.codes, (bench.subjects, *bench.renderer.code_shape))
    if codes.is_floating_point():
        expect_finite("sample_codes", codes)
    with training_only(bench.renderer, bench.renderer.trainable("default")):
        traced = bench.renderer.sample_codes(bench.draws).requires_grad
    expect(not traced, "sample_codes", "codes without a graph (nothing trained acts before scene)", "one")
    with torch.no_grad():
        again = bench.renderer.sample_codes(bench.draws)
        turned = bench.renderer.sample_codes(Draws(0, 0, bench.draws.subjects[::-1]))
        others = [bench.renderer.sample_codes(Draws(seed, step, (0, 1))) for seed, step in ((0, 1), (1, 0), (2, 2))]
    expect_same("sample_codes with equal draws", again, codes, 0.0)
    expect_same("sample_codes with its subjects permuted", turned.flip(0), codes, 0.0, "the permuted codes")
    drawn = torch.cat([codes, *others])
    # several draws: a backbone that picks from a few photographs may well pick one of them twice
    expect(bool((drawn != drawn[:1]).any()), "sample_codes", "different subjects", "one and the same for all draws")


def seeds_name_subjects(bench: RendererBench) -> None:
    """Each seed names one subject, whatever else is asked for."""
    with torch.no_grad():
        both, second = bench.renderer.codes_of_seeds([3, 5]), bench.renderer.codes_of_seeds([5])
    expect_shape("codes_of_seeds([3, 5])", both, (2, *bench.renderer.code_shape))
    expect_same("codes_of_seeds([3, 5])[1]", both[1:], second, 0.0, "the codes of seed 5 alone")


def scene_has_a_row_per_subject(bench: RendererBench) -> None:
    """A scene is a mapping of finite tensors whose first dimension is the subjects."""
    expect(hasattr(bench.scene, "items"), "scene", "a mapping of tensors by name", type(bench.scene).__name__)
    expect(len(bench.scene) > 0, "scene", "at least one tensor", "an empty mapping")
    for name, entry in bench.scene.items():
        expect(isinstance(entry, torch.Tensor), f"scene[{name!r}]", "a tensor", type(entry).__name__)
        first = entry.shape[0] if entry.ndim else "a scalar"
        expect(first == bench.subjects, f"scene[{name!r}]", f"first dimension {bench.subjects}", first)
        expect_finite(f"scene[{name!r}]", entry)


def pictures_have_their_form(bench: RendererBench) -> None:
    """Pictures have the declared shapes, dtypes and ranges."""
    backbone, pictures = bench.renderer, bench.pictures
    expect(isinstance(pictures, Render), "render", "a distill3d.renderer.Render", type(pictures).__name__)
    channels = {"raw": 3, "depth": 1, "opacity": 1, "image": 3}
    for name, count in channels.items():
        size = backbone.image_size if name == "image" else backbone.raw_size
        picture = expect_shape(f"render().{name}", getattr(pictures, name), (bench.subjects, 2, count, size, size))
        expect(picture.dtype == bench.dtype, f"render().{name}", str(bench.dtype), picture.dtype)
        expect_finite(f"render().{name}", picture)
    for name in ("raw", "image"):
        _expect_unit_range(f"render().{name}", getattr(pictures, name))
    low, high = float(pictures.opacity.min()), float(pictures.opacity.max())
    expect(low >= -1e-4 and high <= 1 + 1e-4, "render().opacity", "values in [0, 1]", f"{low:.4g} to {high:.4g}")
    nearest = float(pictures.depth.min())
    expect(nearest > 0, "render().depth", "distances above 0", f"{nearest:.4g}")


def _expect_unit_range(what: str, picture: torch.Tensor) -> None:
    low, high = float(picture.min()), float(picture.max())
    outside = float((picture.abs() > 1.01).float().mean())
    # a super-resolution may overshoot at a few edges: clamping it would stop its gradient
    fits = outside <= 0.01 and low >= -1.5 and high <= 1.5
    expect(fits, what, "colours in [-1, 1]", f"{low:.4g} to {high:.4g}, {outside:.1%} outside")
    expect(low < 0, what, "colours in [-1, 1]", f"{low:.4g} to {high:.4g}, which looks like [0, 1]")


def raw_stage_stops_early(bench: RendererBench) -> None:
    """upto="raw" gives the same raw picture and no image."""
    early = bench.render(bench.scene, bench.cameras, "raw")
    expect(early.image is None, 'render(upto="raw").image', "None", "a picture")
    for name in ("raw", "depth", "opacity"):
        what, expected = f'render(upto="raw").{name}', getattr(bench.pictures, name)
        expect_same(what, getattr(early, name), expected, bench.tolerance, "that of the full render")


def raw_comes_at_any_size(bench: RendererBench) -> None:
    """A backbone with the capability `AnySize` keeps its picture at its own size, and shrinks it at half of that."""
    renderer = bench.renderer
    assert isinstance(renderer, AnySize)  # asked for by check_renderer
    with torch.no_grad():
        own, half = (renderer.render_raw(bench.scene, bench.cameras, renderer.raw_size // n) for n in (1, 2))
    expect(own.image is None, "render_raw().image", "None", "a picture")
    for name, expected in own.tensors().items():
        expect_same(f"render_raw().{name}", expected, getattr(bench.pictures, name), bench.tolerance, "that of render")
    side = renderer.raw_size // 2
    expect_shape("render_raw() at half size", half.raw, (bench.subjects, 2, 3, side, side))
    small = F.avg_pool2d(own.raw.flatten(0, 1), 2).view_as(half.raw)
    error = float((small - half.raw).abs().mean())
    expect(error < 0.1, "render_raw() at half size", "about the picture shrunk", f"a mean difference of {error:.3f}")


def field_is_what_render_sees(bench: RendererBench) -> None:
    """A backbone with the capability `Field` is dense where its pictures have a surface, and empty before it."""
    renderer, look = bench.renderer, bench.looks["front"]
    assert isinstance(renderer, Field)  # asked for by check_renderer
    if not bool(look.solid.any()):
        raise NotApplicable("no pixel is opaque")
    size = look.depth.shape[-1]
    origins, directions = (x[0, 0] for x in pixel_rays(look.camera, size, size))
    pixels = look.solid.flatten().nonzero()[:, 0]
    reach = float(renderer.box_side) / 2
    t = look.depth.flatten()[pixels, None] + torch.linspace(-reach, reach, 257).to(look.depth)  # (K, n)
    points = along(origins[pixels], directions[pixels], t)
    with torch.no_grad():
        density, colours = renderer.query({k: v[:1] for k, v in bench.scene.items()}, points.flatten(0, 1)[None])
    expect_shape("query()[0]", density, (1, t.numel()))
    expect_shape("query()[1]", colours, (1, t.numel(), 3))
    expect(bool((density >= 0).all()), "query()[0]", "densities of at least 0", f"{float(density.min()):.4g}")
    optical = density[0].view_as(t).cumsum(1) * (2 * reach / 256)
    inside = renderer.box_side / 20
    before, after = (optical[:, int(128 + sign * inside / (2 * reach) * 256)] for sign in (-1, 1))
    share = float(((before < 1) & (after > 1)).float().mean())
    what = "The optical depth of query along the rays of opaque pixels"
    expect(share > 0.75, what, "to pass 1 within a twentieth of the box of render's depth", f"that for {share:.0%}")


def rendering_repeats(bench: RendererBench) -> None:
    """Equal draws, and no draws, give an equal picture."""
    exact = 0.0 if bench.codes.device.type == "cpu" else 1e-5  # a GPU may choose another kernel
    for draws, which in ((None, "draws=None"), (bench.draws, "equal draws")):
        first = bench.pictures if draws is None else bench.jittered
        second = bench.render(bench.scene, bench.cameras, draws=draws)
        for name, picture in first.tensors().items():
            expect_same(f"render().{name} with {which}", second.tensors()[name], picture, exact, "the same twice")


def subjects_do_not_leak(bench: RendererBench) -> None:
    """A subject looks the same alone and beside others."""
    last = bench.subjects - 1
    with torch.no_grad():
        alone = bench.renderer.scene(bench.codes[last:])
    for name, entry in bench.scene.items():
        expect_same(f"scene[{name!r}] of one subject alone", alone[name], entry[last:], bench.tolerance, "its row")
    cameras = Cameras(bench.cameras.cam2world[last:], bench.cameras.intrinsics[last:])
    single = bench.render(alone, cameras, draws=Draws(0, 0, (last,)))
    for name, picture in bench.jittered.tensors().items():
        what = f"render().{name} of one subject alone, with its own draws"
        expect_same(what, single.tensors()[name], picture[last:], bench.tolerance, "its row")


def views_are_independent(bench: RendererBench) -> None:
    """Several cameras in one call give what each gives alone, with equal draws too."""
    for draws, both in ((None, bench.pictures), (bench.draws, bench.jittered)):
        given = "" if draws is None else " with draws"
        for view in range(2):
            alone = bench.render(bench.scene, bench.camera(view), draws=draws)
            for name, picture in alone.tensors().items():
                expected = both.tensors()[name][:, view : view + 1]
                what = f"render().{name} of camera {view} alone{given}"
                expect_same(what, picture, expected, bench.tolerance, "that of both")


def thrift_changes_nothing(bench: RendererBench) -> None:
    """A backbone with the capability `Thrifty` has the same pictures and gradients in low memory."""
    renderer = bench.renderer
    assert isinstance(renderer, Thrifty)  # asked for by check_renderer
    before, found = renderer.low_memory, []
    try:
        for renderer.low_memory in (False, True):
            scene = {k: v.detach().requires_grad_(v.is_floating_point()) for k, v in bench.scene.items()}
            picture = renderer.render(scene, bench.camera(0), draws=bench.draws)
            total = torch.stack([p.square().mean() for p in picture.tensors().values()]).sum()
            leaves = [entry for entry in scene.values() if entry.requires_grad]
            grown = torch.autograd.grad(total, leaves, allow_unused=True)
            found.append((picture.map(torch.Tensor.detach).tensors(), grown))
    finally:
        renderer.low_memory = before
    (pictures, gradients), (again, others) = found
    for name, shown in pictures.items():
        expect_same(f"render().{name} in low memory", again[name], shown, bench.tolerance, "that without")
    for i, (gradient, other) in enumerate(zip(gradients, others)):
        if gradient is not None and other is not None:
            what = f"The gradient of entry {i} of the scene in low memory"
            expect_same(what, other, gradient, 10 * bench.tolerance, "that without")


def refuses_cameras_of_other_subjects(bench: RendererBench) -> None:
    """A scene and cameras that disagree on the number of subjects raise ShapeError."""
    one = {name: entry[:1] for name, entry in bench.scene.items()}
    for scene, subjects, cameras in ((bench.scene, bench.subjects, 1), (one, 1, bench.subjects)):
        what = f"render of a scene of {subjects} with the cameras of {cameras}"
        got = "a picture"
        try:
            bench.render(scene, bench.orbit([(0.0, 0.0)], subjects=cameras), "raw")
        except ShapeError:
            continue
        except Exception as error:
            got = f"{type(error).__name__}: {error}"
        expect(False, what, "distill3d.errors.ShapeError", got)


CAPABILITY_CHECKS = {
    AnySize: raw_comes_at_any_size,
    Field: field_is_what_render_sees,
    Folding: untrained_changes_fold_to_nothing,
    FromPhotos: photos_name_subjects,
    Parted: parts_are_told_apart,
    Thrifty: thrift_changes_nothing,
}
FORM_CHECKS = (
    declares_itself,
    codes_follow_their_draws,
    seeds_name_subjects,
    scene_has_a_row_per_subject,
    pictures_have_their_form,
    rendering_repeats,
    raw_stage_stops_early,
)
PICTURE_CHECKS = (
    subjects_do_not_leak,
    views_are_independent,
    refuses_cameras_of_other_subjects,
)
