"""The networks against numbers of the official ones; every quirk that they reproduce is seen in those numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import distill3d_lrm.dinov2 as dinov2
import distill3d_lrm.observations as observations
import distill3d_lrm.openlrm as openlrm
import distill3d_lrm.openlrm_volume as openlrm_volume
import distill3d_lrm.triposr as triposr
import distill3d_lrm.triposr_volume as triposr_volume
import distill3d_lrm.vit as vit
from distill3d.cameras import Cameras, from_label
from distill3d.draws import Draws
from distill3d.volume import (
    XY_XZ_YZ,
    XY_XZ_ZY,
    blurred,
    composite_samples,
    ray_weights,
    sample_histogram,
    stratified,
    two_pass,
)
from distill3d_lrm.observations import observe
from distill3d_lrm.parity import compare, load_case, main, model_of
from distill3d_lrm.renderer import LrmRenderer

DATA = Path(__file__).parent / "data"
FORMS = pytest.mark.parametrize("reference", [False, True], ids=["fast", "literal"])


def case_of(name, *, reference=False, gradients=False):
    case = load_case(DATA / f"{name}_A.json", reference=reference)
    if gradients:
        return case
    tensors = {n: t for n, t in case.tensors.items() if not n.startswith(("grad_", "probe_"))}
    return replace(case, tensors=tensors, notes={**case.notes, "grad_norms_all_parameters": {}})


def outside(case):
    """Names of the tensors that are not within their limits."""
    return {line.name for line in compare(case, observe(case)) if not line.ok}


@FORMS
@pytest.mark.parametrize("name", ["openlrm", "triposr"])
def test_pictures_what_lies_between_and_gradients_are_the_official_ones(name, reference):
    case = case_of(name, reference=reference, gradients=True)
    lines = list(compare(case, observe(case)))
    assert len(lines) > 120
    assert [str(line) for line in lines if not line.ok] == []


def test_the_command_prints_a_line_for_each_tensor_names_what_was_given_and_counts(capsys):
    paths = [DATA / "openlrm_A.json", DATA / "triposr_A.json"]
    cases = [load_case(path) for path in paths]
    assert main([str(path) for path in paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = [name for case in cases for name in case.wanted]
    given = [name for case in cases for name in case.given]
    assert len(wanted) + len(given) == sum(
        len(case.tensors) + len(case.notes["grad_norms_all_parameters"]) for case in cases
    )
    assert [line.split()[0] for line in lines if line.endswith(" ok")] == wanted
    assert all(name in lines[0] + lines[1 + len(cases[0].wanted)] for name in given)
    assert lines[-1] == f"{len(wanted)} of {len(wanted)} tensors within limits"


def test_a_tensor_outside_of_its_limit_fails_the_command(capsys, monkeypatch):
    monkeypatch.setattr(openlrm, "STRETCH", 0.01)
    assert main([str(DATA / "openlrm_A.json")]) == 1
    said = capsys.readouterr().out.splitlines()
    assert any(line.startswith("query_rgb") and line.endswith("FAILED") for line in said)
    good, _, total, *_ = said[-1].split()
    assert int(good) < int(total)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"salt": "another"}, "is not the weight"),
        ({"model": "LGM"}, "TripoSR or OpenLRM"),
        ({"config": {}}, "encoder_type"),
    ],
)
def test_a_case_that_cannot_be_compared_says_why_and_fails(change, said, tmp_path, capsys):
    path = DATA / "openlrm_A.json"
    (tmp_path / "x.json").write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / "x.safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())
    assert main([str(tmp_path / "x.json"), str(tmp_path / "missing.json")]) == 1
    printed = capsys.readouterr().out
    assert said in printed
    assert "missing.json cannot be compared" in printed
    assert printed.splitlines()[-1] == "0 of 2 tensors within limits"


@pytest.mark.parametrize("name", ["triposr", "openlrm_small", "openlrm_base", "openlrm_large"])
def test_full_size_networks_have_exactly_the_published_keys_and_shapes(name):
    notes = json.loads((DATA / f"fullsize_keys_{name}.json").read_text())
    with torch.device("meta"):
        model = model_of({"model": "TripoSR" if name == "triposr" else "OpenLRM", **notes})
    assert {key: list(x.shape) for key, x in model.state_dict().items()} == dict(notes["keys"])
    assert sum(p.numel() for p in model.parameters()) == notes["parameters"]


def canonical(model, own):
    """Cameras of a model's own world in the canonical one."""
    turn = torch.eye(4)
    turn[:3, :3] = torch.tensor(model.to_own).T
    return Cameras(turn @ own.cam2world, own.intrinsics)


