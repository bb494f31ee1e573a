"""Everything that the reference data records of one pass, recorded of ours."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill3d.cameras import Cameras, from_label
from distill3d.volume import mean_depth, pixel_rays, sample_planes
from distill3d_lrm import triposr_volume
from distill3d_lrm.openlrm import AXES, OpenLRM
from distill3d_lrm.openlrm_volume import Marched, box_limits, density_of, march
from distill3d_lrm.preparation import composited, foreground_square, resized
from distill3d_lrm.triposr import TripoSR

if TYPE_CHECKING:
    from distill3d_lrm.parity import Case

Observed = dict[str, Tensor]
GRADIENT, GRADIENT_NORM = "grad_param::", "grad_norms_all_parameters::"


def observe(case: Case) -> Observed:
    """Run the case's network on its inputs; every name that the reference data may have."""
    run: TripoSRPass | OpenLRMPass
    if isinstance(case.model, TripoSR):
        run = TripoSRPass(case.model, case.notes, case.tensors)
    else:
        assert isinstance(case.model, OpenLRM)
        run = OpenLRMPass(case.model, case.notes, case.tensors)
    with torch.no_grad():
        found = {**run.inputs(), **run.network(), **run.rays(), **run.pictures(run.codes), **run.field()}
    if "probe_rgb_weight" in case.tensors:
        found |= _gradients(case, run)
    return found


def _gradients(case: Case, run: TripoSRPass | OpenLRMPass) -> Observed:
    """Of a random projection of the pictures, from the photo on: the first subject's planes and all parameters."""
    # On the reference's own rays: a rounding of a ray can move a sample across a kink of a ReLU, and the slope with it.
    run.origins, run.directions = (case.tensors[name].reshape(run.origins.shape) for name in ("rays_o", "rays_d"))
    codes = run.scene_codes()
    loss = (run.pictures(codes)["rgb"] * case.tensors["probe_rgb_weight"]).sum()
    weights = dict(case.model.named_parameters())
    first, *others = torch.autograd.grad(loss, [codes, *weights.values()], allow_unused=True)
    found = {"grad_scene_codes_0": first[0]}
    for name, gradient in zip(weights, others):
        if gradient is not None:
            found[GRADIENT + name] = gradient
        found[GRADIENT_NORM + name] = torch.zeros(()).double() if gradient is None else gradient.double().norm()
    return found


class TripoSRPass:
    """One reconstruction by TripoSR, and pictures of the first subject."""

    def __init__(self, model: TripoSR, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]):
        self.model, self.notes, self.tensors = model, notes, tensors
        self.image = self._prepared()
        views, self.size = notes["views"], (notes["views"]["height"], notes["views"]["width"])
        cameras = orbit(views)
        origins, directions = pixel_rays(cameras, *self.size)  # (1, V, h*w, 3)
        kept = notes["view_indices_kept"]
        self.origins, self.directions = origins[:, kept].flatten(1, 2), directions[:, kept].flatten(1, 2)

    def _prepared(self) -> Tensor:
        """(2, 3, S, S): a cut-out, as the published script prepares it, and a picture that is only resized."""
        side = self.model.image_size
        self.square = foreground_square(self.tensors["input_rgba_u8"].numpy(), self.notes["foreground_ratio"])
        self.composite = composited(self.square, 0.5, True)
        return torch.stack(
            [resized(x, side, "antialiased") for x in (self.composite, self.tensors["input_image1_rgb"])]
        )

    def inputs(self) -> Observed:
        return {
            "resized_foreground_rgba_u8": torch.from_numpy(self.square),
            "composited_rgb_u8": (self.composite * 255).round().to(torch.uint8),
            "cond_rgb": self.image.movedim(1, -1),
        }

    def scene_codes(self) -> Tensor:
        return self.model.planes(self.model.tokens(self.image))

    def network(self) -> Observed:
        model = self.model
        grid = model.image_size // model.config.vit.patch_size
        tokens = model.tokens(self.image)
        self.codes = model.planes(tokens)
        return {
            "vit_embeddings": model.embed(self.image),
            "pos_embed_interpolated": model.image_tokenizer.model.embeddings.positions(grid, grid),  # type: ignore
            "image_tokens": tokens,
            "triplane_tokens_in": model.tokenizer_tokens(),
            "triplane_tokens_out": model.plane_tokens(tokens),
            "scene_codes": self.codes,
        }

    def rays(self) -> Observed:
        near, far, valid = triposr_volume.box_limits(self.origins, self.directions, self.model.config.radius)
        found = {"rays_o": self.origins, "rays_d": self.directions}
        found |= {"ray_near": near[..., None], "ray_far": far[..., None], "ray_valid_u8": valid[..., None].byte()}
        return {name: self._picture(x) for name, x in found.items()}

    def _picture(self, x: Tensor) -> Tensor:
        """(1, V * h * w, C) to (V, h, w, C), without C for one."""
        return x[0].unflatten(0, (-1, *self.size)).squeeze(-1)

    def pictures(self, codes: Tensor) -> Observed:
        model = self.model
        planes = codes[:1]
        rays = self.origins.shape[1]
        traced = model.trace(planes, self.origins, self.directions, model.numbers(None, rays, planes))
        found = {"rgb": traced.colour + 1 - traced.opacity, "opacity": traced.opacity, "depth_expected": traced.depth}
        return {name: self._picture(x) for name, x in found.items()}

    def field(self) -> Observed:
        model, bias = self.model, self.model.config.density_bias
        planes = self.codes[:1]
        raw, colour = model.decode(planes, self.tensors["query_points"][None])
        grid, _ = model.decode(planes, cube(self.notes["grid_resolution"], model.config.radius))
        return {
            "query_density_raw": raw[0, :, None],
            "query_density_act": triposr_volume.density_of(raw, bias)[0, :, None],
            "query_features_raw": colour[0],
            "query_color": colour[0].sigmoid(),
            "grid_density_act": _cubed(triposr_volume.density_of(grid, bias)),
        }


