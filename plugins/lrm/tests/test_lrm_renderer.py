"""Reconstruction models as backbones of the core: cameras, rays, and how much is kept for the way back."""

import math
from types import SimpleNamespace

import pytest
import small
import torch
from small import HALF_AXES, MIDDLE, MODELS, code, renderer

from distill3d.cameras import Cameras, look_at, orbit, pinhole
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError
from distill3d.renderer import frozen_copy
from distill3d.testing import check_renderer
from distill3d.testing.saved_bytes import SavedBytes
from distill3d.volume import pixel_rays
from distill3d_lrm import encoder
from distill3d_lrm import renderer as renderer_module
from distill3d_lrm.cache import CodeCache, checksum
from distill3d_lrm.decoder import lookup_of
from distill3d_lrm.renderer import Look

FINE = {"triposr": {"plane_size": 16}, "openlrm": {"triplane_low_res": 16, "triplane_high_res": 32}}
KINDS = pytest.mark.parametrize("kind", list(MODELS))


def cameras(of, *degrees, pitch=0.0, focal=None):
    """(1, V), as far away as the model was trained for."""
    yaw, front = torch.tensor([degrees]).deg2rad(), of.defaults.front
    return orbit(yaw, torch.full_like(yaw, pitch), front.radius, focal or front.focal)


def one_ray(position, target):
    """(1, 1): a camera whose picture of one pixel is the ray to the target."""
    pose = look_at(torch.tensor([[position]]), torch.tensor([[target]]))
    return Cameras(pose, pinhole(1.0, torch.zeros(1))[None, None])


def scene_of(of, seed=0):
    with torch.no_grad():
        return of.scene(code(of, seed))


def egg(of, points):
    """0 in its middle, 1 on its surface."""
    unit = points / (of.box_side / 2)
    return ((unit - torch.tensor(MIDDLE)) / torch.tensor(HALF_AXES)).norm(dim=-1)


def thinned(of):
    """So little density that light comes through."""
    last = of.model.decoder.layers[-1] if hasattr(of.model.decoder, "layers") else of.model.decoder[-1]
    last.weight[0] *= 0.06 if hasattr(of.model.decoder, "layers") else 0.02
    last.bias[0] = -2.0 if hasattr(of.model.decoder, "layers") else -1.0
    return of


@pytest.mark.parametrize("low_memory", [False, True], ids=["graph kept", "low memory"])
@pytest.mark.parametrize(
    ("kind", "sizes"), [("triposr", {"num_samples_per_ray": 24}), ("openlrm", {"rendering_samples_per_ray": 20})]
)
def test_the_contract_of_a_backbone_is_kept(kind, sizes, low_memory, tmp_path):
    photos = small.write_photos(tmp_path)
    report = check_renderer(renderer(kind, subjects=photos, look=Look(low_memory=low_memory), size=20, **sizes))
    assert "0 skipped" in str(report)


# Cameras.


@KINDS
def test_the_subject_is_where_a_canonical_camera_must_see_it(kind):
    """Off the middle in x, y and z, so a yaw the other way, a mirrored or a turned world would move it elsewhere."""
    of = renderer(kind, **FINE[kind])
    seen = cameras(of, 0.0, 50.0, -90.0, 180.0, pitch=0.3)
    with torch.no_grad():
        opacity = of.render(scene_of(of), seen).opacity[0, :, 0]
    place = (torch.arange(32) + 0.5) / 32
    total = opacity.sum((-1, -2))
    found = torch.stack([(opacity.sum(-2) * place).sum(-1) / total, (opacity.sum(-1) * place).sum(-1) / total], -1)
    pose, middle = seen.cam2world[0], torch.tensor(MIDDLE) * of.box_side / 2
    local = torch.einsum("vji,vj->vi", pose[:, :3, :3], middle - pose[:, :3, 3])
    wanted = local[:, :2] / local[:, 2:] * of.defaults.front.focal + 0.5
    assert (wanted - 0.5).abs().max() > 0.06
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)  # a pixel


