"""The moving average is the closed-form sum of the weights that it saw; swapping it in leaves nothing behind."""

import pytest
import torch

from distill3d.training.average import follow, swapped


def test_far_along_it_is_the_exponential_sum_of_what_it_saw():
    torch.manual_seed(0)
    weights = torch.randn(50, 3, dtype=torch.float64)
    average, start, decay = {"w": torch.zeros(3, dtype=torch.float64)}, 10_000, 0.9
    for i, value in enumerate(weights):
        follow(average, {"w": value}, decay, start + i)
    shares = (1 - decay) * decay ** torch.arange(49, -1, -1, dtype=torch.float64)
    torch.testing.assert_close(average["w"], (shares[:, None] * weights).sum(0))


def test_early_on_it_forgets_where_it_started():
    average = {"w": torch.full((1,), 100.0)}
    for step in range(40):
        follow(average, {"w": torch.zeros(1)}, 0.999, step)
    assert float(average["w"]) < 1e-3  # with a decay of .999 from the start it would be 96


def test_equal_weights_stay_as_they_are():
    average = {"w": torch.full((1,), 0.5)}
    follow(average, {"w": torch.full((1,), 0.5)}, 0.7, 3)
    assert float(average["w"]) == 0.5


def test_inside_the_weights_are_the_average_and_afterwards_themselves_also_after_an_error():
    parameter, average = torch.nn.Parameter(torch.tensor([1.0, 2.0])), {"w": torch.tensor([5.0, 6.0])}
    with swapped(average, {"w": parameter}):
        assert parameter.tolist() == [5.0, 6.0]
    assert parameter.tolist() == [1.0, 2.0]
    with pytest.raises(KeyError), swapped(average, {"w": parameter}):
        raise KeyError
    assert parameter.tolist() == [1.0, 2.0]
    assert average["w"].tolist() == [5.0, 6.0]


def test_without_an_average_nothing_is_swapped():
    parameter = torch.nn.Parameter(torch.ones(1))
    with swapped(None, {"w": parameter}):
        assert parameter.tolist() == [1.0]
