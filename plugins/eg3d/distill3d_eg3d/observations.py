"""Everything that the reference data records of one pass, recorded of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from distill3d.cameras import from_label
from distill3d.volume import mean_depth, pixel_rays
from distill3d_eg3d.generator import Generator
from distill3d_eg3d.volume import Traced, cropped, ray_limits, trace

if TYPE_CHECKING:
    from distill3d_eg3d.parity import Case

Observed = dict[str, Tensor]
LOSSES = {"1": ("image",), "2": ("image_raw", "image_depth", "image_mask")}  # by number, what they project


def observe(case: Case) -> Observed:
    """Run the case's network on its inputs; every name that the reference data may have."""
    inputs = {name.removeprefix("input."): value for name, value in case.tensors.items() if name.startswith("input.")}
    found = _codes(case.generator, case.notes, inputs)
    run = Pass(case.generator, case.notes["call"]["noise_mode"], inputs)
    with torch.no_grad():
        found |= run.observed(found["ws"], case.tensors)
        found |= _planes(run.planes, run.blocks, int(case.notes["plane_stride"]))
        found |= _field(case.generator, run.planes, inputs, case.tensors)
        if case.generator.architecture.background:
            found |= run.without_background(found["ws"])
        if case.generator.architecture.family == "panohead":
            found |= _all_in_one(case, inputs, found)
    # At the reference's own ws: a rounding of ws can move a leaky ReLU across its kink, and the slope with it.
    found |= _gradients(case, inputs, case.tensors.get("ws", found["ws"]))
    return found


def _codes(generator: Generator, notes: Mapping[str, Any], inputs: Mapping[str, Tensor]) -> Observed:
    call = notes["call"]
    truncation = {"psi": call["truncation_psi"], "cutoff": call["truncation_cutoff"]}
    z, label = inputs["z"], inputs["c_cond"]
    found = {
        "ws": generator.ws(z, label, **truncation),
        "ws_nontrunc": generator.ws(z, label)[:, :1],
    }
    if generator.architecture.family == "panohead":
        offset = generator.offset(z, label, **truncation)
        found["delta_c"] = offset
        # as released: where the mapping is told no camera, the camera that comes back is none either
        shown = torch.zeros_like(label) if generator.architecture.label_zero else label
        found["apply_delta_c.c_new"] = moved(shown, offset)
    return found


def moved(label: Tensor, offset: Tensor) -> Tensor:
    """Labels (N, 25) of cameras shifted by (N, 3) world units."""
    new = label.clone()
    new[:, [3, 7, 11]] += offset
    return new


