"""theta_0 + sum a_i (theta_i - theta_0), exact at its ends."""

import math

import numpy as np
import pytest
import torch

from distill3d.blending import amount_by_name, check_amount, mix
from distill3d.errors import ConfigError
from distill3d.renderer import Parted
from tests.toys import toy

ORIGINAL = {"a": torch.randn(3, 4), "b": torch.randn(5), "c": torch.randn(2)}
ONE = {"a": torch.randn(3, 4), "b": torch.randn(5)}
OTHER = {"a": torch.randn(3, 4), "c": torch.randn(2)}


def every(amount):
    return lambda name: amount


def bits(tensor):
    return tensor.view(torch.int32)


@pytest.mark.parametrize(("amount", "end"), [(0.0, ORIGINAL), (1.0, ONE)])
def test_at_both_ends_one_style_is_bit_for_bit_what_is_there(amount, end):
    mixed = mix(ORIGINAL, [(ONE, every(amount))])
    assert mixed.keys() == ONE.keys()
    assert all(torch.equal(bits(mixed[name]), bits(end[name])) for name in ONE)


def test_the_formula():
    mixed = mix(ORIGINAL, [(ONE, every(0.6)), (OTHER, every(1.3))])
    assert mixed.keys() == ORIGINAL.keys()
    for name, start in ORIGINAL.items():
        expected = start.clone()
        for style, amount in ((ONE, 0.6), (OTHER, 1.3)):
            if name in style:
                expected += amount * (style[name] - start)
        torch.testing.assert_close(mixed[name], expected)


def test_a_style_of_which_there_is_none_leaves_the_other_exact():
    mixed = mix(ORIGINAL, [(ONE, every(1.0)), (OTHER, every(0.0))])
    assert torch.equal(mixed["a"], ONE["a"])
    assert torch.equal(mixed["c"], ORIGINAL["c"])


def test_the_order_of_two_styles_does_not_matter():
    there = mix(ORIGINAL, [(ONE, every(0.5)), (OTHER, every(0.5))])
    back = mix(ORIGINAL, [(OTHER, every(0.5)), (ONE, every(0.5))])
    assert all(torch.allclose(there[name], back[name]) for name in there)


def test_an_amount_may_differ_from_tensor_to_tensor():
    mixed = mix(ORIGINAL, [(ONE, lambda name: float(name == "b"))])
    assert torch.equal(mixed["a"], ORIGINAL["a"])
    assert torch.equal(mixed["b"], ONE["b"])


@pytest.mark.parametrize(
    "amount", [math.nan, math.inf, 1e30, 10**400, "much", None, True, torch.ones(2), {"geometry": math.nan}]
)
def test_what_is_no_amount_is_refused(amount):
    with pytest.raises(ConfigError, match=r"The amount of 'zombie' must be a number"):
        check_amount("zombie", amount)


@pytest.mark.parametrize("amount", [0.5, 1, -0.3, np.float32(0.5), np.int64(1), {"geometry": np.float64(0.1)}])
def test_every_kind_of_number_is_an_amount(amount):
    check_amount("zombie", amount)


def test_a_part_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="parts geometry and texture, got 'hair' for 'zombie'"):
        check_amount("zombie", {"hair": 1.0})


def test_a_part_that_is_not_named_is_left_out():
    class Told(Parted):
        def part_of(self, name):
            return "geometry" if name == "a" else "texture"

    amount = amount_by_name({"texture": 0.7}, Told())
    assert (amount("a"), amount("b")) == (0.0, 0.7)
    assert amount_by_name(0.3, Told())("a") == 0.3


def test_a_backbone_that_cannot_tell_parts_apart_says_so():
    with pytest.raises(ConfigError, match="ToyTriplane does not tell geometry from texture; give one amount"):
        amount_by_name({"geometry": 1.0}, toy())
