"""Draws are functions of seed, step, subject and name, and of nothing else."""

import torch

from distill3d.draws import Draws


def test_subjects_draw_the_same_in_any_company_and_order():
    both = Draws(0, 3, (0, 1)).normal("noise", 4)
    assert torch.equal(both[[1, 0]], Draws(0, 3, (1, 0)).normal("noise", 4))
    assert torch.equal(both[:1], Draws(0, 3, (0,)).normal("noise", 4))


def test_each_part_of_the_key_matters():
    a = Draws(0, 3, (0,)).normal("noise", 8)
    others = [Draws(1, 3, (0,)), Draws(0, 4, (0,)), Draws(0, 3, (1,)), Draws(0, 3, (0,)).scoped("grid")]
    assert not any(torch.equal(a, other.normal("noise", 8)) for other in others)
    assert not torch.equal(a, Draws(0, 3, (0,)).normal("jitter", 8))


def test_the_global_random_state_is_neither_read_nor_moved():
    torch.manual_seed(5)
    first = torch.rand(3)
    torch.manual_seed(5)
    drawn = Draws(0, 0, (0, 1)).uniform("camera", 2)
    assert torch.equal(first, torch.rand(3))
    assert torch.equal(drawn, Draws(0, 0, (0, 1)).uniform("camera", 2))


def test_ranges_and_shapes():
    draws = Draws(0, 0, tuple(range(300)))
    uniform, integers = draws.uniform("u", 2, 3), draws.integers("i", 5)
    assert uniform.shape == (300, 2, 3)
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert set(integers.tolist()) == set(range(5))
    assert abs(draws.normal("n", 50).mean()) < 0.05
