"""What a pack stores of a run comes back: exactly, within float16, or within a stated error."""

import math

import pytest
import torch
from safetensors.torch import load, save

from distill3d.errors import ConfigError, PackError
from distill3d.packs import low_rank
from distill3d.packs.adapter import LOW_RANK_ERROR, decode, encode, relative_error
from distill3d.packs.config import FORMATS
from distill3d.packs.low_rank import choose, factors, in_eight_bits, splits

SHAPES = {
    "conv.weight": (24, 16, 3, 3),
    "linear.weight": (40, 24),
    "template": (1, 12, 16, 16),
    "bias": (24,),
    "gain": (),
    "odd@left": (6, 5),  # a name that ends as a part's does
    "@": (4, 3),
    "empty": (0, 7),
}


def base(dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def after_training(original, seed=1, size=0.1):
    """Changes on different scales, their singular values falling as a run's do."""
    generator = torch.Generator().manual_seed(seed)
    trained = {}
    for i, (name, tensor) in enumerate(original.items()):
        change = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        if tensor.numel() > 100:
            u, s, v = torch.linalg.svd(as_matrix(change), full_matrices=False)
            change = (u * s * 0.7 ** torch.arange(len(s)) @ v).reshape(tensor.shape)
        trained[name] = (tensor.double() + size * 0.8**i * change).to(tensor.dtype)
    return trained


def as_matrix(tensor):
    return tensor.reshape(max(tensor.shape[:2]), -1)


def of_rank(rank, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(n, rank, generator=generator, dtype=torch.float64) for n in shape)
    return left @ right.T


def through_a_file(stored):
    return load(save(stored))


def size_of(stored):
    return len(save(stored))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_full_gives_every_bit_back(dtype):
    original = base(dtype)
    trained = after_training(original)
    decoded = decode(original, through_a_file(encode(original, trained, "full")), "full", "pack")
    assert list(decoded) == list(original)
    for name, tensor in trained.items():
        assert decoded[name].dtype == dtype and torch.equal(decoded[name], tensor), name
    assert relative_error(original, trained, decoded) == 0


def test_full_keeps_a_signed_zero_and_the_smallest_number():
    original = {"a": torch.zeros(3)}
    trained = {"a": torch.tensor([-0.0, 1e-45, -1e-45])}
    decoded = decode(original, through_a_file(encode(original, trained, "full")), "full", "pack")
    assert torch.equal(decoded["a"].view(torch.int32), trained["a"].view(torch.int32))


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1.0, 1e6])
def test_half_is_within_eleven_bits_of_each_change_however_small_or_large_they_are(size):
    original = base(torch.float64)
    trained = after_training(original, size=size)
    decoded = decode(original, through_a_file(encode(original, trained, "half")), "half", "pack")
    for name in SHAPES:
        change = trained[name] - original[name]
        if not change.numel():
            continue
        rounding = 2**-52 * trained[name].abs() + 2**-52 * original[name].abs()
        bound = 2**-11 * change.abs() + 2**-39 * change.abs().max() + rounding
        assert ((decoded[name] - trained[name]).abs() <= bound).all(), name
    assert 0 < relative_error(original, trained, decoded) <= 2**-11


def test_half_keeps_changes_that_float16_itself_would_flush_to_zero():
    original = {"a": torch.zeros(2, 2)}
    trained = {"a": torch.tensor([[1e-12, 2e-12], [1e-20, 0.0]])}
    decoded = decode(original, encode(original, trained, "half"), "half", "pack")["a"]
    torch.testing.assert_close(decoded, trained["a"], rtol=2**-11, atol=0)
    assert trained["a"].half().count_nonzero() == 0


def test_half_of_float32_is_off_by_no_more_than_its_rounding_besides():
    original = base()
    trained = after_training(original)
    decoded = decode(original, encode(original, trained, "half"), "half", "pack")
    for name, tensor in trained.items():
        change = (tensor.double() - original[name].double()).abs()
        bound = 2**-11 * change + 2**-39 * (change.max() if change.numel() else 0) + 2**-24 * 2 * tensor.double().abs()
        assert ((decoded[name].double() - tensor.double()).abs() <= bound).all(), name