@pytest.mark.parametrize("name", ["openlrm", "triposr"])
def test_the_backbone_renders_the_official_pictures(name):
    """From the case's planes by canonical cameras, its random numbers those of the case: each view has its own."""
    case = case_of(name)
    tensors = case.tensors
    if name == "openlrm":
        own = observations.turned(from_label(tensors["render_cameras"]))
        want = {x: tensors[x][0] for x in ("rgb", "opacity")}
    else:
        every = observations.orbit(case.notes["views"])
        kept = case.notes["view_indices_kept"]
        own = Cameras(every.cam2world[:, kept], every.intrinsics[:, kept])
        want = {"rgb": tensors["rgb"].movedim(-1, 1), "opacity": tensors["opacity"][:, None]}
    given = {"jitter": "draw::draw_00_stratified", "importance": "draw::draw_01_importance_u"}

    class Given(Draws):
        def uniform(self, name, rays, count):
            return tensors[given[name]].reshape(-1, rays, count)[self.step][None]

    renderer = LrmRenderer(case.model, None, raw_size=want["rgb"].shape[-1])
    cameras = canonical(case.model, own)
    with torch.no_grad():
        scene = {"planes": tensors["scene_codes"][:1]}
        for view in range(cameras.cam2world.shape[1]):
            camera = Cameras(*(x[:, view : view + 1] for x in (cameras.cam2world, cameras.intrinsics)))
            picture = renderer.render(scene, camera, upto="raw", draws=Given(0, view, (0,)))
            for found, wanted in ((picture.raw / 2 + 0.5, want["rgb"]), (picture.opacity, want["opacity"])):
                assert (found[0, 0] - wanted[view]).norm() <= 1e-5 * wanted[view].norm()


# OpenLRM: each of these mends what was published, or does it the other usual way.


@FORMS
def test_the_third_plane_spans_z_and_y_in_this_order(reference, monkeypatch):
    monkeypatch.setattr(openlrm, "AXES", XY_XZ_YZ)
    found = outside(case_of("openlrm", reference=reference))
    assert {"query_sigma_raw", "query_rgb", "grid_sigma_act", "rgb"} <= found
    assert "query_plane_features" not in found


def test_jitter_may_carry_the_last_sample_out_of_the_box(monkeypatch):
    def kept_inside(near, far, count, jitter, *, spacing):
        return stratified(near, far, count, jitter, spacing="cells")

    monkeypatch.setattr(openlrm_volume, "stratified", kept_inside)
    assert {"coarse_depths", "coarse_weights", "rgb", "opacity", "depth"} <= outside(case_of("openlrm"))


def test_what_lies_outside_of_the_box_is_empty(monkeypatch):
    monkeypatch.setattr(openlrm_volume, "inside", lambda points: torch.ones_like(points[..., 0], dtype=torch.bool))
    found = outside(case_of("openlrm"))
    assert {"coarse_weights", "opacity"} <= found
    assert "query_sigma_act" not in found  # the official query of points knows no box


def test_density_is_activated_after_the_mean_of_neighbours(monkeypatch):
    def activated_first(t, density):
        active = openlrm_volume.density_of(density)
        return ray_weights((active[..., 1:] + active[..., :-1]) / 2, t.diff(dim=-1))

    monkeypatch.setattr(openlrm_volume, "interval_weights", activated_first)
    found = outside(case_of("openlrm"))
    assert {"coarse_weights", "rgb", "opacity"} <= found
    assert "coarse_depths" not in found


