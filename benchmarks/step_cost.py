"""What one training step of a published backbone costs, against the released script's schedule.

    python benchmarks/step_cost.py --backbone panohead --size full|reduced [--count-only] [--json]

First it stages the released script's schedule literally, with our modules (released_step.py), and checks what it counts
against what that script was found to cost: 28.44 TFLOP, so many calls of each part and so much for each call. If that
differs, it says where and ends with 1. Then it counts whole steps of `Trainer`, recomputation included, on the meta
device (step_meter.py says how).

Without --count-only it measures, one thread, float32, smallest of the repeats:

- reduced: the released schedule, `ld-released` and `ld` in one process in turns. For the gradients of the first two to
  be comparable, the schedule is staged there with the pictures that `ld-released` reads: the reference's own depth and
  our resizing, no LPIPS, planes' noise constant. Depth Anything and LPIPS are so on neither side of the times.
- full: every network call timed alone, times its calls ("sum of parts"), and one whole `ld` step with the scorer's
  networks in half precision (`precision="half"`) in a process of its own, for its peak memory.

Ends with 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, also for child processes

import torch
from step_count import METHODS, Tallies, count_method, count_released
from step_models import FROZEN, GENERATOR, NEURAL_RESOLUTION, RENDERING
from step_parts import sum_of_parts, time_parts, whole_step
from step_seconds import measure_reduced

from distill3d.scorers.architectures import Size

RELEASED_TFLOP = 28.44
# Part: forward and backward calls of a step, TFLOP of a forward and of a backward; None where none was published.
RELEASED_CALLS: dict[str, tuple[int, int, float | None, float | None]] = {
    "planes": (10, 7, 0.100, 0.199),
    "planes, frozen": (6, 0, 0.100, None),
    "volume rendering": (10, 7, 0.003, 0.007),
    "volume rendering, frozen": (6, 0, 0.003, None),
    "super-resolution": (10, 3, 0.198, 0.394),
    "super-resolution, frozen": (6, 0, 0.198, None),
    "VAE encode": (3, 3, 1.117, 2.233),
    "VAE decode": (2, 0, 2.515, None),
    "text encoder": (4, 0, 0.013, None),
    "ControlNet": (2, 0, 0.567, None),
    "UNet": (2, 0, 1.607, None),
    "Depth Anything": (4, 0, 0.381, None),
    "LPIPS": (1, 1, None, None),
}
COUNT_GOALS = {"ld-released": 0.64, "ld": 0.40, "ld --fast": 0.25}  # shares of the released step's TFLOP
SECONDS_GOALS = {"ld-released": 0.70, "ld": 0.45}  # shares of its CPU time at the reduced size
EQUAL = 1e-4  # relative L2 of two gradients that are the same mathematics
STEP_GIB = 12.0


def differences(tallies: Tallies) -> list[str]:
    """Where a count of the released schedule is not what the released script was found to cost."""
    found = []
    total = total_of(tallies)
    if abs(total / RELEASED_TFLOP - 1) > 0.01:
        found.append(f"{total:.2f} TFLOP instead of {RELEASED_TFLOP}")
    for part, (forward, backward, each, each_backward) in RELEASED_CALLS.items():
        t = tallies[part]
        if (t.calls, t.backward_calls) != (forward, backward):
            found.append(f"{part}: {t.calls}+{t.backward_calls} calls instead of {forward}+{backward}")
            continue
        for what, wanted, flop, calls in (
            ("forward", each, t.forward_flop, forward),
            ("backward", each_backward, t.backward_flop, backward),
        ):
            if wanted is not None and abs(flop / calls / 1e12 - wanted) > 0.0005 + 0.01 * wanted:
                found.append(f"{part}: {flop / calls / 1e12:.4f} TFLOP a {what} instead of {wanted}")
    return found


def total_of(tallies: Tallies) -> float:
    return sum(t.tflop for t in tallies.values())


def entry(tallies: Tallies, released: float) -> dict[str, Any]:
    """A method's row of the report: parts without saying which generator, passes with it."""
    parts: dict[str, float] = {}
    for name, t in tallies.items():
        parts[name.removesuffix(FROZEN)] = parts.get(name.removesuffix(FROZEN), 0.0) + t.tflop
    return {
        "tflop": round(total_of(tallies), 4),
        "share_of_released": round(total_of(tallies) / released, 4),
        "parts": {name: round(tflop, 4) for name, tflop in parts.items()},
        "passes": {
            name: {
                "forward": t.calls,
                "backward": t.backward_calls,
                "pictures": t.pictures,
                "backward_pictures": t.backward_pictures,
            }
            for name, t in tallies.items()
            if t.calls
        },
    }


