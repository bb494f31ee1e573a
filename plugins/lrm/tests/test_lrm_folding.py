"""Low-rank changes as weights of the model before any were put in."""

import pytest
import torch
from small import code, renderer

from distill3d.cameras import orbit
from distill3d.errors import WeightsError
from distill3d_lrm.tiny import load_tiny_lrm

FEW = {"triposr": {"num_samples_per_ray": 12}, "openlrm": {"rendering_samples_per_ray": 12}}
KINDS = pytest.mark.parametrize("kind", ["triposr", "openlrm", "openlrm of one width", "tiny-lrm"])
TOLERANCE = 2e-5  # of pictures: a factor at a time is another order of float32 sums than a whole weight


def load(kind):
    if kind == "tiny-lrm":
        return load_tiny_lrm()
    # An encoder as wide as the transformer: its cross-attention has one fused matrix, else three of their own.
    width = {"encoder_config": WIDE, "encoder_feat_dim": 32} if kind == "openlrm" else {}
    kind = kind.split(" ", maxsplit=1)[0]
    return renderer(kind, size=12, **FEW[kind], **width)


WIDE = {
    "embed_dim": 32,
    "depth": 1,
    "num_heads": 2,
    "img_size": 42,
    "interpolate_antialias": True,
    "interpolate_offset": 0.0,
}


def pictures(of):
    """Raw picture, depth and opacity of one subject by two cameras, one after the other."""
    yaw = torch.tensor([[0.4, -2.0]])
    front = of.defaults.front
    with torch.no_grad():
        scene = of.scene(of.codes_of_seeds([9]) if of.code_shape[1] == 64 else code(of))
        seen = of.render_raw(scene, orbit(yaw, 0 * yaw, front.radius, front.focal), 16)
    return torch.cat([picture.flatten() for picture in seen.tensors().values()])


def changed(of, seed, group="default", amount=0.03):
    """What a run would leave of the group: every tensor moved by so much of its size."""
    draw = torch.Generator().manual_seed(seed)
    trained = of.trainable(group)
    with torch.no_grad():
        for parameter in trained.values():
            size = parameter.square().mean().sqrt().clamp(min=0.1)
            parameter += amount * size * torch.randn(parameter.shape, generator=draw)
    return {name: parameter.detach().clone() for name, parameter in trained.items()}


def up_down(trained, layer):
    return trained[f"{layer}.lora_B.default.weight"] @ trained[f"{layer}.lora_A.default.weight"]


@KINDS
@pytest.mark.parametrize("group", ["default", "lora"])
def test_folded_changes_in_the_original_give_the_pictures_of_the_run(kind, group):
    run, original = load(kind), load(kind)
    names, before = set(original.state_dict()), pictures(original)
    folded = original.folded(changed(run, 0, group))
    assert set(original.state_dict()) == names  # it was asked, not changed
    assert folded.keys() <= names
    assert torch.equal(pictures(original), before)
    original.load_state_dict(folded, strict=False)
    after = pictures(run)
    torch.testing.assert_close(pictures(original), after, atol=TOLERANCE, rtol=0)
    assert (after - before).abs().max() > 100 * TOLERANCE


@KINDS
def test_every_weight_with_a_change_gets_its_own(kind):
    """Nested wrappers, as of three matrices in one attention, are told apart."""
    original = load(kind)
    weights = {name: value.clone() for name, value in original.state_dict().items()}
    folded = original.folded(changed(load(kind), 0, "lora"))
    per_block = {"triposr": 10, "tiny-lrm": 10, "openlrm of one width": 6, "openlrm": 8}[kind]
    assert len(folded) == 3 * per_block
    for name, value in folded.items():
        assert value.shape == weights[name].shape
        assert not torch.equal(value, weights[name])


@KINDS
def test_untrained_changes_are_the_original_weights_bit_for_bit(kind):
    original = load(kind)
    weights = {name: value.clone() for name, value in original.state_dict().items()}
    for group in ("default", "lora", "decoder"):
        trained = {name: value.detach() for name, value in load(kind).trainable(group).items()}
        folded = original.folded(trained)
        assert folded
        assert all(torch.equal(value, weights[name]) for name, value in folded.items())
        assert not any(value.requires_grad for value in folded.values())


@KINDS
def test_it_is_the_same_whether_changes_were_put_in_or_not(kind):
    run, original = load(kind), load(kind)
    trained = changed(run, 0)
    one, other = run.folded(trained), original.folded(trained)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    now = dict(run.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in trained.items())


@KINDS
def test_halves_of_two_runs_are_half_of_each_change(kind):
    original = load(kind)
    weights = original.state_dict()
    first, second = (changed(load(kind), seed, "lora", amount=0.3) for seed in (1, 2))
    a, b = original.folded(first), original.folded(second)
    by_factors = original.folded({name: (first[name] + second[name]) / 2 for name in first})
    layer = "transformer.layers.1.mlp.3" if "openlrm" in kind else "backbone.transformer_blocks.1.attn2.to_v"
    products = [up_down(trained, f"model.{layer}") for trained in (first, second)]
    name = f"model.{layer}.weight"
    mixed = weights[name] + 0.5 * (a[name] - weights[name]) + 0.5 * (b[name] - weights[name])
    expected = weights[name] + 0.5 * (products[0] + products[1])
    torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-5)
    assert (by_factors[name] - expected).abs().max() > 1e-3


@KINDS
def test_the_network_of_the_adapter_and_whole_weights_are_left_as_they_are(kind):
    for group in ("adapter", "upsampler", "blocks"):
        of = load(kind)
        trained = changed(of, 0, group)
        folded = of.folded(trained)
        assert folded.keys() == trained.keys()
        assert all(folded[name] is value for name, value in trained.items())


def test_weights_that_were_trained_beside_changes_lose_only_their_other_name():
    of = load("triposr")
    of.trainable("lora")
    trained = {name: value.detach() for name, value in of.trainable("all").items()}
    assert any(".base_layer." in name for name in trained)
    folded = of.folded(trained)
    assert folded.keys() == load("triposr").trainable("all").keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, first: t.pop(first), "What was trained lacks 1 tensors"),
        (lambda t, first: t.update({first + "x": t[first]}), "1 tensors too many"),
        (lambda t, first: t.update({first: t[first][:-1]}), "this model's is"),
        (lambda t, first: t.update({first: t[first] / 0}), "not finite"),
    ],
)
def test_factors_that_make_no_weight_are_refused(change, said):
    trained = changed(load("triposr"), 0)
    change(trained, next(name for name in trained if ".lora_" in name))
    with pytest.raises(WeightsError, match=said):
        load("triposr").folded(trained)