def test_colours_are_means_of_neighbours(monkeypatch):
    def of_the_first_end(t, density, colours, order):
        joined = torch.cat(colours, -2)
        sorted_colours = joined.gather(-2, order[..., None].expand_as(joined))
        weights = openlrm_volume.interval_weights(t, density)
        middle = (t[..., 1:] + t[..., :-1]) / 2
        gathered = (weights[..., None] * sorted_colours[..., :-1, :]).sum(-2)
        return gathered, (weights * middle).sum(-1, keepdim=True), weights.sum(-1, keepdim=True)

    monkeypatch.setattr(openlrm_volume, "_gathered", of_the_first_end)
    assert outside(case_of("openlrm")) == {"rgb"}


def test_the_activation_of_density_is_shifted_by_one(monkeypatch):
    monkeypatch.setattr(openlrm_volume, "density_of", F.softplus)
    found = outside(case_of("openlrm"))
    assert {"coarse_weights", "opacity"} <= found
    assert "query_sigma_act" not in found  # `observations` has its own name for it


def test_colours_reach_a_thousandth_past_black_and_white(monkeypatch):
    monkeypatch.setattr(openlrm, "STRETCH", 0.0)
    found = outside(case_of("openlrm"))
    assert {"query_rgb", "rgb"} <= found
    assert "opacity" not in found


def test_a_camera_gives_the_shift_first_and_then_the_scale(monkeypatch):
    def scale_first(self, x, camera):
        scale, shift = self.mlp(camera)[:, None].chunk(2, -1)
        return self.norm(x) * (1 + scale) + shift

    monkeypatch.setattr(openlrm.ModulatedNorm, "forward", scale_first)
    assert {"triplane_tokens_out", "scene_codes"} <= outside(case_of("openlrm"))


def test_blocks_look_at_the_picture_first_and_then_at_each_other(monkeypatch):
    def self_first(self, x, tokens, camera):
        normed = self.norm2(x, camera)
        x = x + self.self_attn(normed, normed)
        x = x + self.cross_attn(self.norm1(x, camera), tokens)
        return x + self.mlp(self.norm3(x, camera))

    monkeypatch.setattr(openlrm.Block, "forward", self_first)
    found = outside(case_of("openlrm"))
    assert {"triplane_tokens_out", "scene_codes"} <= found
    assert "image_tokens" not in found


def test_registers_lie_behind_the_class_token_and_are_removed_there(monkeypatch):
    monkeypatch.setattr(dinov2.DinoV2, "without_registers", lambda self, tokens: tokens[:, : -self.config.registers])
    found = outside(case_of("openlrm"))
    assert "image_tokens" in found
    assert "dino_tokens_in" not in found


def test_the_position_grid_is_resized_with_antialiasing_and_no_offset(monkeypatch):
    """From 3 x 3 to 4 x 4 antialiasing changes bicubic weights, and the tenth of a cell moves every place."""
    for options in ({"antialias": False}, {"antialias": True, "size": None, "scale_factor": 4.1 / 3}):

        def another(x, size, options=options, **given):
            return F.interpolate(x, **{"size": size, **given, **options})

        with monkeypatch.context() as patch:
            patch.setattr(dinov2, "F", type("F", (), {"interpolate": staticmethod(another), "gelu": F.gelu}))
            assert {"dino_tokens_in", "image_tokens"} <= outside(case_of("openlrm"))


def test_pictures_are_not_normalised():
    case = case_of("openlrm")
    published, tokens = case.model.tokens, observe(case)["image_tokens"]
    mean, deviation = (torch.tensor(x)[:, None, None] for x in (triposr.MEAN, triposr.DEVIATION))
    image = case.tensors["cond_rgb"]
    torch.testing.assert_close(published(image), tokens)
    assert (published((image - mean) / deviation) - tokens).norm() > 0.1 * tokens.norm()


def test_bins_that_are_not_shifted_sample_elsewhere(monkeypatch):
    def unshifted(t, weights, u):
        edges = ((t[..., 1:] + t[..., :-1]) / 2)[..., 1:]
        return sample_histogram(edges, blurred(weights)[..., 1:-1], u)

    monkeypatch.setattr(openlrm_volume, "importance", unshifted)
    found = outside(case_of("openlrm"))
    assert "fine_depths" in found
    assert "coarse_depths" not in found


