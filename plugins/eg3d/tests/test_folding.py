"""Low-rank changes as weights of the generator before any were put in."""

import pytest
import torch
from heads import blob

from distill3d.cameras import orbit
from distill3d.errors import WeightsError
from distill3d_eg3d.low_rank import MARK

FAMILIES = pytest.mark.parametrize("panohead", [False, True], ids=["eg3d", "panohead"])
SMALL = {"neural_resolution": 16, "samples": 6}


def pictures(of):
    """Image, raw picture, depth and opacity of one subject by two cameras, one after the other."""
    yaw = torch.tensor([[0.3, -0.6]])
    with torch.no_grad():
        seen = of.render(of.scene(of.codes_of_seeds([0])), orbit(yaw, 0 * yaw + 0.1))
    return torch.cat([picture.flatten() for picture in seen.tensors().values()])


def changed(of, seed):
    """What a run would leave of the group: every factor moved."""
    draw = torch.Generator().manual_seed(seed)
    trained = of.trainable("low-rank")
    with torch.no_grad():
        for parameter in trained.values():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draw)
    return {name: parameter.detach().clone() for name, parameter in trained.items()}


@FAMILIES
def test_folded_changes_in_the_original_give_the_pictures_of_the_run_bit_for_bit(panohead):
    run, original = (blob(panohead=panohead, **SMALL) for _ in range(2))
    before, trained = pictures(original), changed(run, 0)
    folded = original.folded(trained)
    assert folded.keys() == {name.partition(MARK)[0] + ".weight" for name in trained}
    left = original.load_state_dict(folded, strict=False)
    assert not left.unexpected_keys
    assert torch.equal(pictures(original), pictures(run))
    assert (pictures(run) - before).abs().max() > 0.01


def test_it_is_the_same_whether_changes_were_put_in_or_not():
    run, original = blob(**SMALL), blob(**SMALL)
    trained = changed(run, 0)
    one, other = run.folded(trained), original.folded(trained)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_untrained_changes_are_the_original_weights_bit_for_bit():
    original = blob(**SMALL)
    weights = {name: value.clone() for name, value in original.state_dict().items()}
    folded = original.folded(dict(original.trainable("low-rank")))
    assert folded
    assert all(torch.equal(value, weights[name]) for name, value in folded.items())
    assert not any(value.requires_grad for value in folded.values())


def test_halves_of_two_runs_are_half_of_each_change():
    """And not what half of each factor would make, which is a quarter of each and a half of neither."""
    original = blob(**SMALL)
    first, second = changed(blob(**SMALL), 1), changed(blob(**SMALL), 2)
    a, b = original.folded(first), original.folded(second)
    weights = original.state_dict()
    mean_of_factors = original.folded({name: (first[name] + second[name]) / 2 for name in first})
    for name, value in a.items():
        layer = f"{name.removesuffix('.weight')}{MARK}"
        sum_of_products = sum(one[f"{layer}up"] @ one[f"{layer}down"] for one in (first, second))
        mixed = weights[name] + 0.5 * (value - weights[name]) + 0.5 * (b[name] - weights[name])
        expected = weights[name] + (0.5 * sum_of_products).view(value.shape)
        torch.testing.assert_close(mixed, expected, atol=1e-6, rtol=1e-6)
        assert (mean_of_factors[name] - expected).abs().max() > 1e-4


def test_other_trained_tensors_are_left_as_they_are():
    original = blob(**SMALL)
    trained = {name: value.detach() + 1 for name, value in original.trainable("decoder").items()}
    folded = original.folded(trained)
    assert folded.keys() == trained.keys()
    assert all(folded[name] is value for name, value in trained.items())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, first: t.pop(first), "not whole"),
        (lambda t, first: t.update({f"generator.nowhere{MARK}up": torch.ones(1, 1)}), "generator.nowhere is not whole"),
        (lambda t, first: t.update({first: torch.ones(3)}), r"does not fit .*\.weight"),
        (lambda t, first: t.update({first: torch.ones(())}), r"does not fit .*\.weight"),
        (lambda t, first: t.update({first: t[first][:, :-1]}), r"does not fit .*\.weight"),
    ],
)
def test_factors_that_make_no_weight_are_refused(change, said):
    original = blob(**SMALL)
    trained = dict(changed(blob(**SMALL), 0))
    change(trained, next(name for name in trained if name.endswith("down")))
    with pytest.raises(WeightsError, match=said):
        original.folded(trained)
