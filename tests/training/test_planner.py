"""The planner: what a rehearsal counts is what a real step needs, and the plan that is chosen fits."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from distill3d import methods
from distill3d.errors import ConfigError
from distill3d.renderer import Thrifty
from distill3d.scorer import Economy
from distill3d.scorers.diffusers import load_tiny
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.testing.saved_bytes import SavedBytes
from distill3d.training.planning import (
    LADDER,
    MemoryPlan,
    apply_plan,
    choose_plan,
    current_plan,
    is_out_of_memory,
    last_saving,
    next_smaller,
    not_offered,
    parse_vram,
    predict,
)
from distill3d.training.planning.budget import GIB, RESERVED, available
from distill3d.training.planning.kernels import cpu_scratch
from distill3d.training.planning.offload import PlayedOffload
from distill3d.training.planning.phases import Phases
from distill3d.training.planning.plan import ladder
from distill3d.training.planning.predict import on_meta
from distill3d.training.planning.rehearsal import Rehearsal, played
from distill3d.training.trainer import Trainer
from tests.toys import toy

MIB = 2**20


def parts(batch=2, method="csd", scorer=None, **options):
    """A toy whose rays are its largest part, a scorer and a method."""
    renderer = toy(dtype=torch.float32, raw_size=48)
    scorer = scorer or GaussianScorer(latent_size=8)
    built = getattr(methods, method)(scorer, CATALOGUE["zombie"], renderer.defaults, **options)
    return renderer, scorer, built


class Measured(TorchDispatchMode):
    """The bytes of real tensors that are made inside and alive at most, added to those that were there before."""

    def __init__(self, before):
        super().__init__()
        self.alive = {}
        self.peak = 0
        self.follow(before)

    def follow(self, tensors):
        import weakref

        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.alive.values()))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.follow([t for t in tree_leaves(out) if isinstance(t, torch.Tensor)])
        return out


def test_live_bytes_are_those_that_one_counts_by_hand():
    peaks = []
    with Rehearsal(on_change=peaks.append) as memory:
        a = torch.empty(1000, device="meta")  # 4000
        b = a * 2  # 8000
        del a  # 4000
        view = b[10:20].view(2, 5)  # 4000: the same storage
        del b  # 4000: the view keeps it
        assert memory.live == 4000
        view.add_(1)
        wide = view.sum(1)[:, None] + torch.empty(2, 500, device="meta")  # 4000 + 8 + 4000 + 4000
        assert memory.live == 4000 + 4000
        del view
        assert memory.live == wide.nbytes == 4000
        del wide
    assert memory.live == 0
    assert max(peaks) == 4000 + 8 + 4000 + 4000


def test_what_a_rehearsal_remembers_looks_like_what_torch_returns():
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    weight, wide = torch.randn(5, 3, 3, 3), torch.randn(2, 1, 1, 8)

    def results(x, weight, wide):
        y = torch.conv2d(x, weight, padding=1)
        return [
            y,
            x * wide,
            x > 0,
            torch.where(x > 0, x, wide),
            x.half() + wide,
            x.mean((2, 3)),
            x.flatten(1) @ x.flatten(1).T,
            torch.cat([x, x], 1),
            *torch.var_mean(x, 0),
            x.sort(-1).indices,
            x.transpose(1, 2).reshape(2, -1),
            y.sigmoid_().mul_(2),
        ]

    real = results(x, weight, wide)
    given = [t.to("meta") for t in (x, weight, wide)]
    with Rehearsal():
        first, again = results(*given), results(*given)
    for expected, *found in zip(real, first, again):
        for one in found:
            assert one.is_meta
            assert (one.shape, one.stride(), one.dtype) == (expected.shape, expected.stride(), expected.dtype)


def test_values_are_zero_masks_take_everything_and_the_host_gets_real_tensors():
    with Rehearsal():
        x = torch.empty(4, 5, device="meta")
        assert float(x.sum()) == 0.0
        assert not bool((x > 0).any())
        assert x[x > 0].shape == (20,)
        assert (x > 0).nonzero().shape == (20, 2)
        assert torch.equal(x.cpu(), torch.zeros(4, 5))
        assert (torch.ones(5) + x).is_meta


def test_work_and_memory_are_counted_for_the_part_whose_forward_or_backward_it_is():
    phases = Phases()
    first, second = nn.Linear(10, 20, device="meta"), nn.Linear(20, 5, device="meta")
    with Rehearsal(on_change=phases.at, on_flops=phases.count) as memory:
        memory.hold([*first.parameters(), *second.parameters()])
        x = torch.empty(7, 10, device="meta")
        with phases.inside("first"):
            y = first(x)
        with phases.inside("second"):
            z = second(y)
        z.sum().backward()
    flops = {name: phase.flops for name, phase in phases.parts.items()}
    products = 2 * 7 * 10 * 20, 2 * 7 * 20 * 5
    assert flops["first"], flops["second"] == products
    assert flops["first backward"] == products[0]  # its input wants no gradient
    assert flops["second backward"] == 2 * products[1]
    weights = sum(p.nbytes for p in [*first.parameters(), *second.parameters()])
    assert phases.parts["first"].peak == weights + x.nbytes + y.nbytes


def test_what_autograd_keeps_on_meta_is_what_it_keeps_of_a_real_pass():
    renderer = toy(dtype=torch.float32, raw_size=16)
    codes = torch.randn(2, *renderer.code_shape)
    cameras = renderer.defaults.front
    from distill3d.cameras import orbit

    view = orbit(torch.zeros(2, 1), torch.zeros(2, 1), cameras.radius, cameras.focal)

    def loss(renderer, codes, view):
        return renderer.render(renderer.scene(codes), view).image.square().sum()

    with SavedBytes(ignore=renderer.parameters()) as saved:
        kept = loss(renderer, codes, view)
        real = saved.live
    shape = copy.deepcopy(renderer).to("meta")
    view, codes = view.to(torch.empty(0, device="meta")), codes.to("meta")
    given = [codes, view.cam2world, view.intrinsics, *shape.parameters()]
    with Rehearsal() as memory:
        memory.hold(given)
        rehearsed = loss(shape, codes, view)
        found = memory.live - sum(t.nbytes for t in given) - rehearsed.nbytes
    # What was given and is saved counts in one and not in the other.
    assert real - sum(t.nbytes for t in given[:3]) <= found <= real
    assert real > 100_000 and kept.requires_grad


@pytest.mark.parametrize("plan", [MemoryPlan(), MemoryPlan(rerender=True), MemoryPlan(micro_batch=1)], ids=last_saving)
def test_the_predicted_peak_is_that_of_a_real_step(plan):
    renderer, scorer, method = parts()
    predicted = predict(plan, renderer, scorer, method, batch=2, kind="cpu")
    trainer = Trainer(renderer, method, batch=2, rerender=plan.rerender, micro_batch=plan.micro_batch)
    trainer.step()  # Adam's averages are there from now on
    held = [*renderer.parameters(), *trainer.reference.parameters(), *scorer.parameters()]
    averages = [t for state in trainer.optimizer.state.values() for t in state.values()]
    with Measured([*held, *averages]) as measured:
        trainer.step()
    # Numbers that are drawn on the host are measured here, too: the meta device is another one.
    assert predicted.peak == pytest.approx(measured.peak, rel=0.05)
    assert predicted.peak - predicted.held > MIB


def test_what_is_there_all_the_time_is_predicted_to_the_byte():
    renderer, scorer, method = parts(scorer=load_tiny())
    found = predict(MemoryPlan(), renderer, scorer, method, ema=True)
    assert found.backbone == sum(t.nbytes for t in [*renderer.parameters(), *renderer.buffers()])
    assert found.scorer == sum(t.nbytes for t in [*scorer.parameters(), *scorer.buffers()])
    trainer = Trainer(renderer, method, ema=0.9)
    trainer.step()
    trained = sum(p.nbytes for p in trainer.trained.values())
    averages = [t for state in trainer.optimizer.state.values() for n, t in state.items() if n != "step"]
    assert found.gradients == found.reference == found.averaged == trained
    assert found.optimizer == sum(t.nbytes for t in averages)


def test_planning_leaves_the_run_as_it_is():
    renderer, scorer, method = parts(scorer=load_tiny())
    before = {name: t.clone() for name, t in renderer.state_dict().items()}
    predict(MemoryPlan(economy=Economy(branches_apart=True)), renderer, scorer, method)
    assert scorer.economy == Economy()
    assert not renderer.decoder.weight.is_meta and renderer.decoder.weight.requires_grad
    assert all(torch.equal(before[name], t) for name, t in renderer.state_dict().items())
    assert all(term.term.denoising.scorer is scorer for term in method.terms.values())
    shadow, other, shadowed = on_meta(renderer, scorer, method)
    assert {t.device.type for t in [*shadow.parameters(), *other.parameters()]} == {"meta"}
    assert all(term.term.denoising.scorer is other for term in shadowed.terms.values())


def test_every_rung_of_the_ladder_needs_no_more_than_the_one_above_it():
    renderer, scorer, method = parts(mirror=True, scorer=load_tiny())
    without = not_offered(renderer, scorer, batch=2)
    found = [predict(plan, renderer, scorer, method, batch=2) for plan in ladder(batch=2, without=without)]
    peaks = [prediction.peak for prediction in found]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[-1] < 0.8 * peaks[0]
    work = [prediction.flops for prediction in found]
    assert work == sorted(work) and work[-1] > work[0]


def test_the_ladder_takes_one_saving_after_the_other_and_never_another_gradient():
    names = [last_saving(plan) for plan in LADDER]
    assert names[:3] == ["everything kept", "one subject at a time", "views rendered again"]
    assert len(set(names)) == len(names) == 8
    assert not any(plan.fast for plan in LADDER)
    assert next_smaller(LADDER[-1], batch=2) is None
    assert last_saving(next_smaller(MemoryPlan())) == "views rendered again"  # one subject is not split
    skipped = next_smaller(MemoryPlan(rerender=True), without={"rays computed again"})
    assert skipped.economy.branches_apart and not skipped.low_memory


def test_a_plan_is_put_to_work_where_it_can_be():
    class ThriftyToy(type(toy()), Thrifty):
        low_memory = False

    renderer, scorer = ThriftyToy(), load_tiny()
    plan = MemoryPlan(low_memory=True, economy=Economy(sliced_decoder=True))
    apply_plan(plan, renderer, scorer)
    assert renderer.low_memory and scorer.economy.sliced_decoder
    assert current_plan(renderer, scorer) == replace(plan, rerender=renderer.defaults.rerender)
    apply_plan(MemoryPlan(), renderer, scorer)
    assert renderer.low_memory and not scorer.economy.sliced_decoder  # None leaves the backbone as it is
    apply_plan(plan, toy(), GaussianScorer(latent_size=8))  # neither can; neither minds
    assert not_offered(renderer, scorer, batch=2) == frozenset()
    assert "rays computed again" in not_offered(toy(), scorer, batch=1)


def test_the_first_plan_that_fits_is_chosen_and_none_says_what_the_smallest_needs():
    renderer, scorer, method = parts()
    settings = {"batch": 2, "ema": False, "device": "cpu"}

    def mib(plan):
        return (predict(plan, renderer, scorer, method, batch=2, kind="cpu").peak + RESERVED["cpu"]) / MIB

    everything, apart = mib(MemoryPlan()), mib(MemoryPlan(micro_batch=1))
    last = mib(MemoryPlan(micro_batch=1, rerender=True))
    assert everything > apart
    chosen = choose_plan(renderer, scorer, method, vram=f"{everything + 0.01:.2f}mb", **settings)
    assert chosen == MemoryPlan(low_memory=False)
    chosen = choose_plan(renderer, scorer, method, vram=f"{apart + 0.01:.2f}mb", **settings)
    assert chosen == MemoryPlan(micro_batch=1, low_memory=False)
    with pytest.raises(ConfigError, match=rf"No plan fits into 0.5 GiB.*needs {last / 1024:.1f} GiB"):
        choose_plan(renderer, scorer, method, vram="512mb", **settings)


def test_networks_that_wait_on_the_host_are_not_counted_but_for_the_one_in_use():
    changes = []
    networks = {"large": nn.Linear(30, 100, bias=False), "small": nn.Linear(5, 5, bias=False)}
    played_one = PlayedOffload(networks, torch.device("meta"), changes.append)
    for name in ("small", "small", "large", "small"):
        played_one.bring(name)
    assert changes == [-12_100, 100, 12_000 - 100, 100 - 12_000]


def test_offload_leaves_the_largest_network_at_most():
    renderer, scorer, method = parts(scorer=load_tiny(), batch=1)
    kept = predict(MemoryPlan(), renderer, scorer, method)
    away = predict(MemoryPlan(economy=Economy(offload=True)), renderer, scorer, method)
    networks = {name: sum(p.nbytes for p in part.parameters()) for name, part in scorer.named_children()}
    assert kept.scorer - away.scorer == sum(networks.values()) + sum(
        b.nbytes for part in scorer.children() for b in part.buffers()
    )
    in_use = kept.phases["denoise"].peak - away.phases["denoise"].peak
    assert 0 < in_use <= kept.scorer - networks["unet"]


def fail_on_purpose():
    raise RuntimeError("on purpose")


def test_a_device_is_played_for_as_long_as_asked():
    attention = torch.nn.functional.scaled_dot_product_attention
    with played("cuda"):
        assert torch.empty(1, device="meta").is_cuda and not torch.empty(1).is_cuda
        assert nn.Parameter(torch.empty(1, device="meta")).is_cuda
    with pytest.raises(RuntimeError, match="on purpose"), played("cuda"):
        fail_on_purpose()
    assert not torch.empty(1, device="meta").is_cuda
    assert torch.nn.functional.scaled_dot_product_attention is attention


def test_attention_keeps_no_matrix_of_all_pairs():
    q = torch.empty(1, 2, 4096, 16, device="meta", requires_grad=True)
    peaks, work = [], []
    with played("cpu"), Rehearsal(on_change=peaks.append, on_flops=lambda flops, dtype: work.append(flops)):
        torch.nn.functional.scaled_dot_product_attention(q, q, q).sum().backward()
    assert max(peaks) < 20 * q.nbytes < 2 * 4096**2 * 4
    product = 2 * 2 * 4096**2 * 16
    assert work == [2 * product, 5 * product]  # backward computes the weights again


def test_a_convolution_on_the_cpu_is_allowed_its_copies():
    x, weight = torch.empty(1, 8, 32, 32, device="meta"), torch.empty(16, 8, 3, 3, device="meta")
    found = []

    def spare(func, args, out):
        found.append(cpu_scratch(func, args, out))
        return found[-1]

    with Rehearsal(spare):
        y = torch.conv2d(x, weight, padding=1)
        assert found[-1] == weight.nbytes + y.nbytes
        torch.conv2d(x.contiguous(memory_format=torch.channels_last), weight, padding=1)
        assert found[-1] == weight.nbytes


@pytest.mark.parametrize(
    ("text", "size"),
    [("8gb", 8 * GIB), ("7.5GB", 7.5 * GIB), ("8192mb", 8 * GIB), (" 12 GiB ", 12 * GIB), (".5g", GIB / 2)],
)
def test_memory_is_said_as_it_is_sold(text, size):
    assert parse_vram(text, "cpu") == size


@pytest.mark.parametrize("text", ["", "8", "lots", "-8gb", "0gb", "8tb", "8 g b", "1e3gb", "gb"])
def test_memory_that_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="is a size such as 8gb"):
        parse_vram(text, "cpu")


def test_auto_is_what_this_machine_has_left():
    import os

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < parse_vram("auto", "cpu") <= total
    with pytest.raises(ConfigError, match="give a size"):
        available(torch.device("meta"))


def test_memory_that_was_not_enough_is_told_from_other_errors():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**59)
    assert is_out_of_memory(raised.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))