@KINDS
def test_colours_are_those_of_the_side_that_a_camera_stands_on(kind):
    """Red to the right, green upwards, blue to the front."""
    of = renderer(kind)
    with torch.no_grad():
        front, right, back, left = of.render(scene_of(of), cameras(of, 0.0, 90.0, 180.0, -90.0)).image[0]
    middle = slice(14, 18)
    red, green, blue = range(3)
    assert (right - left)[red, middle, middle].mean() > 0.2
    assert (front - back)[blue, middle, middle].mean() > 0.2
    assert front[green, 8:13, middle].mean() > front[green, 18:23, middle].mean() + 0.2


@KINDS
def test_depth_is_the_distance_in_the_world(kind):
    """What solid pixels see lies on the egg, to a cell of the planes."""
    of = renderer(kind, **FINE[kind])
    seen = cameras(of, 30.0, -120.0, pitch=-0.2)
    with torch.no_grad():
        found = of.render(scene_of(of), seen)
    origins, directions = pixel_rays(seen, 32, 32)
    points = (origins + directions * found.depth.view(1, 2, -1, 1))[0]
    solid = (found.opacity > 0.98).view(2, -1)
    assert solid.sum() > 60
    away = (egg(of, points[solid]) - 1).abs()
    assert away.median() < 0.2 and away.quantile(0.9) < 0.3


@KINDS
def test_the_field_that_is_asked_is_the_one_that_is_seen(kind):
    """Along the box's whole side, where TripoSR's crossing and its world unit agree; at many points, by their sum."""
    of = thinned(renderer(kind))
    scene, side = scene_of(of), of.box_side
    for x, y in ((0.1, 0.05), (-0.15, 0.2)):
        start = [x, y, side]
        with torch.no_grad():
            found = of.render_raw(scene, one_ray(start, [x, y, 0.0]), 1)
            z = side * ((torch.arange(2000) + 0.5) / 2000 - 0.5)
            points = torch.stack([torch.full_like(z, x), torch.full_like(z, y), z], -1)[None]
            density, colours = of.query(scene, points)
        optical = density.sum() * side / 2000
        assert 0.05 < optical < 5
        assert -torch.log1p(-found.opacity).item() == pytest.approx(optical.item(), rel=0.06)
        before = (density.flip(1).cumsum(1) - density.flip(1)) * side / 2000  # the camera stands at +z
        weights = density.flip(1) * (-before).exp() * side / 2000
        colour = (weights[..., None] * colours.flip(1)).sum(1) + (1 - weights.sum(1)[:, None])
        torch.testing.assert_close(found.raw.flatten(), colour.flatten(), atol=0.04, rtol=0)


@KINDS
def test_nothing_lies_outside_of_the_box(kind):
    of = renderer(kind)
    half = of.box_side / 2
    points = torch.tensor([[[1.02, 0, 0], [0, -1.02, 0], [0, 0, 1.5], [9.0, 9, 9]]]) * half
    assert of.query(scene_of(of), points)[0].abs().max() == 0


# Rays.

ODD = {
    "along an axis": [([0.0, 0.0, 2.0], [0.0, 0.0, 0.0]), ([2.0, 0.1, 0.0], [0.0, 0.1, 0.0])],
    "past the box": [([0.0, 0.0, 2.0], [2.0, 0.0, 2.0]), ([2.0, 0.0, 0.0], [2.0, 0.5, -2.0])],
    "away from the box": [([0.0, 0.0, 2.0], [0.0, 0.0, 4.0])],
    "through its edge": [([0.0, 0.0, 2.0], [0.87, 0.87, 0.87]), ([0.0, 0.0, 2.0], [0.5, 0.999, 1.0])],
    "from within": [([0.0, 0.0, 0.0], [0.0, 0.0, -1.0]), ([0.1, 0.05, 0.0], [1.0, 0.3, 0.2])],
    "from a side of the box": [([0.0, 0.0, 0.87], [0.0, 0.0, 0.0]), ([0.0, 0.0, 1.0], [0.0, 0.0, 0.0])],
}