@pytest.mark.parametrize("error", [0.5, 0.3, 0.2, 0.1, 0.03, 0.01])
def test_the_error_of_low_rank_is_at_most_the_one_asked_for(error):
    original = base()
    trained = after_training(original)
    decoded = decode(original, through_a_file(encode(original, trained, "low-rank", error=error)), "low-rank", "pack")
    assert error / 4 < relative_error(original, trained, decoded) <= error


@pytest.mark.parametrize("error", [0.4, 0.2, 0.05])
def test_no_tensor_is_given_up_for_the_others(error):
    """However small its change is beside theirs."""
    original = base()
    trained = after_training(original)
    trained["linear.weight"] = original["linear.weight"] + 1e-4 * torch.randn(40, 24)
    decoded = decode(original, encode(original, trained, "low-rank", error=error), "low-rank", "pack")
    for name in SHAPES:
        assert relative_error({"": original[name]}, {"": trained[name]}, {"": decoded[name]}) <= 2 * error + 1e-3, name


def test_low_rank_errs_less_and_grows_as_less_error_is_asked_for():
    original = base()
    trained = after_training(original)
    stored = [encode(original, trained, "low-rank", error=error) for error in (0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.02)]
    errors = [relative_error(original, trained, decode(original, each, "low-rank", "pack")) for each in stored]
    sizes = [size_of(each) for each in stored]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == len(errors)
    assert sizes == sorted(sizes) and sizes[0] < 0.5 * sizes[-1]


def test_an_error_below_float16s_own_makes_low_rank_as_good_as_half():
    original = base()
    trained = after_training(original)
    half, low_rank = (
        decode(original, encode(original, trained, name, **more), name, "pack")
        for name, more in (("half", {}), ("low-rank", {"error": 1e-6}))
    )
    assert relative_error(original, trained, low_rank) <= 2**-11
    assert all(torch.equal(half[name], low_rank[name]) for name in half)


def test_low_rank_is_smaller_than_half_and_half_than_full():
    original = base()
    trained = after_training(original)
    sizes = [size_of(encode(original, trained, name)) for name in ("low-rank", "half", "full")]
    assert sizes[0] < 0.9 * sizes[1] < 0.9 * sizes[2]


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_change_of_a_rank_is_stored_with_no_more_columns(rank):
    original = {"a": torch.zeros(40, 30, dtype=torch.float64)}
    trained = {"a": of_rank(rank, (40, 30))}
    stored = encode(original, trained, "low-rank", error=0.02)
    assert stored["a@left"].shape == (40, rank) and stored["a@right"].shape == (rank, 30)
    decoded = decode(original, through_a_file(stored), "low-rank", "pack")
    assert relative_error(original, trained, decoded) <= 0.02


