"""What trains: each group has its own tensors, leaves every picture as it was, and gets its gradients."""

import pytest
import small
import torch
from small import MODELS, code, renderer

from distill3d.cameras import orbit
from distill3d.errors import UnknownNameError
from distill3d.testing.contract import run_checks
from distill3d.testing.renderer_bench import RendererBench, training_only
from distill3d.testing.weight_checks import WEIGHT_CHECKS
from distill3d_lrm.renderer import DECODER_RATE, Look, LrmRenderer

KINDS = pytest.mark.parametrize("kind", list(MODELS))
GROUPS = ("default", "decoder", "upsampler", "adapter", "lora", "blocks", "all")
EVERY = pytest.mark.parametrize("group", GROUPS)
DECODER = {"triposr": "decoder.layers.", "openlrm": "synthesizer.decoder.net."}
UPSAMPLER = {"triposr": "post_processor.upsample.", "openlrm": "upsampler."}
BLOCK = {"triposr": "backbone.transformer_blocks.", "openlrm": "transformer.layers."}
FEW = {"triposr": {"num_samples_per_ray": 12}, "openlrm": {"rendering_samples_per_ray": 12}}


def quick(kind, **settings):
    return renderer(kind, size=12, **FEW[kind], **settings)


def picture(of):
    yaw = torch.tensor([[0.4, -2.0]])
    front = of.defaults.front
    scene = of.scene(code(of))
    return torch.cat(list(of.render(scene, orbit(yaw, 0 * yaw, front.radius, front.focal)).tensors().values()), 2)


def official(name):
    """The name in the checkpoint of what a group trains."""
    return name.removeprefix("model.").replace(".base_layer", "")


@KINDS
@EVERY
def test_a_group_has_the_tensors_that_its_name_says(kind, group):
    of = quick(kind, look=Look(last_blocks=2))
    checkpoint = set(of.model.state_dict())
    names = set(of.trainable(group))
    own = {official(name) for name in names if ".lora_" not in name and not name.startswith("adapter.")}
    beginnings = {
        "default": (DECODER[kind],),
        "decoder": (DECODER[kind],),
        "upsampler": (UPSAMPLER[kind], DECODER[kind]),
        "adapter": (),
        "lora": (),
        "blocks": tuple(f"{BLOCK[kind]}{i}." for i in (1, 2)),
        "all": ("",),
    }[group]
    unread = {n for n in checkpoint if "pooler" in n}
    assert own == {n for n in checkpoint if beginnings and n.startswith(beginnings)} - unread
    assert any(".lora_" in name for name in names) == (group in ("default", "lora"))
    assert any(name.startswith("adapter.") for name in names) == (group == "adapter")
    assert all(dict(of.named_parameters())[name] is parameter for name, parameter in of.trainable(group).items())


@KINDS
def test_low_rank_changes_lie_at_every_block_s_attention_and_feed_forward(kind):
    of = quick(kind)
    names = [n for n in of.trainable("lora") if "lora_A" in n]
    for block in range(3):
        here = [n for n in names if n.startswith(f"model.{BLOCK[kind]}{block}.")]
        assert len(here) == {"triposr": 10, "openlrm": 6}[kind], here
    assert all(f"model.{BLOCK[kind]}" in name for name in names)


@KINDS
@EVERY
def test_a_group_that_adds_parameters_leaves_every_picture_as_it_was_bit_for_bit(kind, group):
    with torch.no_grad():
        before = picture(quick(kind))
        of = quick(kind)
        assert torch.equal(picture(of), before)
        of.trainable(group)
        assert torch.equal(picture(of), before)
        of.trainable(group)  # and adds them once
        assert torch.equal(picture(of), before)
    for parameter in of.trainable(group).values():
        parameter.requires_grad_(True)
    assert torch.equal(picture(of).detach(), before)  # with a graph, and nothing of it kept