@KINDS
@pytest.mark.parametrize("reference", [False, True], ids=["fast", "literal"])
@pytest.mark.parametrize("low_memory", [False, True], ids=["graph kept", "low memory"])
def test_odd_rays_have_finite_values_and_gradients(kind, reference, low_memory):
    of = renderer(kind, reference=reference, look=Look(low_memory=low_memory, rays_at_once=3))
    seen = [one_ray(*ends) for rays in ODD.values() for ends in rays]
    every = Cameras(torch.cat([c.cam2world for c in seen], 1), torch.cat([c.intrinsics for c in seen], 1))
    planes = scene_of(of)["planes"].requires_grad_(True)
    weights = list(of.model.decoder.parameters())
    for weight in weights:
        weight.requires_grad_(True)
    found = of.render_raw({"planes": planes}, every, 1)
    total = sum(picture.sin().sum() for picture in found.tensors().values())
    assert all(picture.isfinite().all() for picture in found.tensors().values())
    gradients = torch.autograd.grad(total, [planes, *weights])
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].abs().max() > 0
    names = [name for name, rays in ODD.items() for _ in rays]
    nothing = torch.tensor(["past" in name or "away" in name for name in names])
    assert found.opacity[0, nothing].abs().max() == 0
    assert found.raw[0, nothing].min() == 1  # white
    within = torch.tensor([name in ("from within", "along an axis") for name in names])
    assert found.opacity[0, within].min() > 0.8


@KINDS
def test_a_picture_where_every_ray_misses_is_background(kind):
    of = renderer(kind, look=Look(background=0.25))
    away = cameras(of, 0.0)
    away.cam2world[..., :3, :3] *= torch.tensor([-1.0, 1.0, -1.0])  # turned round
    found = of.render(scene_of(of), away)
    assert found.opacity.abs().max() == 0
    assert (found.image + 0.5).abs().max() == 0
    assert (found.depth > of.defaults.front.radius).all() and found.depth.isfinite().all()


@KINDS
def test_three_views_are_three_times_one(kind):
    """Published code crosses a batch of three cameras along the wrong axis."""
    of = renderer(kind, size=8)
    scene, seen = scene_of(of), cameras(of, -70.0, 10.0, 150.0, pitch=0.2)
    with torch.no_grad():
        together = of.render(scene, seen)
        alone = [of.render(scene, Cameras(seen.cam2world[:, v : v + 1], seen.intrinsics[:, :1])) for v in range(3)]
    for name, picture in together.tensors().items():
        torch.testing.assert_close(picture, torch.cat([one.tensors()[name] for one in alone], 1))


@KINDS
def test_what_is_behind_a_camera_in_the_box_is_not_seen(kind):
    of = renderer(kind)
    with torch.no_grad():
        scene = scene_of(of)
        start = [0.95 * of.box_side / 2 * s for s in (-1, -1, 1)]  # a corner of the box, the egg behind it
        away = of.render_raw(scene, one_ray(start, [2 * x for x in start]), 1)
        towards = of.render_raw(scene, one_ray(start, [m * of.box_side / 2 for m in MIDDLE]), 1)
    assert away.opacity.item() < 0.01
    assert towards.opacity.item() > 0.95


# The fast form and the literal one.


def rays(count=60, seed=2):
    """Towards the egg and past it, in the model's own world; one along an axis, one from within, one that misses."""
    generator = torch.Generator().manual_seed(seed)
    origins = torch.nn.functional.normalize(torch.randn(1, count, 3, generator=generator).double(), dim=-1) * 1.9
    aims = torch.rand(1, count, 3, generator=generator).double() * 1.4 - 0.7
    origins[0, :3] = torch.tensor([[1.9, 0.1, 0.2], [0.1, 0.0, 0.0], [1.9, 0.0, 0.0]]).double()
    aims[0, :3] = torch.tensor([[0.0, 0.1, 0.2], [0.3, 0.5, 0.2], [1.9, 1.0, 0.0]]).double()
    return origins, torch.nn.functional.normalize(aims - origins, dim=-1)


