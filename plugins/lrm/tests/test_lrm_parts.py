"""Which parameters shape a subject, and which colour it; on the embedded model, of a change that it has learnt."""

import pytest
import torch
from small import MODELS, renderer

from distill3d.cameras import orbit
from distill3d.testing.part_checks import apart
from distill3d.tiny.world import identity_from_codes, render_heads, style_rows
from distill3d_lrm.tiny import load_tiny_lrm

KINDS = pytest.mark.parametrize("kind", list(MODELS))
DECODER = {"triposr": "model.decoder.layers.", "openlrm": "model.synthesizer.decoder.net."}
LAST = {"triposr": {2, 4}, "openlrm": {2, 4, 6}}  # layers after the first; those between are activations
STEPS, SIZE = 6, 32


@KINDS
def test_the_decoder_is_texture_but_for_the_layer_that_reads_the_planes(kind):
    of = renderer(kind, size=12)
    texture = {name for name, _ in of.named_parameters() if of.part_of(name) == "texture"}
    assert texture == {f"{DECODER[kind]}{i}.{end}" for i in LAST[kind] for end in ("weight", "bias")}


@KINDS
@pytest.mark.parametrize("group", ["default", "adapter", "upsampler", "all"])
def test_every_tensor_that_a_run_leaves_belongs_to_a_part(kind, group):
    of = renderer(kind, size=12)
    found = of.folded({name: value.detach() for name, value in of.trainable(group).items()})
    parts = {of.part_of(name) for name in found}
    assert parts == ({"geometry"} if group == "adapter" else {"geometry", "texture"})


def views(*yaw, subjects=1):
    angles = torch.tensor(yaw).expand(subjects, -1)
    return orbit(angles, torch.full_like(angles, 0.1))


@pytest.fixture(scope="module")
def learnt():
    """A few steps towards the true pictures of one head as a zombie stand for a run: the folded change."""
    torch.set_flush_denormal(True)
    of = load_tiny_lrm()
    codes, cameras = of.codes_of_seeds([0]), views(0.0, 0.8)
    pictures, _, _ = render_heads(identity_from_codes(of.world_codes([0])), style_rows(["zombie"]), cameras, SIZE)
    trained = of.trainable()
    of.requires_grad_(False)
    rates = [{"params": [p.requires_grad_(True)], "lr": of.defaults.lr * of.rate(name)} for name, p in trained.items()]
    steps = torch.optim.Adam(rates)
    for _ in range(STEPS):
        steps.zero_grad()
        (of.render_raw(of.scene(codes), cameras, SIZE).raw - (2 * pictures - 1)).square().mean().backward()
        steps.step()
    yield {name: value.detach() for name, value in of.folded(trained).items()}
    torch.set_flush_denormal(False)


@torch.no_grad()
def test_on_the_embedded_model_the_split_keeps_shape_and_colour_apart_as_documented(learnt):
    of = load_tiny_lrm()
    before = {name: value.clone() for name, value in of.state_dict().items()}
    codes = of.codes_of_seeds([5])

    def seen(change):
        of.load_state_dict({**before, **change})
        return of.render_raw(of.scene(codes), views(0.4, -1.0), SIZE)

    def part(wanted):
        return seen({name: value for name, value in learnt.items() if of.part_of(name) == wanted})

    def moved(pictures, beside):
        return [apart(pictures, beside, of) / apart(whole, original, of) for of in ("depth", "raw")]

    original, whole, texture, geometry = seen({}), seen(learnt), part("texture"), part("geometry")
    depth, colour = moved(texture, original)
    assert depth < 0.2 and colour > 2 * depth  # texture alone colours
    assert moved(geometry, whole)[0] < 0.2  # geometry alone has the whole shape
    assert moved(geometry, original)[0] > 4 * depth
