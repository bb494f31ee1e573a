import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.volume import blurred, even_quantiles, merge, sample_histogram, stratified


def test_without_jitter_cells_give_their_middles_and_edges_their_ends():
    assert stratified(1.0, 3.0, 4).tolist() == [1.25, 1.75, 2.25, 2.75]
    assert stratified(1.0, 3.0, 5, spacing="edges").tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_jittered_samples_stay_in_their_own_cells():
    near, far = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 5.0])
    jitter = torch.rand(2, 8, generator=torch.Generator().manual_seed(0))
    t = stratified(near, far, 8, jitter)
    width = (far - near) / 8
    assert torch.equal(((t - near[:, None]) / width[:, None]).floor(), torch.arange(8.0).expand(2, 8))
    torch.testing.assert_close(t, near[:, None] + (torch.arange(8) + jitter) * width[:, None])


def test_one_shift_for_a_ray_moves_all_its_samples_alike():
    t = stratified(torch.zeros(3), torch.ones(3), 4, torch.tensor([[0.0], [0.25], [0.75]]))
    torch.testing.assert_close(t.diff(), torch.full((3, 3), 0.25))
    torch.testing.assert_close(t[:, 0], torch.tensor([0.0, 0.0625, 0.1875]))


def test_jittered_edges_start_at_near_and_may_pass_far():
    """EG3D's rule: steps of (far - near) / (n - 1), each shifted by up to one step."""
    t = stratified(2.25, 3.3, 4, torch.full((4,), 0.5), spacing="edges")
    torch.testing.assert_close(t, 2.25 + (torch.arange(4) + 0.5) * 0.35)
    assert t[-1] > 3.3


def test_disparity_is_even_in_the_inverse_of_the_distance():
    t = stratified(1.0, 4.0, 4, spacing="edges", disparity=True)
    torch.testing.assert_close(1 / t, torch.tensor([1.0, 0.75, 0.5, 0.25]))


def test_too_few_samples_are_refused():
    with pytest.raises(ConfigError, match="more samples"):
        stratified(1.0, 2.0, 1, spacing="edges")


def test_samples_of_a_histogram_fall_into_its_bins_in_proportion():
    edges = torch.tensor([0.0, 1.0, 3.0, 4.0, 7.0])
    weights = torch.tensor([1.0, 4.0, 0.0, 5.0])
    t = sample_histogram(edges, weights, 10_000, floor=0.0)
    shares = torch.histogram(t, edges).hist / 10_000
    torch.testing.assert_close(shares, weights / 10, atol=2e-4, rtol=0)
    assert (t.diff() >= 0).all()


def test_samples_of_a_histogram_invert_its_cumulative_distribution():
    """Bins [0, 1] with 1/4 and [1, 3] with 3/4: the quantiles follow by hand."""
    u = torch.tensor([0.0, 0.125, 0.25, 0.625, 0.99999])
    t = sample_histogram(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([1.0, 3.0]), u, floor=0.0)
    torch.testing.assert_close(t, torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0]), atol=1e-4, rtol=0)


def test_a_histogram_without_weight_is_sampled_evenly():
    edges = torch.linspace(1, 2, 9)
    torch.testing.assert_close(sample_histogram(edges, torch.zeros(8), 4), 1 + even_quantiles(4, edges))


def test_random_and_even_quantiles_have_the_same_mean():
    edges = torch.linspace(0, 1, 17).expand(2, 17)
    weights = torch.rand(2, 16, generator=torch.Generator().manual_seed(1))
    u = torch.rand(2, 40_000, generator=torch.Generator().manual_seed(2))
    random, even = sample_histogram(edges, weights, u), sample_histogram(edges, weights, 500)
    torch.testing.assert_close(random.mean(-1), even.mean(-1), atol=5e-3, rtol=0)


def test_histogram_gradients_are_those_of_finite_differences():
    g = torch.Generator().manual_seed(3)
    weights = torch.rand(2, 5, generator=g, dtype=torch.float64).requires_grad_()
    edges = torch.rand(2, 6, generator=g, dtype=torch.float64).cumsum(-1).requires_grad_()
    u = torch.rand(2, 7, generator=g, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda e, w: sample_histogram(e, w, u), (edges, weights))


def test_edges_must_be_one_more_than_weights():
    with pytest.raises(ConfigError, match=r"n \+ 1 edges"):
        sample_histogram(torch.rand(4), torch.rand(4), 3)


def test_blurring_widens_a_peak_by_half_of_it_on_either_side():
    peak = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]])
    torch.testing.assert_close(blurred(peak), torch.tensor([[0.01, 0.51, 1.01, 0.51, 0.01]]))


def test_merging_sorts_distances_and_tells_the_order_of_the_values():
    coarse, fine = torch.tensor([[1.0, 3.0, 5.0]]), torch.tensor([[4.0, 2.0]])
    t, order = merge(coarse, fine)
    assert t.tolist() == [[1.0, 2.0, 3.0, 4.0, 5.0]]
    assert torch.equal(torch.cat([10 * coarse, 10 * fine], -1).gather(-1, order), 10 * t)