@KINDS
def test_the_fast_form_equals_the_literal_one_with_its_gradients(kind):
    """What opaque matter hides is not asked for in the fast form, and nothing shows it."""
    found = []
    for reference in (False, True):
        of = renderer(kind, reference=reference).double()
        planes = scene_of(of)["planes"].requires_grad_(True)
        weights = [weight.requires_grad_(True) for weight in of.model.decoder.parameters()]
        origins, directions = rays()
        numbers = of.model.numbers(Draws(3, 0, (0,)), 60, planes)
        traced = of.model.trace(planes, origins, directions, numbers)
        density, colours = of.model.query(planes, origins + directions * 1.7)
        values = [traced.colour, traced.depth, traced.opacity, (1 + density).log(), colours]
        total = sum(value.sin().sum() for value in values)
        found.append([*values, *torch.autograd.grad(total, [planes, *weights])])
    assert found[0][2].max() > 0.9999 and found[0][2].min() == 0
    for fast, literal in zip(*found):
        torch.testing.assert_close(fast, literal, atol=1e-6, rtol=1e-6)  # published sums add 1e-10 to every factor


def literal_sum(of, planes, origin, direction):
    """One ray of TripoSR, sample by sample from the front to the back, in Python's own numbers."""
    half, n = 0.999 * of.box_side / 2, of.model.config.samples
    near, far = 0.0, math.inf
    for o, d in zip(origin.tolist(), direction.tolist()):
        d = d if abs(d) >= 1e-6 else 1e-6
        near, far = max(near, min((-half - o) / d, (half - o) / d)), min(far, max((-half - o) / d, (half - o) / d))
    light, colour, depth = 1.0, [0.0, 0.0, 0.0], 0.0
    for k in range(n if far - near > 0.01 else 0):
        t = near + (k + 0.5) / n * (far - near)
        raw, rgb = of.model.decode(planes, (origin + t * direction)[None, None])
        alpha = 1 - math.exp(-math.exp(raw.item() - 1.0) / n)
        colour = [c + light * alpha / (1 + math.exp(-x)) for c, x in zip(colour, rgb[0, 0].tolist())]
        depth += light * alpha * t
        light *= 1 - alpha
    return [*colour, depth, 1 - light]


def test_triposr_through_an_opaque_thing_equals_a_sum_over_every_sample():
    of = renderer("triposr").double()
    origins, directions = rays(8)
    with torch.no_grad():
        planes = scene_of(of)["planes"]
        traced = of.model.trace(planes, origins, directions, ())
        found = torch.cat([traced.colour, traced.depth, traced.opacity], -1)[0]
        wanted = [literal_sum(of, planes, o, d) for o, d in zip(origins[0], directions[0])]
    assert found[:, 4].max() > 0.9999 and found[2].abs().max() == 0
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), atol=1e-9, rtol=0)


def test_triposr_does_not_ask_for_what_is_hidden(monkeypatch):
    of, asked = renderer("triposr"), []
    decode = of.model.decode
    monkeypatch.setattr(of.model, "decode", lambda r, points: asked.append(points.shape[1]) or decode(r, points))
    with torch.no_grad():
        of.render(scene_of(of), cameras(of, 0.0, focal=8.0))  # solid all over
    assert 0 < sum(asked) < 0.75 * 32 * 32 * 48


def test_a_density_that_never_ends_hides_all_and_has_finite_slopes():
    of = renderer("triposr")
    last = of.model.decoder.layers[-1]
    last.bias[0] = 1000.0
    planes = scene_of(of)["planes"].requires_grad_(True)
    found = of.render_raw({"planes": planes}, cameras(of, 20.0), 8)
    assert found.opacity.min() == 1
    (gradient,) = torch.autograd.grad(found.raw.sum() + found.depth.sum(), planes)
    assert gradient.isfinite().all()
    density, _ = of.query({"planes": planes}, torch.zeros(1, 1, 3))
    assert density.isfinite().all()