def test_the_coarse_histogram_is_blurred(monkeypatch):
    monkeypatch.setattr(two_pass, "blurred", lambda weights: weights + 0.01)
    assert "fine_depths" in outside(case_of("openlrm"))


@pytest.mark.parametrize("name", ["openlrm", "triposr"])
def test_gelu_is_exact(name, monkeypatch):
    gelu = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate="none": gelu(x, approximate="tanh"))
    assert {"image_tokens", "scene_codes"} <= outside(case_of(name))


@pytest.mark.parametrize(
    ("name", "part", "seen"),
    [
        ("openlrm", "encoder", "image_tokens"),
        ("openlrm", "transformer", "triplane_tokens_out"),
        ("triposr", "image_tokenizer", "image_tokens"),
        ("triposr", "backbone", "triplane_tokens_out"),
    ],
)
def test_each_norm_has_its_own_epsilon(name, part, seen):
    """A wrong one is below the limits, and well above the distance with the right one."""
    case = case_of(name)

    def distance():
        found = observe(case)[seen]
        return float((found - case.tensors[seen]).norm())

    right = distance()
    for key, norm in case.model.named_modules():
        if key.startswith(part) and isinstance(norm, torch.nn.LayerNorm):
            norm.eps = 1e-5 if norm.eps == 1e-6 else 1e-6
    assert distance() > 3 * right


# TripoSR.


def test_a_position_grid_that_is_resized_to_a_size_gives_the_tokens_of_newer_releases(monkeypatch):
    def to_size(x, scale_factor, **options):
        size = tuple(int(side * scale) for side, scale in zip(x.shape[2:], scale_factor))
        return F.interpolate(x, size, **options)

    case = case_of("triposr")
    monkeypatch.setattr(vit, "F", type("F", (), {"interpolate": staticmethod(to_size), "gelu": F.gelu}))
    found = observe(case)
    assert {"pos_embed_interpolated", "image_tokens", "scene_codes"} <= outside(case)
    for ours, other in (
        ("pos_embed_interpolated", "pos_embed"),
        ("image_tokens", "image_tokens"),
        ("scene_codes", "scene_codes"),
    ):
        want = case.tensors[f"variant_newtf_{other}"]
        assert (found[ours] - want).norm() <= 1e-5 * want.norm()


def test_the_third_plane_of_triposr_spans_y_and_z_in_this_order(monkeypatch):
    monkeypatch.setattr(triposr, "XY_XZ_YZ", XY_XZ_ZY)
    assert {"query_density_raw", "query_color", "rgb"} <= outside(case_of("triposr"))


def test_rays_end_a_thousandth_before_the_box_that_the_planes_span(monkeypatch):
    monkeypatch.setattr(triposr_volume, "INSIDE", 1.0)
    found = outside(case_of("triposr"))
    assert {"ray_near", "ray_far", "rgb", "depth_expected"} <= found
    assert "query_density_raw" not in found


def test_the_length_of_a_ray_does_not_thicken_it(monkeypatch):
    def with_lengths(t, steps, density, values):
        return composite_samples(t, t.diff(dim=-1)[..., :1], density, values)

    monkeypatch.setattr(triposr_volume, "composite_samples", with_lengths)
    assert {"rgb", "opacity", "depth_expected"} <= outside(case_of("triposr"))


def test_the_gate_of_a_feed_forward_network_is_its_second_half(monkeypatch):
    def gate_first(self, x):
        gate, value = self.net[0].proj(x).chunk(2, -1)
        return self.net[2](value * F.gelu(gate))

    monkeypatch.setattr(triposr.FeedForward, "forward", gate_first)
    assert "triplane_tokens_out" in outside(case_of("triposr"))


def test_three_cameras_on_an_orbit_are_as_any_other_number():
    """A cross product of three vectors without a dimension mixes the vectors; the published helper's does."""
    views = {**case_of("triposr").notes["views"], "height": 2, "width": 2}
    three, six = (observations.orbit({**views, "n_views": n}).cam2world[0] for n in (3, 6))
    torch.testing.assert_close(three, six[::2])
