"""How much of a step on the embedded pair is our code, and how much the networks.

    python benchmarks/step_overhead.py [--method ld] [--steps 8] [--json]

Records every call of a network that real steps make (the generator's scene and render, the scorer's encode and noise
prediction), then replays those calls alone, forward and backward, with the inputs that they had. Steps and replays
alternate in one process; compared is CPU time, median against median. What is left over is our code around them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from distill3d.methods import build_method
from distill3d.plugins import registry
from distill3d.renderer import Render
from distill3d.styles import CATALOGUE
from distill3d.training.trainer import Trainer

Call = tuple[str, Callable[..., Any], tuple, dict, bool]  # name, function, arguments, options, with a graph


class Recorder:
    """Replaces methods of networks by ones that note each call with its detached inputs."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.on = False

    def watch(self, owner: Any, method: str, name: str) -> None:
        original = getattr(owner, method)

        def noted(*args: Any, **options: Any) -> Any:
            if self.on:
                self.calls.append((name, original, detached(args), detached(options), torch.is_grad_enabled()))
            return original(*args, **options)

        setattr(owner, method, noted)


def detached(value: Any) -> Any:
    """The same structure, its tensors cut from their graphs but still wanting gradients where they did."""
    if isinstance(value, Tensor):
        return value.detach().requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {key: detached(v) for key, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(detached(v) for v in value)
    return value


def tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Render):
        return [value.raw if value.image is None else value.image]
    return [t for v in value.values() for t in tensors_of(v)] if isinstance(value, dict) else []


def replay(calls: list[Call]) -> None:
    for _, function, args, options, with_graph in calls:
        with torch.set_grad_enabled(with_graph):
            outputs = [t for t in tensors_of(function(*args, **options)) if t.requires_grad]
        if outputs:
            torch.autograd.backward(outputs, [torch.ones_like(t) for t in outputs])


def cpu_seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="ld")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)

    renderer = registry().find("backbone", "tiny").load()()
    scorer = registry().find("scorer", "tiny").load()()
    factory = registry().find("method", options.method).load()
    method = build_method(options.method, factory, scorer, CATALOGUE["zombie"], renderer.defaults, {})
    trainer = Trainer(renderer, method, batch=renderer.defaults.batch, lr=lambda step: 1e-5)
    recorder = Recorder()
    for owner, name in ((renderer, "trained"), (trainer.reference, "reference")):
        recorder.watch(owner, "scene", f"{name} scene")
        for render in ("render", "render_raw"):
            if hasattr(owner, render):
                recorder.watch(owner, render, f"{name} {render}")
    for name in ("encode", "decode", "predict_noise"):
        recorder.watch(scorer, name, name)

    trainer.step()  # warm up
    steps, replays = [], []
    for _ in range(options.steps):
        recorder.calls, recorder.on = [], True
        steps.append(cpu_seconds(trainer.step))
        recorder.on = False
        replays.append(cpu_seconds(lambda: replay(recorder.calls)))
        trainer.optimizer.zero_grad(set_to_none=True)
    step, networks = statistics.median(steps), statistics.median(replays)
    figures = {
        "method": options.method,
        "passes": dict(Counter(name for name, *_ in recorder.calls)),
        "step_cpu_seconds": round(step, 4),
        "networks_cpu_seconds": round(networks, 4),
        "around_the_networks": round(1 - networks / step, 4),
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, count in figures["passes"].items():
        print(f"{name:20} {count} calls")
    print(
        f"step {step:.3f} CPU-s, networks alone {networks:.3f} CPU-s: {100 * (1 - networks / step):.1f} % around them"
    )


if __name__ == "__main__":
    main()