# Memory.


@KINDS
def test_any_number_of_rays_at_once_changes_neither_pictures_nor_gradients(kind):
    draws, found = Draws(3, 1, (0,)), []
    for look in (Look(low_memory=False), Look(rays_at_once=100), Look(rays_at_once=333)):
        of = renderer(kind, look=look, size=16).double()
        weights = list(of.model.decoder.parameters())
        for weight in weights:
            weight.requires_grad_(True)
        scene = {"planes": scene_of(of)["planes"].requires_grad_(True)}
        picture = of.render(scene, cameras(of, 20.0, -20.0), draws=draws)
        total = sum(p.sin().sum() for p in picture.tensors().values())
        gradients = torch.autograd.grad(total, [scene["planes"], *weights])
        with torch.no_grad():
            alone = of.render(scene, cameras(of, 20.0, -20.0), draws=draws)
        found.append([*picture.tensors().values(), *alone.tensors().values(), *gradients])
    for other in found[1:]:
        for one, same in zip(found[0], other):
            torch.testing.assert_close(same, one, atol=1e-9, rtol=1e-7)


def kept_bytes(kind, size, look):
    """What autograd keeps for a render, and the largest graph of the chunks that are made again on the way back.

    Nothing hides anything and every ray crosses the box, so one chunk is as large as another: two are counted.
    """
    of = thinned(renderer(kind, look=look, **WIDE[kind]))
    planes, chunks, traced = scene_of(of)["planes"].requires_grad_(True), [], of._traced

    def counted(*given):
        if len(chunks) < 2:
            with SavedBytes(of.parameters()) as saved:
                aside = traced(*given)
                chunks.append(saved.live)
            del aside
        else:
            chunks.append(0)
        return traced(*given)

    if look.low_memory:
        of._traced = counted
    with SavedBytes(of.parameters()) as whole:
        found = of.render_raw({"planes": planes}, cameras(of, 30.0, focal=5.0), size)
        assert found.raw.requires_grad
        return whole.live + max(chunks, default=0), len(chunks)


WIDE = {"triposr": {"n_neurons": 64, "num_samples_per_ray": 16}, "openlrm": {"rendering_samples_per_ray": 20}}


@KINDS
def test_bytes_for_the_way_back_do_not_grow_with_the_picture(kind):
    look = Look(rays_at_once=2048)
    found = {size: kept_bytes(kind, size, look) for size in (64, 128, 256)}
    assert [chunks for _, chunks in found.values()] == [2, 8, 32]
    kept = [held for held, _ in found.values()]
    assert max(kept) <= 1.05 * min(kept), kept


@KINDS
def test_where_the_graph_is_kept_they_do(kind):
    """So the count above can fail."""
    small_picture, large = (kept_bytes(kind, size, Look(low_memory=False))[0] for size in (16, 32))
    assert large > 3 * small_picture


# The codes of photos.


class Counted:
    """Calls of a model's two stages."""

    def __init__(self, of):
        self.calls = {"tokens": 0, "planes": 0}
        for stage in self.calls:
            setattr(of.model, stage, self._counting(stage, getattr(of.model, stage)))

    def _counting(self, stage, compute):
        def call(*given):
            self.calls[stage] += 1
            return compute(*given)

        return call

    def since(self):
        found, self.calls = self.calls, dict.fromkeys(self.calls, 0)
        return found["tokens"], found["planes"]


def training(of, group):
    of.requires_grad_(False)
    trained = of.trainable(group)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    return trained


