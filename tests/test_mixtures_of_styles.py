"""Styles mixed like paint: nothing of a style is the original, all of it the run, and judges see what is in between.

The slow tests train a zombie and a pixar of the embedded world, five CPU minutes; with DISTILL3D_TRAINED=DIR they take
DIR/zombie and DIR/pixar, default runs that are there.
"""

import itertools
import sys
from pathlib import Path

import pytest
import torch

from distill3d.models import load
from distill3d.showcase import look
from distill3d.state_dicts import read_state_dict
from tests.varied_runs import two_runs

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import mixtures


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with two_runs(tmp_path_factory.mktemp("runs")) as both:
        yield both


def weights(renderer):
    return {name: tensor.detach() for name, tensor in renderer.state_dict().items()}


def same(one, other):
    """Bit for bit, in all weights and in pictures of two subjects from two sides."""
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    pictures = [look(renderer, (0, 3), (-40.0, 25.0)) for renderer in (one, other)]
    return all(torch.equal(a[name], b[name]) for name in a) and torch.equal(*pictures)


@pytest.mark.parametrize("nothing", [0.0, -0.0, 0, {}, {"geometry": 0.0}])
def test_nothing_of_a_style_is_the_original_bit_for_bit(runs, nothing):
    stylised = load(runs[0])
    assert not same(stylised, stylised.original)
    assert same(stylised.blend({"one": nothing}), stylised.original)
    assert same(stylised.blend({"one": nothing, str(runs[1]): nothing}), stylised.original)


def test_all_of_a_style_is_the_run_bit_for_bit_however_one_came_there(runs):
    """By way of other amounts and of another style nothing drifts: each mixture starts from the original."""
    stylised = load(runs[0])
    trained = read_state_dict(runs[0] / "weights.safetensors")
    back = stylised.blend({"one": 0.3}).blend({str(runs[1]): 0.7}).blend({"one": 1.4}).blend({"two": 0, "one": 1})
    for mixture in (stylised, stylised.blend({"one": 1.0}), back):
        assert same(mixture, stylised)
        found = weights(mixture)
        assert all(torch.equal(found[name], tensor) for name, tensor in trained.items())
    assert same(back.blend({"one": 0.0, "two": 1.0}), load(runs[1]))


@pytest.mark.parametrize("amounts", [(0.6, 0.5), (1.0, 1.0), (1.5, 0.25), (-0.5, 1.0)])
def test_a_mixture_is_the_original_and_so_much_of_each_change(runs, amounts):
    one, two = (load(run) for run in runs)
    base, first, second = (weights(renderer) for renderer in (one.original, one, two))
    found = weights(one.blend({"one": amounts[0], str(runs[1]): amounts[1]}))
    for name, tensor in base.items():
        exact = [each[name].double() - tensor.double() for each in (first, second)]
        expected = tensor.double() + amounts[0] * exact[0] + amounts[1] * exact[1]
        torch.testing.assert_close(found[name].double(), expected, rtol=0, atol=2e-6)
    other_way = weights(two.blend({"two": amounts[1], str(runs[0]): amounts[0]}))
    for name, tensor in found.items():
        torch.testing.assert_close(other_way[name], tensor, rtol=0, atol=2e-6)


def test_each_part_takes_its_own_amount_and_both_at_one_are_the_run(runs):
    stylised = load(runs[0])
    assert same(stylised.blend({"one": {"geometry": 1.0, "texture": 1.0}}), stylised)
    parts = {part: weights(stylised.blend({"one": {part: 1.0}})) for part in ("geometry", "texture")}
    base, trained = weights(stylised.original), weights(stylised)
    for name in base:
        own = stylised.part_of(name)
        other = "texture" if own == "geometry" else "geometry"
        assert torch.equal(parts[own][name], trained[name]) and torch.equal(parts[other][name], base[name])


@pytest.fixture(scope="module")
def court(trained):
    return mixtures.Court(load(trained[0]).original, ["zombie", "pixar"], subjects=32)


@pytest.mark.slow
def test_the_ends_are_bit_for_bit_on_a_trained_run(trained):
    for folder in trained:
        stylised = load(folder)
        name = next(iter(stylised.amounts))
        assert same(stylised.blend({name: 0.0}), stylised.original)
        assert same(stylised.blend({name: 0.5}).blend({name: 1.0}), stylised)
        assert not same(stylised, stylised.original)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1], ids=["zombie", "pixar"])
def test_the_style_judge_sees_more_of_a_style_the_stronger_it_is(trained, court, place):
    stylised, style = load(trained[place]), court.styles[place]
    name = next(iter(stylised.amounts))
    seen = [court.look(stylised.blend({name: strength})) for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for a, b in itertools.pairwise(seen):
        assert a.log_probability[style] < b.log_probability[style]
        assert a.among_styles[style] < b.among_styles[style] + 1e-6
    assert seen[0].probability[style] < 0.01 and seen[-1].probability[style] > 0.95
    assert min(each.identity for each in seen) > 0.9  # all the way each is still itself


@pytest.mark.slow
def test_a_mixture_carries_both_styles_by_the_judges(trained, court):
    """By both judges more of each style than the untouched heads have, and by CLIP than the other style alone has.

    What is half of two styles is, as it was taught, off-distribution to the style judge; among the styles that it
    knows it sees these two.
    """
    mixed = load(trained[0]).blend({str(trained[1]): 0.7})
    one, two = mixed.amounts
    mixture = court.look(mixed.blend({one: 0.8}))
    untouched = court.look(mixed.original)
    alone = {"zombie": court.look(mixed.blend({one: 0.0})), "pixar": court.look(mixed.blend({one: 0.8, two: 0.0}))}
    for style in court.styles:
        assert mixture.log_probability[style] > untouched.log_probability[style] + 0.5
        assert mixture.probability[style] > 2 * untouched.probability[style]
        assert mixture.clip[style] > untouched.clip[style] + 0.15
        assert mixture.clip[style] > alone[style].clip[style] + 0.15
    assert sum(mixture.among_styles.values()) > 0.5 and untouched.off < 0.2 < mixture.off