class OpenLRMPass:
    """One reconstruction by OpenLRM, and pictures of the first subject."""

    def __init__(self, model: OpenLRM, notes: Mapping[str, Any], tensors: Mapping[str, Tensor]):
        self.model, self.notes, self.tensors = model, notes, tensors
        self.side = notes["views"]["region_size"]
        self.origins, self.directions = self._rays()
        views, rays = self.origins.shape[:2]
        draws = [tensors[name] for name in sorted(tensors) if name.startswith("draw::")]
        self.jitter, self.u = (x.reshape(views, rays, -1) for x in draws)
        self.image = self._prepared()

    def _prepared(self) -> Tensor:
        """(2, 3, S, S): a cut-out, and a picture of which only the result is known."""
        levels = composited(self.tensors["input_rgba_u8"].numpy(), 1.0, False)
        first = resized(levels, self.model.image_size, "bicubic")
        return torch.cat([first[None], self.tensors["cond_rgb"][1:]])

    def _rays(self) -> tuple[Tensor, Tensor]:
        """Of every view's patch of a picture of its own size, (V, side^2, 3)."""
        found = []
        labels, sizes = self.tensors["render_cameras"][0], self.tensors["render_resolutions"].flatten().int()
        for label, corner, size in zip(labels, self.tensors["render_anchors"][0].int(), sizes.tolist()):
            camera = turned(from_label(label[None, None]))
            row, column = corner.tolist()
            whole = torch.stack(pixel_rays(camera, size, size))[:, 0, 0].unflatten(1, (size, size))
            found.append(whole[:, row : row + self.side, column : column + self.side].flatten(1, 2))
        origins, directions = torch.stack(found, 1)
        return origins, directions

    def inputs(self) -> Observed:
        return {"cond_rgb": self.image}

    def scene_codes(self) -> Tensor:
        return self.model.planes(self.model.tokens(self.image), self.tensors["source_camera"])

    def network(self) -> Observed:
        model, camera = self.model, self.tensors["source_camera"]
        tokens = model.tokens(self.image)
        self.codes = model.planes(tokens, camera)
        return {
            "dino_tokens_in": model.encoder["model"].embed(self.image),  # type: ignore[operator]
            "image_tokens": tokens,
            "camera_embedding": model.camera_embedding(camera),
            "triplane_tokens_out": model.plane_tokens(tokens, camera),
            "scene_codes": self.codes,
        }

    def rays(self) -> Observed:
        near, far = box_limits(self.origins, self.directions)
        hit = near <= far
        return {
            "rays_o": self.origins,
            "rays_d": self.directions,
            "ray_near_raw": torch.where(hit, near, -1.0),
            "ray_far_raw": torch.where(hit, far, -2.0),
        }

    def pictures(self, codes: Tensor) -> Observed:
        """The whole call at once: a ray that misses has limits of the others, and all depths are clamped together."""
        ray = self._marched(codes)
        every = torch.cat([ray.even, ray.second], -1)
        depth = mean_depth(ray.depth, ray.opacity, every.min(), every.max())
        white = self.tensors["render_bg_colors"].reshape(-1, 1, 1)
        views = len(self.origins)
        colour, opacity, depth = (x.unflatten(1, (views, -1))[0] for x in (ray.colour, ray.opacity, depth))
        found = {"rgb": colour + white * (1 - opacity), "opacity": opacity, "depth": depth}
        found = {name: x.mT.unflatten(-1, (self.side, self.side))[None] for name, x in found.items()}
        steps = {"coarse_depths": ray.even, "coarse_weights": ray.weights, "fine_depths": ray.second}
        return {**found, **{name: x.unflatten(1, (views, -1))[0] for name, x in steps.items()}}

    def _marched(self, codes: Tensor) -> Marched:
        model = self.model
        limits = shared_limits(self.origins, self.directions)
        flat = [x.flatten(0, 1)[None] for x in (self.origins, self.directions, *limits, self.jitter, self.u)]
        origins, directions, near, far, jitter, u = flat
        field = model.field(codes[:1])
        return march(field, origins, directions, (near, far), jitter, u, reference=model.reference)

    def field(self) -> Observed:
        model, points = self.model, self.tensors["query_points"]
        field = model.field(self.codes[:1])
        raw, colour = field(points)
        grid, _ = field(cube(self.notes["grid_resolution"], model.box_side / 2))
        return {
            "query_plane_features": sample_planes(self.codes[:1], points, AXES, model.box_side).mT,
            "query_sigma_raw": raw[..., None],
            "query_sigma_act": density_of(raw)[..., None],
            "query_rgb": colour,
            "grid_sigma_act": _cubed(density_of(grid)),
        }