@pytest.mark.parametrize("rows", [8, 8 * 10, 8 * 10 * 3])
def test_a_tensor_is_split_where_its_change_is_simplest(rows):
    shape = (8, 10, 3, 5)
    original = {"a": torch.zeros(shape, dtype=torch.float64)}
    trained = {"a": of_rank(1, (rows, math.prod(shape) // rows)).reshape(shape)}
    stored = encode(original, trained, "low-rank", error=0.02)
    assert stored["a@left"].shape == (rows, 1)
    decoded = decode(original, stored, "low-rank", "pack")
    assert relative_error(original, trained, decoded) <= 0.02


@pytest.mark.parametrize(("error", "part"), [(0.02, "rows"), (0.002, "difference")])
def test_what_has_no_low_rank_is_stored_whole(error, part):
    """In eight bits where they are enough, else in float16."""
    generator = torch.Generator().manual_seed(0)
    original = {"a": torch.zeros(20, 20)}
    trained = {"a": torch.linalg.qr(torch.randn(20, 20, generator=generator))[0]}  # all singular values 1
    stored = encode(original, trained, "low-rank", error=error)
    assert stored.keys() == {f"a@{part}", "a@scale"}
    assert relative_error(original, trained, decode(original, stored, "low-rank", "pack")) <= error


def test_an_error_is_kept_where_eight_bits_lose_more_than_usual():
    """One number a thousand times the others: all of its row and its column are rounded to nothing."""
    generator = torch.Generator().manual_seed(0)
    original = {"a": torch.zeros(64, 64)}
    spread = torch.exp(3 * torch.randn(64, 64, generator=generator))
    trained = {"a": spread * torch.randn(64, 64, generator=generator).sign()}
    for error in (0.2, 0.05, 0.01, 0.003):
        decoded = decode(original, encode(original, trained, "low-rank", error=error), "low-rank", "pack")
        assert relative_error(original, trained, decoded) <= error


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_eight_bits_are_off_by_half_a_step_of_each_row(size):
    rows = size * torch.randn(6, 50, dtype=torch.float64) * 10.0 ** torch.arange(-3, 3, dtype=torch.float64)[:, None]
    numbers, scale = in_eight_bits(rows)
    assert numbers.dtype == torch.int8 and numbers.min() >= -127
    off = (numbers * scale[:, None] - rows).abs()
    assert (off <= 0.5 * (1 + 1e-9) * rows.abs().amax(1, keepdim=True) / 127).all()
    assert numbers.abs().amax(1).tolist() == [127] * 6


def test_a_row_of_zeros_stays_one_in_eight_bits():
    numbers, scale = in_eight_bits(torch.zeros(2, 3))
    assert not numbers.any() and scale.isfinite().all()


def test_bytes_go_where_they_save_most():
    """Two changes of equal rank and energy for each component, one in a tensor of a quarter of the other's size."""
    changes = {"large": of_rank(6, (80, 60)), "small": of_rank(6, (20, 15))}
    changes["large"] *= changes["small"].norm() / changes["large"].norm()
    both = sum(float(change.square().sum()) for change in changes.values())
    chosen = choose(changes, 0.5 * both)
    assert chosen["small"].rank > 2 * chosen["large"].rank
    assert sum(choice.lost for choice in chosen.values()) <= 0.5 * both


@pytest.mark.parametrize("share", [0.002, 0.05, 0.2, 0.5, 0.8])
def test_no_other_choices_of_the_same_error_take_many_fewer_bytes(share):
    """Against all pairs of choices of two tensors."""
    generator = torch.Generator().manual_seed(0)
    changes = {
        "a": torch.diag(0.8 ** torch.arange(24, dtype=torch.float64))
        @ torch.randn(24, 60, generator=generator).double(),
        "b": 3 * torch.randn(6, 8, 3, 3, generator=generator).double() + 6,
    }
    choices = {name: low_rank._choices(change) for name, change in changes.items()}
    lost = share * sum(float(change.square().sum()) for change in changes.values())
    best = min(a.bytes + b.bytes for a in choices["a"] for b in choices["b"] if a.lost + b.lost <= lost)
    chosen = choose(changes, lost)
    assert sum(choice.lost for choice in chosen.values()) <= lost
    assert best <= sum(choice.bytes for choice in chosen.values()) <= 1.05 * best


@pytest.mark.parametrize("shape", [(12, 50), (50, 12), (9, 9)])
def test_factors_are_the_nearest_of_their_rank(shape):
    change = of_rank(7, shape, seed=4)
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    for rank in (0, 1, 4, 7):
        left, right = factors(change, shape[0], rank)
        assert left.shape == (shape[0], rank) and right.shape == (rank, shape[1])
        torch.testing.assert_close(left @ right, (u[:, :rank] * s[:rank]) @ v[:rank], rtol=1e-9, atol=1e-9)


def test_the_same_run_makes_the_same_bytes():
    original = base()
    trained = after_training(original)
    backwards = dict(reversed(trained.items()))
    for name in FORMATS:
        assert save(encode(original, trained, name)) == save(encode(dict(original), backwards, name)), name


def test_nothing_that_is_encoded_shares_memory_with_the_run():
    original = base()
    trained = after_training(original)
    encode(original, trained, "full")["bias"].zero_()
    assert trained["bias"].count_nonzero()


def test_an_untouched_backbone_is_an_empty_change():
    original = base()
    for name in FORMATS:
        decoded = decode(original, encode(original, original, name), name, "pack")
        assert all(torch.equal(decoded[key], tensor) for key, tensor in original.items())
        assert relative_error(original, original, decoded) == 0


def test_the_relative_error_is_of_the_change_not_of_the_weights():
    original = {"a": torch.full((4,), 1000.0), "b": torch.zeros(4)}
    trained = {"a": torch.full((4,), 1004.0), "b": torch.full((4,), 3.0)}
    decoded = {"a": torch.full((4,), 1004.0), "b": torch.full((4,), 3.5)}
    assert relative_error(original, trained, decoded) == pytest.approx(0.5 / 5)
    assert relative_error(original, original, decoded) == math.inf


@pytest.mark.parametrize("error", [0.0, -0.1, 1.0, math.nan])
def test_an_error_that_makes_no_sense_is_refused(error):
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        encode(base(), base(), "low-rank", error=error)
    assert 0 < LOW_RANK_ERROR < 1


def test_a_run_that_is_not_finite_is_not_packed():
    trained = after_training(base())
    trained["bias"][3] = math.nan
    for name in FORMATS:
        with pytest.raises(PackError, match="bias holds numbers that are not finite"):
            encode(base(), trained, name)


def test_a_change_beyond_float16_and_its_scale_is_refused_but_for_full():
    original = {"a": torch.zeros(3, 2, dtype=torch.float64)}
    trained = {"a": torch.full((3, 2), 1e200, dtype=torch.float64)}
    for name in ("half", "low-rank"):
        with pytest.raises(PackError, match="Choose format 'full'"):
            encode(original, trained, name)
    assert torch.equal(decode(original, encode(original, trained, "full"), "full", "pack")["a"], trained["a"])


def test_a_run_of_other_tensors_is_not_packed():
    other = base()
    del other["bias"]
    with pytest.raises(PackError, match="'bias'"):
        encode(base(), other, "half")
    with pytest.raises(PackError, match=r"conv\.weight"):
        encode(base(), {**base(), "conv.weight": torch.zeros(24, 16, 3, 1)}, "half")


def changed(**tensors):
    """A low-rank pack of a tensor in each form, some parts changed: "a" is factors, "b" a difference, "c" rows."""
    stored = encode(FEW, FEW_TRAINED, "low-rank", error=0.05)
    assert stored.keys() == {"a@left", "a@right", "a@scale", "b@difference", "b@scale", "c@rows", "c@scale"}
    for key, change in tensors.items():
        key = key.replace("_", "@")
        tensor = change(stored.get(key))
        stored = {**stored, key: tensor} if tensor is not None else {k: t for k, t in stored.items() if k != key}
    return stored


FEW = {"a": torch.zeros(12, 40), "b": torch.zeros(4), "c": torch.zeros(9, 9)}
FEW_TRAINED = {"a": of_rank(2, (12, 40)).float(), "b": torch.arange(4.0), "c": torch.eye(9)}
ODD = {
    "a part is missing": ({"a_right": lambda t: None}, r"left and scale of a, which do not make"),
    "a scale is missing": ({"b_scale": lambda t: None}, "difference of b, which do not make"),
    "a part is too many": ({"b_left": lambda t: torch.zeros(4, 1)}, "difference and left and scale of b"),
    "two forms at once": ({"c_difference": lambda t: torch.zeros(9, 9)}, "difference and rows and scale of c"),
    "a strange part": ({"a_middle": lambda t: torch.zeros(1)}, "'a@middle', which is no part"),
    "no part at all": ({"a": lambda t: torch.zeros(12, 40)}, "'a', which is no part"),
    "a strange tensor": ({"d_difference": lambda t: torch.zeros(1)}, "this one has no 'd'"),
    "rows that do not fit": ({"a_left": lambda t: t[:5]}, r"a@left has shape \(5, 2\), which makes no \(12, 40\)"),
    "columns that do not fit": ({"a_right": lambda t: t[:, :7]}, r"a@right has shape \(2, 7\), not \(2, 40\)"),
    "ranks that differ": ({"a_right": lambda t: t[:1]}, r"a@right has shape \(1, 40\), not \(2, 40\)"),
    "factors turned round": ({"a_left": lambda t: t.T, "a_right": lambda t: t.T}, r"a@left has shape \(2, 12\)"),
    "more columns than rows": (
        {f"a_{part}": lambda t, n=n: torch.zeros(n).to(t) for part, n in (("left", (12, 13)), ("right", (13, 40)))},
        "a@left in the pack has 13 columns, more than its rank can be",
    ),
    "a vector of factors": ({"a_left": lambda t: t[:, 0]}, r"a@left has shape \(12,\)"),
    "no rows": ({"a_left": lambda t: t[:0]}, r"a@left has shape \(0, 2\), which makes no"),
    "a difference of another shape": ({"b_difference": lambda t: t.view(2, 2)}, r"shape \(2, 2\), not \(4,\)"),
    "a difference of another dtype": ({"b_difference": lambda t: t.float()}, r"of torch.float32, not torch.float16"),
    "a factor of another dtype": ({"a_left": lambda t: t.half()}, r"of torch.float16, not torch.int8"),
    "rows of another shape": ({"c_rows": lambda t: t[:, :8]}, r"c@rows has shape \(9, 8\), not \(9, 9\)"),
    "rows of another dtype": ({"c_rows": lambda t: t.half()}, r"c@rows is of torch.float16, not torch.int8"),
    "rows of a vector": ({"b_difference": lambda t: None, "b_rows": lambda t: torch.zeros(4, 1)}, "b@rows has shape"),
    "a scale for each number": ({"b_scale": lambda t: torch.ones(4)}, r"b@scale has shape \(4,\), not \(\)"),
    "one scale for all rows": ({"c_scale": lambda t: t[0]}, r"c@scale has shape \(\), not \(9,\)"),
    "a scale of another dtype": ({"b_scale": lambda t: t.half()}, "b@scale is of torch.float16"),
    "a scale below 0": ({"b_scale": lambda t: -t}, "must be a power of two"),
    "a scale of 0": ({"b_scale": lambda t: 0 * t}, "must be a power of two"),
    "a scale of 3": ({"b_scale": lambda t: 0 * t + 3}, "must be a power of two"),
    "a scale that is no number": ({"b_scale": lambda t: t * math.nan}, "must be a power of two"),
    "a scale of a row below 0": ({"c_scale": lambda t: -t}, "c@scale in the pack holds numbers below 0"),
    "a scale of a column that is no number": ({"a_scale": lambda t: t * math.nan}, "a@scale in the pack holds numbers"),
    "numbers that are not finite": ({"b_difference": lambda t: t / 0}, "b in the pack makes numbers that are not"),
    "a product that is not finite": ({"a_scale": lambda t: t * 0 + 3e38}, "a in the pack makes numbers that are not"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_not_exactly_a_pack_of_this_backbone_is_refused(name):
    changes, message = ODD[name]
    with pytest.raises(PackError, match=message) as refusal:
        decode(FEW, changed(**changes), "low-rank", "the pack")
    assert "the pack" in str(refusal.value) and str(refusal.value).endswith(".")


def test_the_pack_of_which_some_was_changed_is_good_when_nothing_is():
    decoded = decode(FEW, changed(), "low-rank", "the pack")
    assert relative_error(FEW, FEW_TRAINED, decoded) < 0.05


def test_half_holds_no_factors():
    with pytest.raises(PackError, match="do not make a difference of format 'half'"):
        decode(FEW, changed(), "half", "the pack")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("a"), "lacks 'a'"),
        (lambda s: s.update(d=torch.zeros(1)), "has no 'd'"),
        (lambda s: s.update(a=torch.zeros(40, 12)), r"its a has shape \(40, 12\), not \(12, 40\)"),
        (lambda s: s.update(b=torch.zeros(4).double()), "its b is of torch.float64, not torch.float32"),
        (lambda s: s["b"].fill_(math.inf), "b in the pack makes numbers that are not finite"),
    ],
)
def test_full_tensors_that_do_not_fit_are_refused(change, message):
    stored = encode(FEW, FEW_TRAINED, "full")
    change(stored)
    with pytest.raises(PackError, match=message):
        decode(FEW, stored, "full", "the pack")


def test_the_rows_that_a_shape_can_have():
    assert splits((8, 10, 3, 5)) == [8, 80, 240]
    assert splits((1, 12, 16)) == [1, 12]
    assert splits((7,)) == splits(()) == []
