"""What benchmarks/step_cost.py counts, and that the schedule it compares with is the released script's."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from distill3d.methods import build_method
from distill3d.plugins import registry
from distill3d.scorers.diffusers import load_tiny as load_tiny_scorer
from distill3d.tiny.generator import load_tiny
from distill3d.training.trainer import Trainer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # its scripts import each other by name, as when one of them is run

pytest.importorskip("distill3d_eg3d")

from step_cost import COUNT_GOALS, RELEASED_CALLS, differences, entry  # noqa: E402
from step_count import STYLE  # noqa: E402
from step_meter import Meter, Tally, Unseen  # noqa: E402
from step_seconds import Second, relative_difference  # noqa: E402


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2), nn.Flatten())


def test_a_meter_counts_what_torch_counts():
    with torch.device("meta"):
        net, x = network(), torch.ones(2, 3, 9, 9, requires_grad=True)
    with FlopCounterMode(display=False) as torch_counts:
        net(x).sum().backward()
    meter = Meter()
    with meter:
        net(x).sum().backward()
    assert sum(t.tflop for t in meter.parts.values()) * 1e12 == torch_counts.get_total_flops() > 0


def test_a_backward_belongs_to_the_part_whose_forward_it_undoes():
    with torch.device("meta"):
        first, second, x = nn.Linear(5, 7), nn.Linear(7, 2), torch.ones(3, 5, requires_grad=True)
    meter = Meter()
    for name, part in (("first", first), ("second", second)):
        meter.watch(part, "forward", name, len)
    with meter:
        (second(first(x)) * 1).sum().backward()
    flop = {name: 2 * 3 * part.weight.numel() for name, part in (("first", first), ("second", second))}
    for name, forward in flop.items():
        tally = meter.parts[name]
        assert (tally.forward_flop, tally.backward_flop) == (forward, 2 * forward)  # of the input, of the weight
        assert (tally.calls, tally.backward_calls, tally.pictures) == (1, 1, 3)


def test_what_is_computed_again_on_the_way_back_is_counted_twice():
    with torch.device("meta"):
        first, second, x = nn.Linear(5, 7), nn.Linear(7, 2), torch.ones(3, 5, requires_grad=True)
    meter = Meter()
    meter.watch(first, "forward", "first", len)
    with meter:
        checkpoint(lambda x: second(first(x)), x, use_reentrant=False).sum().backward()
    assert meter.parts["first"].forward_flop == 2 * 2 * 3 * first.weight.numel()


def test_values_on_the_meta_device_are_zero_and_others_are_as_they_are():
    hidden, seen = torch.ones(2, device="meta"), torch.ones(2)
    with Unseen():
        assert hidden.tolist() == [0, 0] and not (hidden.sum() > 0) and float(hidden.sum()) == 0
        assert hidden.cpu().tolist() == hidden.to("cpu").tolist() == [0, 0]
        assert seen.tolist() == [1, 1] and float(seen.sum()) == 2
        assert hidden.to(torch.float64).is_meta


def published():
    """Tallies of a step that costs what the released one was found to cost."""
    tallies = {}
    for part, (forward, backward, each, each_backward) in RELEASED_CALLS.items():
        flop = (int(1e12 * calls * (cost or 0)) for calls, cost in ((forward, each), (backward, each_backward)))
        tallies[part] = Tally(*flop, forward, backward, forward, backward)
    return tallies


def test_a_schedule_that_is_not_the_released_one_is_named():
    assert differences(published()) == []
    missing_a_call, too_dear = published(), published()
    missing_a_call["VAE decode"].calls = 1
    assert differences(missing_a_call) == ["VAE decode: 1+0 calls instead of 2+0"]
    too_dear["UNet"].forward_flop *= 2
    total, unet = differences(too_dear)
    assert total.endswith("TFLOP instead of 28.44") and unet.startswith("UNet: 3.2")


def test_a_methods_parts_add_up_to_its_whole():
    row = entry(published(), 28.44)
    assert sum(row["parts"].values()) == pytest.approx(row["tflop"], abs=1e-3)
    assert row["share_of_released"] == pytest.approx(1, abs=0.01)
    assert not any("frozen" in part for part in row["parts"])
    assert row["passes"]["planes"] == {"forward": 10, "backward": 7, "pictures": 10, "backward_pictures": 7}


def test_the_released_schedule_and_ld_released_are_the_same_gradient():
    """On the embedded pair: ten passes of the backbone and one, three backwards and one."""
    pytest.importorskip("cv2")
    renderer, scorer = load_tiny(), load_tiny_scorer()
    scorer.grid_words = ""  # the released script says nothing of views
    factory = registry().find("method", "ld-released").load()
    method = build_method("ld-released", factory, scorer, STYLE, renderer.defaults, {})
    second = Second(Trainer(renderer, method, batch=1))
    ours, released = second.ours(), second.released()
    assert relative_difference(ours, released) < 1e-4
    (name,) = [name for name in ours if ours[name].square().sum() == max(g.square().sum() for g in ours.values())]
    assert relative_difference({**ours, name: 1.01 * ours[name]}, released) > 1e-3  # it would be seen


@pytest.mark.slow
def test_full_size_steps_cost_what_was_promised(tmp_path):
    script = BENCHMARKS / "step_cost.py"
    arguments = ["--backbone", "panohead", "--size", "full", "--count-only", "--json"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    methods = json.loads(done.stdout)["methods"]
    assert methods["released"]["tflop"] == pytest.approx(28.44, rel=0.01)
    for name, goal in COUNT_GOALS.items():
        assert methods[name]["tflop"] <= goal * 28.44
        assert sum(methods[name]["parts"].values()) == pytest.approx(methods[name]["tflop"], abs=1e-3)


@pytest.mark.slow
def test_half_precision_keeps_the_gradients_of_the_embedded_pair(tmp_path):
    script = BENCHMARKS / "grad_precision.py"
    arguments = ["--pairs", "embedded", "--steps", "1", "--json"]
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {(r["method"], r["part"]) for r in rows} == {
        (method, part) for method in ("ld", "ld-released") for part in ("autoencoder", "score", "whole step")
    }
    assert all(0 < r[what] < 1 for r in rows for what in ("images", "weights"))  # half is not float32 under a name
