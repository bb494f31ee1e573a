"""The packs that come with the examples: whole, on the embedded base, and of the styles that they say."""

import itertools
import sys
from pathlib import Path

import pytest
import torch

from distill3d.models import load, load_mixture
from distill3d.packs.copies import check_whole
from distill3d.packs.pack import open_pack
from distill3d.showcase import look

ROOT = Path(__file__).parents[1]
PACKS = ROOT / "examples" / "space" / "packs"
STYLES = ("zombie", "pixar")
sys.path.insert(0, str(ROOT / "benchmarks"))

import mixtures  # noqa: E402


@pytest.fixture(scope="module")
def court():
    return mixtures.Court(load(PACKS / "zombie").original, STYLES, subjects=8)


@pytest.mark.parametrize("style", STYLES)
def test_it_is_whole_small_and_shows_what_it_makes(style):
    pack = open_pack(PACKS / style)
    check_whole(pack)
    assert (pack.style, pack.backbone.name, pack.backbone.weights_name) == (style, "tiny", "embedded")
    assert sum(path.stat().st_size for path in pack.folder.iterdir()) < 2_000_000
    assert {part.licence for part in pack.parts} == {"Apache-2.0"}
    model = load(pack.folder)
    assert torch.equal(look(model.blend({style: 0}), [4], [20.0]), look(model.original, [4], [20.0]))


@pytest.mark.parametrize("style", STYLES)
def test_the_style_judge_sees_more_of_it_the_stronger_it_is(court, style):
    model = load(PACKS / style)
    seen = [court.look(model.blend({style: strength})) for strength in (0.0, 0.5, 1.0)]
    for weaker, stronger in itertools.pairwise(seen):
        assert weaker.log_probability[style] < stronger.log_probability[style]
    assert seen[0].probability[style] < 0.01 and seen[-1].probability[style] > 0.9
    assert seen[-1].identity == 1.0


def test_mixed_both_are_seen(court):
    """By CLIP; the style judge was taught to say "off-distribution" of what is half of two."""
    mixed = court.look(load_mixture({str(PACKS / "zombie"): 0.8, str(PACKS / "pixar"): 0.7}))
    untouched = court.look(load(PACKS / "zombie").original)
    for style in STYLES:
        assert mixed.clip[style] > untouched.clip[style] + 0.15
        assert mixed.log_probability[style] > untouched.log_probability[style] + 0.5
