"""What a pack stores of a run comes back: exactly, within float16, or within a stated error."""

import math

import pytest
import torch
from safetensors.torch import load, save

from distill3d.errors import ConfigError, PackError
from distill3d.packs.adapter import LOW_RANK_ERROR, decode, encode, relative_error
from distill3d.packs.config import FORMATS
from distill3d.packs.low_rank import choose, factors, splits

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
    stored = encode(original, trained, "low-rank", error=2e-3)
    assert stored["a@left"].shape == (40, rank) and stored["a@right"].shape == (rank, 30)
    decoded = decode(original, through_a_file(stored), "low-rank", "pack")
    assert relative_error(original, trained, decoded) <= 2e-3


@pytest.mark.parametrize("rows", [8, 8 * 10, 8 * 10 * 3])
def test_a_tensor_is_split_where_its_change_is_simplest(rows):
    shape = (8, 10, 3, 5)
    original = {"a": torch.zeros(shape, dtype=torch.float64)}
    trained = {"a": of_rank(1, (rows, math.prod(shape) // rows)).reshape(shape)}
    stored = encode(original, trained, "low-rank", error=0.01)
    assert stored["a@left"].shape == (rows, 1)
    decoded = decode(original, stored, "low-rank", "pack")
    assert relative_error(original, trained, decoded) <= 0.01


def test_what_has_no_low_rank_is_stored_whole():
    generator = torch.Generator().manual_seed(0)
    original = {"a": torch.zeros(20, 20), "b": torch.zeros(20, 20)}
    noise = torch.linalg.qr(torch.randn(20, 20, generator=generator))[0]  # all singular values 1
    stored = encode(original, {"a": noise, "b": of_rank(1, (20, 20)).float()}, "low-rank", error=0.01)
    assert {key for key in stored if not key.endswith("scale")} == {"a@difference", "b@left", "b@right"}


def test_bytes_go_where_they_save_most():
    """Two changes of equal rank and energy for each component, one in a tensor of a quarter of the other's size."""
    changes = {"large": of_rank(6, (80, 60)), "small": of_rank(6, (20, 15))}
    changes["large"] *= changes["small"].norm() / changes["large"].norm()
    both = sum(float(change.square().sum()) for change in changes.values())
    chosen = choose(changes, 0.5 * both)
    assert chosen["small"].rank > 2 * chosen["large"].rank
    assert sum(choice.lost for choice in chosen.values()) <= 0.5 * both


def test_no_other_ranks_of_the_same_error_take_fewer_bytes():
    """Against all pairs of ranks of two matrices: at most one component away from the best there is."""
    changes = {
        name: torch.diag(scale * torch.arange(1, 13, dtype=torch.float64)) for name, scale in (("a", 1), ("b", 2))
    }
    changes["a"] = torch.nn.functional.pad(changes["a"], (0, 20))
    energy = {name: [*change.diagonal().square().cumsum(0).flip(0).tolist(), 0.0] for name, change in changes.items()}
    bytes_of = {name: [2 * rank * sum(c.shape) for rank in range(13)] for name, c in changes.items()}
    for name, change in changes.items():
        bytes_of[name] = [min(size, 2 * change.numel()) for size in bytes_of[name]]
    for share in (0.05, 0.2, 0.5, 0.8):
        lost = share * (energy["a"][0] + energy["b"][0])
        best = min(
            bytes_of["a"][i] + bytes_of["b"][j]
            for i in range(13)
            for j in range(13)
            if (energy["a"][i] if bytes_of["a"][i] < 2 * changes["a"].numel() else 0)
            + (energy["b"][j] if bytes_of["b"][j] < 2 * changes["b"].numel() else 0)
            <= lost
        )
        chosen = choose(changes, lost)
        assert sum(choice.lost for choice in chosen.values()) <= lost
        assert best <= sum(choice.bytes for choice in chosen.values()) <= best + 2 * (12 + 32)


@pytest.mark.parametrize("shape", [(12, 50), (50, 12), (9, 9)])
def test_factors_are_the_nearest_of_their_rank_and_equally_large(shape):
    change = of_rank(7, shape, seed=4)
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    for rank in (0, 1, 4, 7):
        left, right = factors(change, shape[0], rank)
        assert left.shape == (shape[0], rank) and right.shape == (rank, shape[1])
        torch.testing.assert_close(left @ right, (u[:, :rank] * s[:rank]) @ v[:rank], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(left.norm(dim=0), s[:rank].sqrt())
        torch.testing.assert_close(right.norm(dim=1), s[:rank].sqrt())


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
    """A low-rank pack of two tensors, "a" as factors and "b" as a difference, with some of its own changed."""
    stored = encode(FEW, FEW_TRAINED, "low-rank", error=0.05)
    assert stored.keys() == {"a@left", "a@right", "a@scale", "b@difference", "b@scale"}
    for key, change in tensors.items():
        key = key.replace("_", "@")
        tensor = change(stored.get(key))
        stored = {**stored, key: tensor} if tensor is not None else {k: t for k, t in stored.items() if k != key}
    return stored


FEW = {"a": torch.zeros(6, 8), "b": torch.zeros(4)}
FEW_TRAINED = {"a": of_rank(2, (6, 8)).float(), "b": torch.arange(4.0)}
ODD = {
    "a part is missing": ({"a_right": lambda t: None}, r"left and scale of a, which do not make"),
    "a scale is missing": ({"b_scale": lambda t: None}, "difference of b, which do not make"),
    "a part is too many": ({"b_left": lambda t: torch.zeros(4, 1).half()}, "difference and left and scale of b"),
    "a strange part": ({"a_middle": lambda t: torch.zeros(1)}, "'a@middle', which is no part"),
    "no part at all": ({"a": lambda t: torch.zeros(6, 8)}, "'a', which is no part"),
    "a strange tensor": ({"c_difference": lambda t: torch.zeros(1)}, "this one has no 'c'"),
    "rows that do not fit": ({"a_left": lambda t: t[:5]}, r"a@left has shape \(5, 2\), which makes no \(6, 8\)"),
    "columns that do not fit": ({"a_right": lambda t: t[:, :7]}, r"a@right has shape \(2, 7\), not \(2, 8\)"),
    "ranks that differ": ({"a_right": lambda t: t[:1]}, r"a@right has shape \(1, 8\), not \(2, 8\)"),
    "factors turned round": ({"a_left": lambda t: t.T, "a_right": lambda t: t.T}, r"a@left has shape \(2, 6\)"),
    "more columns than rows": (
        {"a_left": lambda t: torch.zeros(6, 7).half(), "a_right": lambda t: torch.zeros(7, 8).half()},
        "7 columns in a@left, more than its rank can be",
    ),
    "a vector of factors": ({"a_left": lambda t: t[:, 0]}, r"a@left has shape \(6,\)"),
    "a difference of another shape": ({"b_difference": lambda t: t.view(2, 2)}, r"shape \(2, 2\), not \(4,\)"),
    "a difference of another dtype": ({"b_difference": lambda t: t.float()}, r"of torch.float32, not torch.float16"),
    "a factor of another dtype": ({"a_left": lambda t: t.bfloat16()}, r"of torch.bfloat16, not torch.float16"),
    "a scale for each number": ({"b_scale": lambda t: torch.ones(4)}, r"b@scale has shape \(4,\), not \(\)"),
    "a scale of another dtype": ({"b_scale": lambda t: t.half()}, "b@scale is of torch.float16"),
    "a scale below 0": ({"b_scale": lambda t: -t}, "must be a power of two"),
    "a scale of 0": ({"b_scale": lambda t: 0 * t}, "must be a power of two"),
    "a scale of 3": ({"b_scale": lambda t: 0 * t + 3}, "must be a power of two"),
    "a scale that is no number": ({"b_scale": lambda t: t * math.nan}, "must be a power of two"),
    "numbers that are not finite": ({"b_difference": lambda t: t / 0}, "b in the pack makes numbers that are not"),
    "a product that is not finite": (
        {"a_left": lambda t: t * 0 + 6e4, "a_right": lambda t: t * 0 + 6e4, "a_scale": lambda t: t * 0 + 2.0**127},
        "a in the pack makes numbers that are not finite",
    ),
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
        (lambda s: s.update(c=torch.zeros(1)), "has no 'c'"),
        (lambda s: s.update(a=torch.zeros(8, 6)), r"its a has shape \(8, 6\), not \(6, 8\)"),
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