@KINDS
@pytest.mark.parametrize(
    ("group", "first", "then"),
    [
        ("decoder", (1, 1), (0, 0)),
        ("adapter", (1, 1), (0, 0)),
        ("upsampler", (1, 1), (0, 1)),
        ("lora", (1, 1), (0, 1)),
        ("default", (1, 1), (0, 1)),
        ("blocks", (1, 1), (0, 1)),
        ("all", (1, 1), (1, 1)),
    ],
)
def test_a_photo_is_encoded_again_only_as_far_as_something_trains(kind, group, first, then):
    of = renderer(kind)
    trained, count = training(of, group), Counted(of)
    planes = of.scene(code(of))["planes"]
    assert count.since() == first
    again = of.scene(code(of))["planes"]
    assert count.since() == then
    torch.testing.assert_close(again, planes, atol=1e-6, rtol=1e-5)
    of.scene(code(of, seed=1))
    assert count.since() == first
    before_planes = [
        name for name in trained if not name.startswith(tuple(f"model.{d}" for d in of.model.parts.decoder))
    ]
    assert planes.requires_grad == bool(before_planes)
    if before_planes:
        wanted = [trained[name] for name in before_planes if "lora_A" not in name]  # behind zeros at first
        gradients = torch.autograd.grad(again.square().sum(), wanted, allow_unused=True)
        assert all(g is not None and g.isfinite().all() for g in gradients)
        assert all(g.abs().max() > 0 for n, g in zip(before_planes, gradients) if "lora_B" in n or ".last." in n)


@KINDS
def test_weights_that_change_in_place_are_seen_and_old_ones_are_remembered(kind):
    of = renderer(kind)
    count, up = Counted(of), next(p for n, p in of.named_parameters() if "upsample" in n and n.endswith("bias"))
    with torch.no_grad():
        before = of.scene(code(of))["planes"]
        up += 0.5
        after = of.scene(code(of))["planes"]
        up -= 0.5
        back = of.scene(code(of))["planes"]
    torch.testing.assert_close(after, before + 0.5)
    assert torch.equal(back, before)
    assert count.since() == (1, 2)


@pytest.mark.parametrize(
    "part", ["tokenizer.embeddings", "backbone.norm.weight", "image_tokenizer.model.layernorm.bias"]
)
def test_what_a_model_remembers_of_its_weights_follows_them(part):
    """Large embeddings: a copy of them lies where the last copy lay."""
    sizes = {"plane_size": 16, "num_channels": 256, "attention_head_dim": 128, "num_layers": 1}
    of = renderer("triposr", **sizes)
    with torch.no_grad():
        for _ in range(4):
            dict(of.model.named_parameters())[part][..., :3].add_(0.3)
            found = of.scene(code(of))["planes"]
            fresh = renderer("triposr", **sizes)
            fresh.load_state_dict(of.state_dict())
            torch.testing.assert_close(found, fresh.scene(code(of))["planes"])


@KINDS
def test_a_changed_copy_and_its_original_are_each_served_their_own(kind):
    of = renderer(kind)
    trained = training(of, "default")
    reference = frozen_copy(of, trained.values())
    assert reference.encoder.cache is of.encoder.cache
    with torch.no_grad():
        original = reference.scene(code(of))["planes"]
        for name, parameter in trained.items():
            if "lora_B" in name:
                parameter.add_(0.1)
        changed = of.scene(code(of))["planes"]
        fresh = renderer(kind)
        training(fresh, "default")
        fresh.load_state_dict(of.state_dict())
        assert torch.equal(changed, fresh.scene(code(of))["planes"])
        assert torch.equal(reference.scene(code(of))["planes"], original)
        assert torch.equal(renderer(kind).scene(code(of))["planes"], original)
    assert (changed - original).abs().max() > 1e-3


