"""Which parameters shape a subject, and which colour it: a convention, and what of it the networks decide."""

import pytest
import torch
from heads import blob

from distill3d.cameras import orbit
from distill3d_eg3d.low_rank import MARK

FAMILIES = pytest.mark.parametrize("panohead", [False, True], ids=["eg3d", "panohead"])
SMALL = {"neural_resolution": 16, "samples": 6}


def seen(of):
    yaw = torch.tensor([[0.3, -0.6]])
    with torch.no_grad():
        return of.render(of.scene(of.codes_of_seeds([0])), orbit(yaw, 0 * yaw + 0.1))


@FAMILIES
def test_blocks_from_64_cells_and_all_behind_the_decoder_are_texture(panohead):
    of = blob(panohead=panohead, **SMALL)
    parts = {name.removeprefix("generator."): of.part_of(name) for name, _ in of.named_parameters()}
    texture = {name for name, part in parts.items() if part == "texture"}
    sizes = {int(name.split(".")[2][1:]) for name in texture if name.startswith("backbone.synthesis.")}
    assert sizes == ({64} if panohead else {64, 128, 256})
    behind = ("superresolution.", "decoder.net.2.", "torgb.", "bcg_synthesis.")
    assert texture == {n for n in parts if n.startswith((*behind, *(f"backbone.synthesis.b{s}." for s in sizes)))}
    assert set(parts.values()) == {"geometry", "texture"}


def test_a_change_of_a_weight_belongs_where_the_weight_does():
    of = blob(**SMALL)
    changes = [name for name in of.trainable("low-rank") if name.endswith("up")]
    for name in changes:
        assert of.part_of(name) == of.part_of(name.partition(MARK)[0] + ".weight")
    assert {of.part_of(name) for name in changes} == {"geometry", "texture"}


@FAMILIES
def test_what_lies_behind_the_volume_moves_no_depth(panohead):
    """Super-resolution, PanoHead's raw head and background: texture whatever their weights know."""
    of = blob(panohead=panohead, **SMALL)
    before = seen(of)
    behind = ("superresolution.", "torgb.", "bcg_synthesis.")
    with torch.no_grad():
        for name, parameter in of.generator.named_parameters():
            if name.startswith(behind):
                assert of.part_of(f"generator.{name}") == "texture"
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    after = seen(of)
    assert torch.equal(after.depth, before.depth) and torch.equal(after.opacity, before.opacity)
    assert (after.image - before.image).abs().max() > 0.01