class Pass:
    """One synthesis with everything in between kept."""

    def __init__(self, generator: Generator, noise: str, inputs: Mapping[str, Tensor]):
        self.generator, self.noise, self.inputs = generator, noise, inputs
        self.cameras = from_label(inputs["c"][:, None])
        self.blocks: dict[str, tuple[Tensor, Tensor]] = {}
        self.upscaled: list[tuple[Tensor, Tensor, Tensor]] = []  # by each block of super-resolution

    def volume(self, ws: Tensor) -> Traced:
        """Planes and rays."""
        g = self.generator
        size = g.architecture.neural_resolution
        self.planes = g.planes(ws, self.noise, lambda name, x, picture: self.blocks.update({name: (x, picture)}))
        self.origins, self.directions = (x[:, 0] for x in pixel_rays(self.cameras, size, size))
        n, rays = self.origins.shape[:2]
        jitter = self.inputs["u_coarse"].reshape(n, rays, -1)
        u = self.inputs.get("u_fine", jitter[:0]).reshape(n, rays, g.architecture.samples_importance)
        field = cropped(g.field(self.planes), g.architecture)
        limits = ray_limits(self.origins, self.directions, g.architecture)
        return trace(field, self.origins, self.directions, *limits, jitter, u, g.architecture, reference=g.reference)

    def pictures(self, ws: Tensor) -> Observed:
        """The outputs; depth is clamped to the whole batch's sample distances, as released."""
        g = self.generator
        size = g.architecture.neural_resolution
        self.traced = ray = self.volume(ws)
        depth = mean_depth(ray.depth, ray.opacity, ray.nearest.min(), ray.farthest.max())
        features, opacity, depth = (
            x.transpose(1, 2).unflatten(2, (size, size)) for x in (ray.features, ray.opacity, depth)
        )
        self.features, self.opacity = features, opacity
        background = (
            g.resized_background(g.flat_background(ws, self.noise), size) if g.architecture.background else None
        )
        self.given = g.raw_picture(features, opacity, ws, background)
        image = g.superresolution(self.given.raw, self.given.features, ws[:, -1], run=self._run)
        found = {"image_raw": self.given.raw, "image_depth": depth, "image": image}
        if g.architecture.family == "panohead":
            found["image_mask"] = opacity * (1 + 2 * 0.001) - 0.001
        return found

    def _run(self, block: torch.nn.Module, *inputs: Any) -> tuple[Tensor, Tensor]:
        """A block of super-resolution; keeps what it made."""
        result = block(*inputs)
        self.upscaled.append((inputs[1], *result))
        return result

    def observed(self, ws: Tensor, wanted: Mapping[str, Tensor]) -> Observed:
        """Outputs and what lies between; `wanted` says how sparsely."""
        outputs = self.pictures(ws)
        (_, x0, picture0), _ = self.upscaled
        found = {**outputs, **_rays(self, wanted), "sr_rgb_in": outputs["image_raw"]}
        found |= _summary("sr_x_in", self.given.features, wanted, stride=4)
        for name, x in (("sr_b0_x", x0), ("sr_b0_img", picture0)):
            found |= _summary(name, x, wanted)
        found |= _final(outputs["image"])
        found["image_raw"] = self.altered(outputs["image_raw"], picture0)
        if self.generator.architecture.background:
            found |= _summary("bcg", self.generator.flat_background(ws, self.noise), wanted)
        return found

    def altered(self, raw: Tensor, first: Tensor) -> Tensor:
        """As released, the first block of super-resolution adds its picture to a raw render of its size in place."""
        return first if _pollutes(self.generator, raw) else raw

    def without_background(self, ws: Tensor) -> Observed:
        given = self.generator.raw_picture(self.features, self.opacity, ws)
        self.upscaled.clear()
        image = self.generator.superresolution(given.raw, given.features, ws[:, -1], run=self._run)
        return {
            "nobg.image_raw": self.altered(given.raw, self.upscaled[0][2]),
            "nobg.image_stats": _stats(image),
            "nobg.image_stride8": image[..., 4::8, 4::8],
        }


def _pollutes(generator: Generator, raw: Tensor) -> bool:
    """Whether super-resolution works on the raw picture itself: neither resized nor doubled before the addition."""
    network = generator.superresolution
    return not network.block0.up and network.resized(raw) is raw