def test_models_that_differ_in_their_heads_alone_do_not_share_codes(tmp_path):
    found = []
    for heads in (2, 4):
        of = renderer("triposr", cache=CodeCache(tmp_path), num_attention_heads=heads, attention_head_dim=16 // heads)
        found.append(of.scene(code(of))["planes"])
    assert not torch.equal(*found)


@KINDS
def test_codes_on_disk_are_those_that_were_computed(kind, tmp_path):
    of = renderer(kind, cache=CodeCache(tmp_path))
    computed = of.scene(code(of))["planes"]
    again = renderer(kind, cache=CodeCache(tmp_path))
    count = Counted(again)
    assert torch.equal(again.scene(code(of))["planes"], computed)
    assert count.since() == (0, 0)


@KINDS
def test_the_slope_by_a_picture_is_not_lost_to_what_is_kept(kind, tmp_path):
    of, picture = renderer(kind, cache=CodeCache(tmp_path)), code(renderer(kind))
    of.scene(picture)
    (slope,) = torch.autograd.grad(of.scene(picture.requires_grad_())["planes"].square().sum(), picture)
    assert slope.isfinite().all() and slope.abs().max() > 0


def test_of_weights_that_change_only_those_are_read_again(monkeypatch):
    of, read = renderer("triposr"), []
    monkeypatch.setattr(encoder, "checksum", lambda tensors: read.append(checked := list(tensors)) or checksum(checked))
    changing = of.model.post_processor.upsample.bias
    with torch.no_grad():
        of.scene(code(of))
        assert len(read) > 20
        read.clear()
        changing += 0.5
        of.scene(code(of))
    assert [id(tensor) for (tensor,) in read if isinstance(tensor, torch.nn.Parameter)] == [id(changing)]


def test_codes_on_disk_of_another_release_s_arithmetic_are_computed_again(tmp_path, monkeypatch):
    renderer("triposr", cache=CodeCache(tmp_path)).scene(code(renderer("triposr")))
    again = renderer("triposr", cache=CodeCache(tmp_path))
    monkeypatch.setattr(encoder, "FORMAT", encoder.FORMAT + 1)
    count = Counted(again)
    again.scene(code(again))
    assert count.since() == (1, 1)


def test_more_rays_are_followed_together_on_a_gpu():
    """It starts a step of 512 in as much time as one of thousands."""
    cpu, gpu = (Look(rays_at_once=512).rays(SimpleNamespace(is_cuda=there)) for there in (False, True))
    assert cpu == 512 and gpu == 512 * renderer_module.GPU_RAYS >= 4096


def test_where_every_bit_must_repeat_a_gpu_looks_up_in_a_fixed_order():
    """CUDA's own look-up refuses to go backwards there."""
    here, there = SimpleNamespace(is_cuda=False), SimpleNamespace(is_cuda=True)
    assert (lookup_of(here), lookup_of(there)) == ("fast", "fast")
    torch.use_deterministic_algorithms(True)
    try:
        assert (lookup_of(here), lookup_of(there)) == ("fast", "deterministic")
    finally:
        torch.use_deterministic_algorithms(False)


@KINDS
def test_a_subject_does_not_depend_on_how_many_are_encoded_with_it(kind):
    of = renderer(kind)
    codes = torch.cat([code(of, seed) for seed in range(3)])
    together = of.scene(codes)["planes"]
    alone = torch.cat([renderer(kind).scene(one)["planes"] for one in codes.split(1)])
    assert torch.equal(together, alone)
    assert (together[0] - together[1]).abs().max() > 1e-3


# What cannot be.


def test_what_cannot_be_is_refused():
    of = renderer("triposr")
    with pytest.raises(ShapeError, match="Codes of this backbone"):
        of.scene(torch.zeros(1, 3, 16, 16))
    with pytest.raises(ShapeError, match="A scene of 1 subjects"):
        of.render(scene_of(of), orbit(torch.zeros(2, 1), torch.zeros(2, 1)))
    with pytest.raises(ConfigError, match="background is a grey level"):
        Look(background=1.5)
    for wrong in ({"last_blocks": 0}, {"rays_at_once": 0}):
        with pytest.raises(ConfigError, match="at least 1"):
            Look(**wrong)


def test_the_defaults_of_a_run_are_the_cameras_that_the_model_knows():
    triposr, openlrm = (renderer(kind).defaults for kind in MODELS)
    assert (triposr.front.radius, openlrm.front.radius) == (1.9, 2.0)
    assert triposr.front.focal == pytest.approx(0.5 / math.tan(math.radians(20)))
    assert openlrm.around.focal == 0.75
    assert (triposr.front.yaw, openlrm.around.yaw) == (60, 180)
