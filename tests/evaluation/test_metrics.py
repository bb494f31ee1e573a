"""Every metric: its identities, limits and invariances, and a slow plain reference where there is one."""

import itertools
import math
import statistics

import pytest
import torch

from distill3d.errors import ShapeError
from distill3d.evaluation import (
    clip_direction,
    clip_score,
    diversity_ratio,
    mean_interval,
    pairwise_distances,
    perceptual_distance,
    psnr,
    retrieve,
    rsa,
    style_accuracy,
    upper,
)
from distill3d.evaluation.interval import T_95


def pictures(count=5, size=6):
    return torch.rand(count, 3, size, size) * 2 - 1


def test_psnr_is_its_definition_pixel_by_pixel():
    a, b = pictures(), pictures()
    for ours, x, y in zip(psnr(a, b), a, b):
        errors = [(float(p) - float(q)) ** 2 for p, q in zip(x.flatten(), y.flatten())]
        assert float(ours) == pytest.approx(10 * math.log10(4 / statistics.fmean(errors)), abs=1e-4)


def test_psnr_of_black_and_white_is_zero_of_equals_infinite_and_half_the_error_gives_six_decibels():
    black, white = -torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert float(psnr(black, white)) == 0
    assert float(psnr(black, black)) == math.inf
    gain = psnr(torch.full_like(black, -0.95), black) - psnr(torch.full_like(black, -0.9), black)
    assert float(gain) == pytest.approx(20 * math.log10(2), abs=1e-4)


def test_psnr_is_of_each_picture_alone():
    a, b = pictures(), pictures()
    torch.testing.assert_close(psnr(a, b)[2:3], psnr(a[2:3], b[2:3]))


def test_perceptual_distance_is_its_definition_place_by_place():
    ours, theirs = [[torch.randn(2, c, s, s) for c, s in ((4, 3), (7, 2))] for _ in range(2)]
    found = perceptual_distance(ours, theirs)
    for i in range(2):
        total = 0.0
        for a, b in zip(ours, theirs):
            side = a.shape[-1]
            for y, x in itertools.product(range(side), range(side)):
                u, v = a[i, :, y, x], b[i, :, y, x]
                total += float((u / u.norm() - v / v.norm()).square().sum()) / side**2
        assert float(found[i]) == pytest.approx(total, rel=1e-5)


def test_perceptual_distance_ignores_the_length_of_features_and_spans_zero_to_four():
    maps = [torch.randn(3, 4, 5, 5)]
    assert float(perceptual_distance(maps, [7 * maps[0]]).abs().max()) < 1e-6
    torch.testing.assert_close(perceptual_distance(maps, [-maps[0]]), torch.full((3,), 4.0))
    first, second = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    first[:, 0], second[:, 1] = 1, 1
    assert float(perceptual_distance([first], [second])) == pytest.approx(2.0)


def test_pairwise_distances_are_root_mean_squares_exactly_zero_for_equals():
    items = pictures(4)
    items[3] = items[0]
    found = pairwise_distances(items)
    for i, j in itertools.product(range(4), range(4)):
        assert float(found[i, j]) == pytest.approx(float((items[i] - items[j]).square().mean().sqrt()), abs=1e-6)
    assert found[0, 3] == 0 and torch.equal(found, found.T)
    assert upper(torch.arange(9.0).view(3, 3)).tolist() == [1, 2, 5]


def test_rsa_is_pearsons_correlation():
    a, b = pairwise_distances(pictures(6)), pairwise_distances(pictures(6))
    expected = torch.corrcoef(torch.stack([upper(a), upper(b)]).double())[0, 1]
    assert rsa(a, b) == pytest.approx(float(expected), abs=1e-9)


def test_rsa_keeps_one_under_scale_offset_and_a_common_change_of_pictures_and_loses_it_when_subjects_swap():
    items = pictures(8)
    base = pairwise_distances(items)
    assert rsa(base, 3 * base + 1) == pytest.approx(1)
    assert rsa(base, pairwise_distances(0.4 * items.flip(-1) + 0.1)) == pytest.approx(1, abs=1e-6)
    swapped = pairwise_distances(items.roll(1, 0))
    assert rsa(base, swapped) < 0.9
    assert rsa(base, -base) == pytest.approx(-1)


def test_rsa_of_collapsed_subjects_is_not_a_number():
    base = pairwise_distances(pictures(4))
    assert math.isnan(rsa(base, torch.zeros_like(base)))


def test_diversity_is_zero_for_a_collapse_one_for_no_change_and_follows_contrast():
    items = pictures(5)
    base = pairwise_distances(items)
    assert diversity_ratio(base, base) == 1
    assert diversity_ratio(pairwise_distances(items[:1].expand(5, -1, -1, -1)), base) == 0
    assert diversity_ratio(pairwise_distances(0.5 * items + 0.2), base) == pytest.approx(0.5, rel=1e-5)
    assert math.isnan(diversity_ratio(base, torch.zeros_like(base)))