def _rays(run: Pass, wanted: Mapping[str, Tensor]) -> Observed:
    """Along the rays; only every so many where the reference data has fewer than all."""
    every = run.origins.shape[1]
    step = max(1, every // 64)
    ray, (even, weights, second) = run.traced, run.traced.passes
    sigmoid = run.generator.architecture.family == "eg3d"  # EG3D's marcher scales to [-1, 1], PanoHead's does not
    found = {
        "depths_coarse": even[..., None],
        "depths_fine": second[..., None],
        "w_coarse": weights[..., None],
        "render_rgb": ray.features * 2 - 1 if sigmoid else ray.features,
        "render_depth": mean_depth(ray.depth, ray.opacity, ray.nearest.min(), ray.farthest.max()),
        "render_wsum": ray.opacity,
    }
    sparse = {name for name in found if name in wanted and wanted[name].shape[1] < every}
    found = {name: x[:, ::step] if name in sparse else x for name, x in found.items()}
    return {**found, "ray_origins_sub": run.origins[:, ::step], "ray_directions_sub": run.directions[:, ::step]}


def _field(
    generator: Generator, planes: Tensor, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Observed:
    if "points" not in wanted:
        return {}
    density, values = generator.field(planes)(wanted["points"])
    return {"points": wanted["points"], "points_sigma": density[..., None], "points_rgb": values}


def _planes(planes: Tensor, blocks: Mapping[str, tuple[Tensor, Tensor]], stride: int) -> Observed:
    flat = planes.flatten(2, 3) if planes.ndim == 6 else planes
    half = flat.shape[-1] // 2
    found = {
        "planes_stats": _stats(flat),
        "planes_stride": flat[..., stride // 2 :: stride, stride // 2 :: stride],
        "planes_crop": flat[:1, ..., half : half + 8, 0:8],
    }
    for name, (x, picture) in blocks.items():
        found[f"backbone.{name}.x_stats"] = _stats(x)
        found[f"backbone.{name}.img_stats"] = _stats(picture)
    if "b8" in blocks:
        found["backbone.b8.x"], found["backbone.b8.img"] = (x[:1] for x in blocks["b8"])
    return found


def _all_in_one(case: Case, inputs: Mapping[str, Tensor], found: Observed) -> Observed:
    """PanoHead's G(z, c): the shifted conditioning camera renders."""
    moved_inputs = {**inputs, "c": found["apply_delta_c.c_new"]}
    run = Pass(case.generator, case.notes["call"]["noise_mode"], moved_inputs)
    outputs = run.pictures(found["ws"])
    outputs["image_raw"] = run.altered(outputs["image_raw"], run.upscaled[0][2])
    return {f"forward_full_call.{name}": outputs[name] for name in ("image", "image_raw", "image_mask")}


def _gradients(case: Case, inputs: Mapping[str, Tensor], ws: Tensor) -> Observed:
    """Of two random projections of the outputs, with respect to ws and some weights."""
    names = [name for name in case.tensors if name.startswith(("grad1.", "grad2."))]
    if not names:
        return {}
    ws = ws.detach().requires_grad_()
    weights = dict(case.generator.named_parameters())
    leaves = {"ws": ws, **{name: weights[name].requires_grad_() for name in case.notes["grad_params"]}}
    outputs = Pass(case.generator, case.notes["call"]["noise_mode"], inputs).pictures(ws)
    losses = {number: _projected(case, outputs, names) for number, names in LOSSES.items()}
    found: Observed = {}
    for number, loss in losses.items():
        found[f"loss{number}"] = loss.detach().reshape(1)
        gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
        found |= {f"grad{number}.{name}": g for name, g in zip(leaves, gradients) if g is not None}
    case.generator.requires_grad_(False)
    return found


def _projected(case: Case, outputs: Observed, names: Sequence[str]) -> Tensor:
    parts = [
        (outputs[name] * case.normals(f"loss/{name}", tuple(outputs[name].shape))).sum()
        for name in names
        if name in outputs
    ]
    return torch.stack(parts).sum()


def _summary(name: str, x: Tensor, wanted: Mapping[str, Tensor], stride: int | None = None) -> Observed:
    """Statistics of each channel, and the pixels in the middles of as many squares as the reference data has."""
    found = {f"{name}_stats": _stats(x)}
    if (some := wanted.get(f"{name}_stride")) is not None:
        stride = stride or max(1, x.shape[-1] // max(1, some.shape[-1]))
        found[f"{name}_stride"] = x[..., stride // 2 :: stride, stride // 2 :: stride]
    return found


def _final(image: Tensor) -> Observed:
    return {
        "image_stats": _stats(image),
        "image_view0": image[:1],
        "image_stride4": image[..., 2::4, 2::4],
    }


def _stats(x: Tensor) -> Tensor:
    """(..., C, h, w) to (..., C, 4): mean, unbiased standard deviation, smallest and largest."""
    flat = x.flatten(-2)
    return torch.stack([flat.mean(-1), flat.std(-1), flat.amin(-1), flat.amax(-1)], -1)
