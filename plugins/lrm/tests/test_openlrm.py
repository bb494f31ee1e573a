"""OpenLRM's network: what its config may say, how it sees, and that every ray and every subject is its own."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from distill3d.cameras import look_at
from distill3d.draws import Draws
from distill3d.errors import ShapeError, WeightsError
from distill3d_lrm.dinov2 import DinoV2, DinoV2Config
from distill3d_lrm.openlrm import OpenLRM, OpenLRMConfig, source_camera
from distill3d_lrm.openlrm_volume import march, ray_limits

DATA = Path(__file__).parent / "data"
BASE = json.loads((DATA / "fullsize_keys_openlrm_base.json").read_text())["config"]
SMALL = OpenLRMConfig(
    encoder=DinoV2Config(dim=24, layers=1, heads=2, trained_size=42),
    camera_channels=20,
    channels=24,
    heads=2,
    layers=2,
    plane_size=4,
    plane_channels=5,
    samples=16,
    image_size=28,
)


def model(*, reference=False, **sizes):
    """With enough density that rays meet something."""
    torch.manual_seed(0)
    made = OpenLRM(replace(SMALL, **sizes), reference=reference).eval()
    with torch.no_grad():
        made.upsampler.weight *= 30
        made.decoder[-1].bias[0] = 2.0
    return made


def planes_of(made, subjects=2):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return made.planes(made.tokens(torch.rand(subjects, 3, 28, 28, generator=generator)))


def rays(subjects=2, count=40):
    """From outside of the box towards points in it."""
    generator = torch.Generator().manual_seed(2)
    origins = nn.functional.normalize(torch.randn(subjects, count, 3, generator=generator), dim=-1) * 2.5
    aims = torch.rand(subjects, count, 3, generator=generator) * 1.6 - 0.8
    return origins, nn.functional.normalize(aims - origins, dim=-1)


def numbers_of(made, subjects=2, count=40):
    return made.numbers(Draws(3, 0, tuple(range(subjects))), count, torch.zeros(subjects))


# Its config.


@pytest.mark.parametrize(
    ("name", "channels", "image", "picture", "samples", "encoder"),
    [
        ("small", 512, 224, 192, 96, 384),
        ("base", 768, 336, 288, 96, 768),
        ("large", 1024, 448, 384, 128, 768),
    ],
)
def test_the_published_variants_have_their_sizes(name, channels, image, picture, samples, encoder):
    values = json.loads((DATA / f"fullsize_keys_openlrm_{name}.json").read_text())["config"]
    found = OpenLRMConfig.from_dict(values)
    assert (found.channels, found.image_size, found.picture_size, found.samples) == (channels, image, picture, samples)
    assert found.encoder.dim == encoder


def test_the_defaults_are_the_base_checkpoint():
    assert OpenLRMConfig.from_dict(BASE) == OpenLRMConfig()


def test_another_size_of_picture_can_be_given():
    assert OpenLRMConfig.from_dict(BASE, image_size=224).image_size == 224
    assert OpenLRMConfig.from_dict({**BASE, "source_image_size": 448}).image_size == 448


@pytest.mark.parametrize("name", [key for key in BASE if key != "encoder_freeze"])
def test_a_config_without_one_of_its_entries_is_refused_by_name(name):
    with pytest.raises(WeightsError, match=name):
        OpenLRMConfig.from_dict({key: value for key, value in BASE.items() if key != name})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder_type": "dino"}, "encoder_type"),
        ({"encoder_model_name": "facebook/dino-vitb16"}, "encoder_model_name"),
        ({"encoder_feat_dim": 384}, "encoder_feat_dim is 768"),
        ({"transformer_heads": 7}, "do not divide"),
        ({"transformer_dim": "768"}, "transformer_dim"),
        ({"transformer_dim": 49152}, "at most 8192"),
        ({"transformer_layers": True}, "transformer_layers"),
        ({"transformer_layers": 10_000}, "at most 128"),
        ({"triplane_low_res": -32}, "triplane_low_res"),
        ({"triplane_high_res": 128}, "twice triplane_low_res"),
        ({"triplane_low_res": 2048, "triplane_high_res": 4096}, "at most 256"),
        ({"rendering_samples_per_ray": 97}, "even"),
        ({"rendering_samples_per_ray": 2}, "from 8 to 4096"),
        ({"source_image_size": 300}, "whole patches"),
    ],
)
def test_a_config_of_something_else_is_refused(change, said):
    with pytest.raises(WeightsError, match=said):
        OpenLRMConfig.from_dict({**BASE, **change})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"interpolate_antialias": False}, "antialiasing"),
        ({"interpolate_offset": 0.1}, "antialiasing"),
        ({"norm_eps": 1e-5}, "norm_eps"),
        ({"qkv_bias": False}, "qkv_bias"),
        ({"num_heads": 5}, "do not divide"),
        ({"depth": 60_000}, "layers of an encoder's config is at most 128"),
        ({"img_size": 60_000}, "trained_size"),
    ],
)
def test_an_encoder_of_another_kind_is_refused(change, said):
    values = json.loads((DATA / "openlrm_A.json").read_text())["encoder_config"]
    assert DinoV2Config.from_dict(values).dim == 32
    with pytest.raises(WeightsError, match=said):
        DinoV2Config.from_dict({**values, **change})


def test_an_encoder_config_that_is_no_mapping_is_refused():
    with pytest.raises(WeightsError, match="by name, got str"):
        OpenLRMConfig.from_dict(BASE, "dinov2_vitb14_reg")  # type: ignore[arg-type]


# Its network.


@pytest.mark.parametrize("width", [24, 32])
def test_attention_to_the_picture_is_torch_multi_head_attention(width):
    """The oracle has the same keys, whether its matrices are one or three."""
    ours = model(encoder=replace(SMALL.encoder, dim=width)).transformer.layers[0].cross_attn
    theirs = nn.MultiheadAttention(24, 2, bias=False, kdim=width, vdim=width, batch_first=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x, tokens = torch.randn(2, 7, 24), torch.randn(2, 5, width)
    torch.testing.assert_close(ours(x, tokens), theirs(x, tokens, tokens, need_weights=False)[0])


def test_the_input_picture_is_seen_by_the_canonical_front_camera():
    made = OpenLRM.to_own
    to_own = torch.tensor(made)
    assert torch.linalg.det(to_own) == 1
    pose = look_at(torch.tensor([0.0, 0.0, OpenLRM.camera_radius]), torch.zeros(3))
    own = torch.cat([to_own @ pose[:3, :3] @ torch.diag(torch.tensor([1.0, -1, -1])), to_own @ pose[:3, 3:]], 1)
    torch.testing.assert_close(source_camera(own)[0, :12].reshape(3, 4), own)


def test_planes_take_another_camera_and_the_canonical_one_is_the_default():
    made = model()
    tokens = made.tokens(torch.rand(2, 3, 28, 28))
    camera = source_camera(tokens)
    torch.testing.assert_close(made.planes(tokens), made.planes(tokens, camera.expand(2, -1)))
    other = camera + torch.tensor([[0.0], [0.3]])
    found = made.planes(tokens, other)
    torch.testing.assert_close(found[0], made.planes(tokens)[0])
    assert (found[1] - made.planes(tokens)[1]).norm() > 1e-3 * found[1].norm()
    with pytest.raises(ShapeError, match="camera"):
        made.planes(tokens, camera[:, :12])


def test_the_encoder_refuses_pictures_that_are_not_whole_patches():
    with pytest.raises(ShapeError, match="14 divides"):
        DinoV2(SMALL.encoder)(torch.zeros(1, 3, 30, 28))


def test_each_subject_has_the_planes_that_it_has_alone():
    made = model()
    pictures = torch.rand(3, 3, 28, 28)
    together = made.planes(made.tokens(pictures))
    assert together.shape == (3, 3, 5, 8, 8)
    for number in range(3):
        torch.testing.assert_close(made.planes(made.tokens(pictures[number : number + 1]))[0], together[number])


def test_training_groups_name_parameters_that_exist_and_low_rank_changes_reach_every_block():
    made = model(encoder=replace(SMALL.encoder, dim=32))
    names, modules = dict(made.named_parameters()), dict(made.named_modules())
    parts = made.parts
    assert len(parts.blocks) == SMALL.layers
    for start in (*parts.decoder, *parts.upsampler, *parts.blocks):
        assert any(name.startswith(start) for name in names)
    linear = {name for name in modules if name.endswith(parts.low_rank_modules)}
    fused = {name for name in names if name.endswith(parts.low_rank_parameters)}
    assert all(isinstance(modules[name], nn.Linear) for name in linear)
    ends = ("cross_attn.out_proj", "self_attn.out_proj", "mlp.0", "mlp.3")
    assert linear == {block + end for block in parts.blocks for end in ends}
    matrices = ("self_attn.in_proj_weight", *(f"cross_attn.{x}_proj_weight" for x in "qkv"))
    assert fused == {block + end for block in parts.blocks for end in matrices}


@pytest.mark.parametrize("width", [24, 32])
def test_low_rank_changes_by_peft_are_nothing_at_first_and_reach_every_matrix(width):
    made = model(encoder=replace(SMALL.encoder, dim=width)).requires_grad_(False)
    picture = torch.rand(1, 3, 28, 28)
    before = made.planes(made.tokens(picture))
    parts = made.parts
    inject_adapter_in_model(
        LoraConfig(r=2, target_modules=list(parts.low_rank_modules), target_parameters=list(parts.low_rank_parameters)),
        made,
    )
    torch.testing.assert_close(made.planes(made.tokens(picture)), before)
    trained = {name: p for name, p in made.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * SMALL.layers * (6 if width == 24 else 8)
    torch.nn.init.normal_(next(p for name, p in trained.items() if "lora_B" in name))
    assert not torch.equal(made.planes(made.tokens(picture)), before)


# Its renders.


def test_the_fast_form_is_the_literal_one_to_rounding():
    fast, literal = model(), model(reference=True)
    planes, numbers, points = planes_of(fast), numbers_of(fast), torch.rand(2, 50, 3) * 2.4 - 1.2
    for one, other in zip(
        (
            *vars(fast.trace(planes, *rays(), numbers)).values(),
            *fast.query(planes, points),
        ),
        (*vars(literal.trace(planes, *rays(), numbers)).values(), *literal.query(planes, points)),
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reference", [False, True], ids=["fast", "literal"])
def test_a_ray_is_the_same_whichever_rays_are_traced_with_it(reference):
    made = model(reference=reference)
    planes, numbers = planes_of(made), numbers_of(made)
    origins, directions = rays()
    origins[:, 7] = 5.0  # one that misses: published code would give it limits of the others
    together = made.trace(planes, origins, directions, numbers)
    assert together.opacity.max() > 0.5
    some = slice(5, 12)
    alone = made.trace(planes[1:], origins[1:, some], directions[1:, some], tuple(x[1:, some] for x in numbers))
    for one, all_of_them in zip(vars(alone).values(), vars(together).values()):
        torch.testing.assert_close(one, all_of_them[1:, some])


@pytest.mark.parametrize("reference", [False, True], ids=["fast", "literal"])
def test_rays_that_miss_run_along_an_axis_or_start_within_are_finite_with_finite_slopes(reference):
    made = model(reference=reference)
    planes = planes_of(made, 1).requires_grad_()
    starts = [
        ([0, -2, 0], [0, 1, 0]),  # along an axis
        ([1, -2, 0.5], [0, 1, 0]),  # within a side of the box
        ([1, -2, 1], [0, 1, 0]),  # along an edge
        ([0, -2, 0], [0, -1, 0]),  # away from it
        ([3, -2, 0], [0, 1, 0]),  # past it
        ([0.2, 0.1, 0], [0, 0, 1]),  # from within
        ([-2, -2, 0], [0.5**0.5, 0.5**0.5, 0]),  # across, through an edge
        ([-2, 0, 0], [0.5**0.5, 0.5**0.5, 0]),  # touching an edge
        ([1, 1, 1], [0, 0, 1]),  # from a corner, away
    ]
    origins, directions = (
        torch.tensor([[ray[i] for ray in starts]], dtype=torch.float32).requires_grad_() for i in (0, 1)
    )
    for numbers in (numbers_of(made, 1, len(starts)), made.numbers(None, len(starts), planes)):
        traced = made.trace(planes, origins, directions, numbers)
        loss = sum((x * torch.linspace(1, 2, x.shape[1])[None, :, None]).sum() for x in vars(traced).values())
        gradients = torch.autograd.grad(loss, [planes, origins, directions, *made.decoder.parameters()])
        assert all(x.isfinite().all() for x in (*vars(traced).values(), *gradients))
        assert traced.opacity.min() >= 0 and traced.opacity.max() <= 1
        assert traced.opacity[0, [3, 4, 8]].abs().max() == 0
        assert traced.opacity[0, [0, 5, 6]].min() > 0.1


def test_three_subjects_and_three_rays_are_no_special_case():
    made = model()
    planes = planes_of(made, 3)
    origins, directions = rays(3, 3)
    numbers = made.numbers(None, 3, planes)
    together = made.trace(planes, origins, directions, numbers)
    for s in range(3):
        alone = made.trace(
            planes[s : s + 1], origins[s : s + 1], directions[s : s + 1], made.numbers(None, 3, planes[:1])
        )
        torch.testing.assert_close(alone.colour[0], together.colour[s])


def test_opacity_is_that_of_the_way_through_the_box_in_own_units():
    """A homogeneous cube: 1 - exp(-sigma * length), whichever way a ray goes through it."""
    raw = 0.6
    sigma = nn.functional.softplus(torch.tensor(raw - 1))
    origins, directions = rays(1, 30)
    near, far = ray_limits(origins, directions)
    jitter, u = torch.zeros(1, 30, 400), torch.rand(1, 30, 400, generator=torch.Generator().manual_seed(4))

    def field(points):
        return torch.full_like(points[..., 0], raw), torch.full_like(points, 0.25)

    for reference in (False, True):
        ray = march(field, origins, directions, (near, far), jitter, u, reference=reference)
        expected = 1 - torch.exp(-sigma * (far - near))
        torch.testing.assert_close(ray.opacity[..., 0], expected, rtol=0, atol=0.005)  # an end may fall outside
        torch.testing.assert_close(ray.colour, 0.25 * ray.opacity.expand(-1, -1, 3))
        mean = ray.depth / ray.opacity
        assert ((mean[..., 0] > near) & (mean[..., 0] < (near + far) / 2)).all()


def test_numbers_are_a_function_of_the_subject_and_middles_without_draws():
    made, like = model(), torch.zeros(2, 3, 5, 8, 8)
    both = made.numbers(Draws(7, 1, (4, 9)), 6, like)
    alone = made.numbers(Draws(7, 1, (9,)), 6, like[:1])
    assert [x.shape for x in both] == [(2, 6, 8), (2, 6, 8)]
    assert not torch.equal(*both)
    for one, other in zip(alone, both):
        assert torch.equal(one[0], other[1])
    jitter, u = made.numbers(None, 6, like)
    assert (jitter == 0.5).all()
    torch.testing.assert_close(u, ((torch.arange(8) + 0.5) / 8).expand(2, 6, 8))


def test_a_query_has_density_in_the_box_alone_and_colours_within_0_and_1():
    made = model()
    planes = planes_of(made)
    points = torch.rand(2, 300, 3) * 3 - 1.5
    density, colours = made.query(planes, points)
    within = (points.abs() <= 1).all(-1)
    assert (density[within] > 0).all()
    assert (density[~within] == 0).all() and (~within).any()
    assert colours.min() >= 0 and colours.max() <= 1
    raw, unclamped = made.field(planes)(points)
    torch.testing.assert_close(density[within], nn.functional.softplus(raw - 1)[within])
    torch.testing.assert_close(colours, unclamped.clamp(0, 1))
    assert (raw[~within] != 0).all()  # the bare field goes on