@KINDS
@EVERY
def test_each_group_keeps_the_contract_of_weights(kind, group, tmp_path):
    class OneGroup(LrmRenderer):
        """Whose default is the group."""

        def trainable(self, name="default"):
            return super().trainable(group if name == "default" else name)

    of = quick(kind, subjects=small.write_photos(tmp_path, 2))
    of.__class__ = OneGroup
    bench = RendererBench(of, 2, None)
    with training_only(of, {}):
        report = run_checks(group, WEIGHT_CHECKS, bench)
    assert "0 skipped" in str(report)


@KINDS
@EVERY
def test_every_tensor_of_a_group_moves_the_picture(kind, group):
    """Once what lies behind zeros is no longer behind zeros."""
    of = quick(kind).requires_grad_(False)
    trained = of.trainable(group)
    with torch.no_grad():
        for name, parameter in trained.items():
            if "lora_B" in name or name.startswith("adapter.last"):
                parameter.add_(0.05)
    for parameter in trained.values():
        parameter.requires_grad_(True)
    gradients = torch.autograd.grad(picture(of).sin().sum(), list(trained.values()), allow_unused=True)
    assert not [name for name, gradient in zip(trained, gradients) if gradient is None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    still = [name for name, gradient in zip(trained, gradients) if gradient.abs().max() == 0]
    assert not [name for name in still if ".lora_" in name or "adapter" in name or "upsample" in name]
    assert len(still) < 0.1 * len(trained), still


@KINDS
@pytest.mark.parametrize("group", ["lora", "adapter"])
def test_what_a_group_adds_is_the_same_in_every_process(kind, group):
    """Whatever was drawn before, and nothing else is drawn differently after."""
    torch.manual_seed(1)
    expected = torch.rand(3)
    first, second = quick(kind), quick(kind)
    mine = first.trainable(group)
    torch.manual_seed(1)
    theirs = second.trainable(group)
    assert torch.equal(torch.rand(3), expected)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert any(parameter.abs().max() > 0 for parameter in mine.values())


@KINDS
@pytest.mark.parametrize("group", ["lora", "adapter"])
def test_the_random_numbers_of_gpus_are_left_alone(kind, group, monkeypatch):
    """They are not restored afterwards, as those of the CPU are."""
    of, seeded = quick(kind), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    of.trainable(group)
    assert not seeded


@KINDS
def test_groups_asked_for_one_after_the_other_do_not_mix(kind):
    of = quick(kind)
    alone = {group: {official(n) for n in quick(kind).trainable(group)} for group in GROUPS}
    for group in (*GROUPS, *GROUPS):
        assert {official(n) for n in of.trainable(group)} == alone[group], group


@KINDS
def test_last_blocks_are_the_last_and_at_most_all(kind):
    for count, blocks in ((1, {2}), (2, {1, 2}), (9, {0, 1, 2})):
        names = quick(kind, look=Look(last_blocks=count)).trainable("blocks")
        assert {int(n.removeprefix(f"model.{BLOCK[kind]}").split(".")[0]) for n in names} == blocks


@KINDS
def test_the_decoder_learns_a_tenth_as_fast_beside_low_rank_changes(kind):
    alone, beside = quick(kind), quick(kind)
    assert {alone.rate(name) for name in alone.trainable("upsampler")} == {1.0}
    rates = {name: beside.rate(name) for name in beside.trainable("default")}
    assert {rates[name] for name in rates if ".lora_" in name} == {1.0}
    assert {rates[name] for name in rates if ".lora_" not in name} == {DECODER_RATE} == {0.1}


@KINDS
def test_an_unknown_group_is_refused_with_those_that_there_are(kind):
    of = quick(kind)
    names = set(of.state_dict())
    with pytest.raises(UnknownNameError, match="Did you mean 'decoder'"):
        of.trainable("decoders")
    assert set(of.state_dict()) == names


@KINDS
def test_the_adapter_goes_where_its_renderer_is(kind):
    of = quick(kind).double()
    assert all(p.dtype == torch.float64 for p in of.trainable("adapter").values())
    assert of.scene(code(of))["planes"].dtype == torch.float64