def test_retrieval_finds_every_subject_where_embeddings_agree_whatever_their_length():
    gallery = torch.randn(9, 16)
    found = retrieve(gallery * torch.rand(9, 1).add(0.1), gallery)
    assert found.top1 == 1 and found.mean_rank == 1


def test_retrieval_follows_a_permutation_of_the_gallery():
    gallery = torch.randn(9, 16)
    order = torch.randperm(9)
    places = torch.argsort(order)
    assert retrieve(gallery, gallery[order], places).top1 == 1
    assert retrieve(gallery, gallery.roll(1, 0)).top1 < 1


def test_a_collapse_is_found_at_chance_and_not_always():
    found = retrieve(torch.ones(8, 4), torch.ones(8, 4))
    assert found.top1 == pytest.approx(1 / 8)
    assert found.mean_rank == pytest.approx(4.5)
    assert retrieve(torch.full((8, 4), math.nan), torch.randn(8, 4)).top1 == pytest.approx(1 / 8)


def test_retrieval_is_the_rank_in_a_sorted_list():
    queries, gallery = torch.randn(7, 5), torch.randn(7, 5)
    ranks = []
    for i, query in enumerate(queries):
        cosines = [float(torch.cosine_similarity(query, g, dim=0)) for g in gallery]
        ranks.append(1 + sorted(cosines, reverse=True).index(cosines[i]))
    found = retrieve(queries, gallery)
    assert found.mean_rank == pytest.approx(statistics.fmean(ranks))
    assert found.top1 == pytest.approx(sum(rank == 1 for rank in ranks) / 7)


def test_style_accuracy_counts_the_most_probable_class():
    log_probabilities = torch.log_softmax(torch.eye(4)[[0, 1, 1, 3]] * 5, 1)
    assert style_accuracy(log_probabilities, 1) == 0.5
    assert style_accuracy(log_probabilities, 2) == 0


def test_clip_score_is_the_mean_cosine():
    images, text = torch.tensor([[1.0, 0], [0, 2], [3, 3]]), torch.tensor([5.0, 0])
    assert clip_score(images, text) == pytest.approx((1 + 0 + 2**-0.5) / 3)


def test_clip_direction_reads_the_way_and_not_the_place():
    sources, way = torch.randn(4, 6), torch.randn(6)
    source_text = torch.randn(6)
    text = source_text + way
    assert clip_direction(sources + 0.3 * way, sources, text, source_text) == pytest.approx(1, abs=1e-5)
    assert clip_direction(sources - 2 * way, sources, text, source_text) == pytest.approx(-1, abs=1e-5)
    some = sources.clone()
    some[0] += way
    assert clip_direction(some, sources, text, source_text) == pytest.approx(1, abs=1e-5)
    assert math.isnan(clip_direction(sources, sources, text, source_text))


def test_the_quantiles_are_students_by_integration_of_its_density():
    """P(|T| <= t) = 0.95, the density integrated by Simpson's rule."""
    for freedom in (1, 2, 3, 7, 30):
        quantile, pieces = T_95[freedom - 1], 4000
        norm = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
        heights = [
            norm * (1 + (quantile * i / pieces) ** 2 / freedom) ** (-(freedom + 1) / 2) for i in range(pieces + 1)
        ]
        inner = 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2])
        inside = 2 * (heights[0] + inner + heights[-1]) * quantile / pieces / 3
        assert inside == pytest.approx(0.95, abs=2e-5)


def test_an_interval_over_three_seeds():
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.count, found.low, found.high) == (2, 3, 1, 3)
    assert found.half == pytest.approx(4.3027 / math.sqrt(3))
    assert mean_interval([2.0, math.nan, 2.0]).half == 0
    assert math.isnan(mean_interval([1.0]).half) and math.isnan(mean_interval([]).mean)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: psnr(pictures(2), pictures(3)),
        lambda: perceptual_distance([pictures(2)], []),
        lambda: perceptual_distance([], []),
        lambda: pairwise_distances(pictures(1)),
        lambda: rsa(torch.zeros(3, 3), torch.zeros(4, 4)),
        lambda: upper(torch.zeros(3, 4)),
        lambda: retrieve(torch.zeros(2, 3), torch.zeros(2, 4)),
        lambda: retrieve(torch.ones(2, 3), torch.ones(1, 3)),
        lambda: style_accuracy(torch.zeros(2, 3), 3),
        lambda: clip_score(torch.zeros(2, 3), torch.zeros(4)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ShapeError):
        wrong()