def shared_limits(origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """As published: a ray that misses starts where the first of the others starts and ends where the last *starts*."""
    near, far = box_limits(origins, directions)
    hit = near <= far
    if not hit.any():
        return near, far
    return torch.where(hit, near, near[hit].min()), torch.where(hit, far, near[hit].max())


def turned(cameras: Cameras) -> Cameras:
    """Cameras whose axes are OpenGL's (y up, z backward), with OpenCV's."""
    return Cameras(cameras.cam2world * cameras.cam2world.new_tensor([1.0, -1.0, -1.0, 1.0]), cameras.intrinsics)


def orbit(views: Mapping[str, Any]) -> Cameras:
    """TripoSR's cameras around the origin, (1, V), z up, the first on the x axis."""
    count, elevation = views["n_views"], math.radians(views["elevation_deg"])
    azimuth = torch.arange(count) * (2 * math.pi / count)
    level = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros(count)], -1)
    up = torch.tensor([0.0, 0.0, 1.0])
    position = views["camera_distance"] * (level * math.cos(elevation) + up * math.sin(elevation))
    forward = F.normalize(-position, dim=-1)
    right = F.normalize(torch.linalg.cross(forward, up.expand_as(forward), dim=-1), dim=-1)
    down = torch.linalg.cross(forward, right, dim=-1)
    pose = torch.eye(4).repeat(count, 1, 1)
    pose[:, :3] = torch.stack([right, down, forward, position], -1)
    focal = 0.5 / math.tan(math.radians(views["fovy_deg"]) / 2)
    lens = torch.tensor([[focal * views["height"] / views["width"], 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    return Cameras(pose[None], lens.expand(1, count, 3, 3))


def cube(count: int, half: float) -> Tensor:
    """(1, count^3, 3): a grid from -half to half, the last axis fastest."""
    steps = torch.linspace(-half, half, count)
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1, -1, 3)


def _cubed(x: Tensor) -> Tensor:
    side = round(x.shape[1] ** (1 / 3))
    return x.reshape(side, side, side)
