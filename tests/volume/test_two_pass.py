"""Two passes of samples gathered with and without sorting what was found."""

import torch

from distill3d.volume import gathered, gathered_in_order, interval_weights, merge


def test_giving_weights_to_samples_is_as_good_as_sorting_what_they_found():
    even, more = (torch.rand(2, 3, n, dtype=torch.double).sort().values for n in (5, 4))
    values = [torch.randn(2, 3, n, 6, dtype=torch.double) for n in (5, 4)]
    t, order = merge(even, more)
    density = torch.randn(2, 3, 9, dtype=torch.double)
    activation = torch.nn.functional.softplus
    sorted_ = gathered_in_order(t, density, values, order, activation)
    weighted = gathered(t, interval_weights(t, density, activation), values, order)
    for one, other in zip(weighted, sorted_):
        torch.testing.assert_close(one, other)
