"""Rank weighting: U W U^T S, agreeing with a plain SVD where that has one answer, and harmless where it has none."""

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.objectives.rank import PAPER_WEIGHTS, default_rank_weights, rank_weight

WEIGHTS = torch.tensor(PAPER_WEIGHTS, dtype=torch.float64)


def singular_values(x):
    return torch.linalg.svdvals(x.flatten(2).double())


def test_it_agrees_with_a_plain_svd_of_separated_spectra():
    score = torch.randn(3, 4, 16, 16)
    u, s, v = torch.linalg.svd(score.flatten(2).double(), full_matrices=False)
    plain = (u * (s * WEIGHTS)[:, None] @ v).view_as(score)
    torch.testing.assert_close(rank_weight(score).double(), plain, rtol=1e-6, atol=1e-6)


def test_the_singular_values_come_out_weighted():
    score = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    want = (singular_values(score) * WEIGHTS).sort(descending=True).values
    torch.testing.assert_close(singular_values(rank_weight(score)), want)


def test_weights_of_one_are_the_identity():
    score = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(rank_weight(score, (1, 1, 1, 1)), score)


def test_permuting_pixels_permutes_the_answer():
    score = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    order = torch.randperm(64)
    permute = lambda x: x.flatten(2)[..., order].view_as(x)  # noqa: E731
    torch.testing.assert_close(rank_weight(permute(score)), permute(rank_weight(score)))


@pytest.mark.parametrize("kind", ["zero", "equal singular values", "rank one", "tiny"])
def test_degenerate_scores_stay_finite_and_never_grow(kind):
    score = torch.zeros(1, 4, 8, 8)
    if kind == "equal singular values":
        score.flatten(2)[0, range(4), range(4)] = 1.0
    elif kind == "rank one":
        score = torch.randn(1, 4, 1, 1) * torch.randn(1, 1, 8, 8)
    elif kind == "tiny":
        score = torch.randn(1, 4, 8, 8) * 1e-20
    weighted = rank_weight(score)
    assert weighted.isfinite().all()
    assert (singular_values(weighted) <= singular_values(score) * (1 + 1e-5)).all()
    if kind == "zero":
        assert weighted.abs().max() == 0
    if kind == "rank one":
        torch.testing.assert_close(weighted, score, rtol=1e-4, atol=1e-5)


def test_no_gradient_flows_through_it():
    assert not rank_weight(torch.randn(1, 4, 8, 8, requires_grad=True)).requires_grad


def test_a_nan_stays_visible():
    score = torch.randn(1, 4, 8, 8)
    score[0, 0, 0, 0] = torch.nan
    assert rank_weight(score).isnan().any()


def test_other_channel_counts_need_as_many_weights():
    with pytest.raises(ConfigError, match="16 latent channels, got 4"):
        rank_weight(torch.randn(1, 16, 8, 8))
    weights = default_rank_weights(16)
    assert rank_weight(torch.randn(1, 16, 8, 8), weights).shape == (1, 16, 8, 8)
    assert default_rank_weights(4) == PAPER_WEIGHTS