def configuration(size: Size) -> dict[str, Any]:
    return {
        "backbone": "panohead",
        "size": size,
        "generator": {**GENERATOR[size], **RENDERING[size], "neural_resolution": NEURAL_RESOLUTION[size]},
        "scorer": f"Stable Diffusion 1.5, {size}, ControlNets for edges and depth",
        "views": "one, its mirror image, a 2x2 grid, every step",
        "batch": 1,
        "dtype": "float32",
        "weights": "random",
        "torch": torch.__version__,
        "threads": 1,
    }


def count(size: Size) -> tuple[dict[str, Tallies], list[str]]:
    """Every method's tallies, and what is wrong with the released one's."""
    tallies = {"released": count_released(size)}
    wrong = differences(tallies["released"]) if size == "full" else []
    if not wrong:
        tallies.update({name: count_method(name, size) for name in METHODS})
    return tallies, wrong


def missed(shares: dict[str, float], goals: dict[str, float], what: str) -> list[str]:
    return [
        f"{name}: {shares[name]:.3f} of the released step's {what}, wanted at most {goal}"
        for name, goal in goals.items()
        if shares[name] > goal
    ]


def measure_at_reduced_size(methods: dict[str, Any], repeats: int) -> tuple[dict[str, Any], list[str]]:
    """Seconds and peaks into the methods' rows; what else was measured, and goals that were missed."""
    measured, apart = measure_reduced(repeats)
    for name, best in measured.items():
        methods[name].update(cpu_seconds=round(best.seconds, 2), peak_gib=round(best.gib, 2))
    shares = {name: best.seconds / measured["released"].seconds for name, best in measured.items()}
    misses = missed(shares, SECONDS_GOALS, "CPU time")
    if not apart <= EQUAL:
        misses.append(f"ld-released: the gradient is {apart:.1e} from the released schedule's, wanted at most {EQUAL}")
    return {
        "gradient_of_ld_released_against_released": apart,
        "cpu_shares": {name: round(share, 3) for name, share in shares.items()},
        "peaks": "of the whole process, the networks of both methods loaded",
        "repeats": repeats,
    }, misses


def measure_at_full_size(methods: dict[str, Any], tallies: dict[str, Tallies]) -> tuple[dict[str, Any], list[str]]:
    """The same at full size, where CPU seconds are a sum of parts, and memory that of one whole step."""
    whole = whole_step("half")
    seconds = time_parts(lambda line: print(line, file=sys.stderr, flush=True))
    for name, of_method in tallies.items():
        total = sum_of_parts(of_method, seconds, released=name == "released", fast=name.endswith("--fast"))
        methods[name].update(cpu_seconds=round(total, 1), cpu_seconds_are="sum of parts")
    methods["ld"].update(peak_gib=round(whole["peak_gib"], 2), peak_gib_is="of one whole step, the scorer in half")
    misses = []
    if not whole["peak_gib"] <= STEP_GIB:
        misses.append(f"A whole ld step in half precision takes {whole['peak_gib']:.2f} GiB, wanted at most {STEP_GIB}")
    return {"one_whole_ld_step": whole, "cpu_seconds_of_parts": seconds}, misses


def show(report: dict[str, Any]) -> None:
    print(json.dumps(report["configuration"], indent=1))
    for name, method in report["methods"].items():
        print(f"\n{name}: {method['tflop']:.2f} TFLOP, {method['share_of_released']:.3f} of the released step")
        print(f"  {'part':28s} {'forward':>8s} {'backward':>9s} {'TFLOP':>9s}")
        for part, p in method["passes"].items():
            tflop = method["parts"].get(part)
            tail = "" if tflop is None else f"{tflop:9.3f}"
            print(f"  {part:28s} {p['forward']:8d} {p['backward']:9d} {tail}")
        for key in ("cpu_seconds", "cpu_seconds_are", "peak_gib", "peak_gib_is"):
            if key in method:
                print(f"  {key}: {method[key]}")
    for key, value in report.get("measured", {}).items():
        print(f"\n{key}: {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", choices=["panohead"], default="panohead")
    parser.add_argument("--size", choices=["full", "reduced"], default="full")
    parser.add_argument("--count-only", action="store_true", help="on the meta device alone; nothing is timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)

    tallies, wrong = count(given.size)
    if wrong:
        sys.exit("The released schedule is not what was staged:\n" + "\n".join(f"  {line}" for line in wrong))
    full = given.size == "full"
    released = RELEASED_TFLOP if full else total_of(tallies["released"])
    methods = {name: entry(t, released) for name, t in tallies.items()}
    report: dict[str, Any] = {"methods": methods, "configuration": configuration(given.size)}
    misses = []
    if full:
        misses += missed({n: m["share_of_released"] for n, m in methods.items()}, COUNT_GOALS, "TFLOP")
    if not given.count_only:
        done = measure_at_full_size(methods, tallies) if full else measure_at_reduced_size(methods, given.repeats)
        report["measured"] = done[0]
        misses += done[1]
    if given.json:
        print(json.dumps(report))
    else:
        show(report)
    if misses:
        sys.exit("\n".join(misses))


if __name__ == "__main__":
    main()
