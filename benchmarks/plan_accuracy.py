"""Predicted against measured peak memory of a step, CPU, float32, random weights.

    python benchmarks/plan_accuracy.py [--only NAME ...] [--json]

Every configuration runs in a fresh process: VmRSS after all imports, then networks, trainer and two steps, then VmHWM;
the difference is what is predicted. glibc's allocator keeps freed memory by default, so each process has one arena and
gives back whatever is larger than 64 KiB. The prediction runs in a process of its own, on the meta device.
Ends with 1 if an error exceeds 15 %, or a configuration's activations (peak less weights and optimiser) are under 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

GOAL = 0.15
LEAST = 1e9  # bytes of activations
ALLOCATOR = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
}


@dataclass(frozen=True)
class Configuration:
    """What is planned for; `make` builds it on any device."""

    backbone: str
    scorer: str
    method: str
    rerender: bool
    recompute_encoder: bool = False
    low_memory: bool | None = None
    sliced_decoder: bool = False
    batch: int = 1


CONFIGURATIONS = {
    "panohead, views kept": Configuration("panohead", "half, 256 px", "sds", rerender=False),
    "panohead, views rendered again": Configuration("panohead", "half, 256 px", "ld", rerender=True),
    "panohead, low memory, two subjects": Configuration(
        "panohead", "half, 256 px", "csd", rerender=True, low_memory=True, batch=2
    ),
    "eg3d, wide autoencoder": Configuration("eg3d", "wide autoencoder, 384 px", "csd", rerender=True, low_memory=True),
    "eg3d, encoder computed again": Configuration(
        "eg3d", "wide autoencoder, 512 px", "csd", rerender=True, recompute_encoder=True, low_memory=True
    ),
    "triposr of 6 layers": Configuration("triposr", "half, 256 px", "csd", rerender=True, low_memory=True),
}
OPTIONS: dict[str, dict[str, Any]] = {"ld": {"path": "noise"}, "sds": {}, "csd": {}}


def make(wanted: Configuration, device: str) -> tuple[Any, Any, Any, Any]:
    """Plan, renderer, scorer and method."""
    import torch

    from distill3d import methods
    from distill3d.scorer import Economy
    from distill3d.styles import CATALOGUE
    from distill3d.training.planning import MemoryPlan

    torch.manual_seed(0)
    renderer = _backbone(wanted.backbone, device)
    scorer = _scorer(wanted.scorer, device)
    build = getattr(methods, wanted.method)
    method = build(scorer, CATALOGUE["zombie"], renderer.defaults, **OPTIONS[wanted.method])
    plan = MemoryPlan(
        rerender=wanted.rerender,
        low_memory=wanted.low_memory,
        economy=Economy(recompute_encoder=wanted.recompute_encoder, sliced_decoder=wanted.sliced_decoder),
    )
    return plan, renderer, scorer, method


def _backbone(name: str, device: str) -> Any:
    import torch

    from distill3d_eg3d.shapes import shape_of_eg3d, shape_of_panohead
    from distill3d_lrm.renderer import Look
    from distill3d_lrm.shapes import renderer_of
    from distill3d_lrm.triposr import TripoSR, TripoSRConfig

    if name == "triposr":
        with torch.device(device):
            model = TripoSR(TripoSRConfig(layers=6))
        return renderer_of(model, Look(low_memory=True, rays_at_once=1024), image_size=96)
    return {"eg3d": shape_of_eg3d, "panohead": shape_of_panohead}[name](device)


def _scorer(name: str, device: str) -> Any:
    """Stable Diffusion at half its widths, or a narrow UNet beside the full autoencoder."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from distill3d.scorers.architectures import SCHEDULE, TEXT, UNET, VAE, NumberedWords, sd15, sized
    from distill3d.scorers.diffusers import DiffusersScorer

    if name.startswith("half"):
        return sd15("reduced", controlnets=("depth",), device=device)
    size = int(name.split()[-2])
    unet = {**sized(UNET, "reduced"), "block_out_channels": (64, 128, 256, 256), "sample_size": size // 8}
    with torch.device(device):
        return DiffusersScorer(
            unet=UNet2DConditionModel(**unet),
            vae=AutoencoderKL(**{**VAE, "sample_size": size}),
            text_encoder=CLIPTextModel(CLIPTextConfig(**sized(TEXT, "reduced"))),
            tokenizer=NumberedWords(),
            scheduler=DDIMScheduler(**SCHEDULE),
        )


def foretell(wanted: Configuration) -> dict[str, float]:
    """Predicted peak, and how much of it are activations."""
    from distill3d.training.planning import predict

    started = time.process_time()
    found = predict(*make(wanted, "meta"), batch=wanted.batch, kind="cpu")
    where = max(found.phases, key=lambda name: found.phases[name].peak)
    seconds = time.process_time() - started
    return {"peak": found.peak, "activations": found.peak - found.held, "where": where, "seconds": seconds}


def measure(wanted: Configuration) -> dict[str, float]:
    """Two steps for real."""
    import cv2  # noqa: F401  whatever a step may import is in the baseline
    import peft  # noqa: F401
    import torch

    import distill3d_eg3d.shapes  # noqa: F401
    import distill3d_lrm.shapes  # noqa: F401
    from distill3d.scorers.architectures import sd15  # noqa: F401
    from distill3d.training.planning import apply_plan
    from distill3d.training.trainer import Trainer

    torch.set_num_threads(1)
    baseline = memory("VmRSS")
    plan, renderer, scorer, method = make(wanted, "cpu")
    apply_plan(plan, renderer, scorer)
    trainer = Trainer(renderer, method, batch=wanted.batch, rerender=plan.rerender, micro_batch=plan.micro_batch)
    started = time.process_time()
    for _ in range(2):
        trainer.step()
    return {"peak": memory("VmHWM") - baseline, "baseline": baseline, "seconds": time.process_time() - started}


def memory(name: str) -> int:
    """A line of /proc/self/status, bytes."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def in_a_process(job: str, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--job", job, "--only", name]
    done = subprocess.run(command, env={**os.environ, **ALLOCATOR}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}, {job}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--job", choices=("foretell", "measure"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job = {"foretell": foretell, "measure": measure}[given.job]
        print(json.dumps(job(CONFIGURATIONS[given.only[0]])))
        return
    rows = {}
    for name in given.only:
        predicted, measured = in_a_process("foretell", name), in_a_process("measure", name)
        error = predicted["peak"] / measured["peak"] - 1
        rows[name] = {"predicted": predicted, "measured": measured, "error": error}
        if not given.json:
            print(
                f"{name:36s} predicted {predicted['peak'] / 2**30:5.2f} GiB (activations "
                f"{predicted['activations'] / 2**30:5.2f}, at {predicted['where']}), measured "
                f"{measured['peak'] / 2**30:5.2f}: {error:+.1%}; {measured['seconds']:.0f} CPU-s",
                flush=True,
            )
    if given.json:
        print(json.dumps(rows, indent=2))
    small = [name for name, row in rows.items() if row["predicted"]["activations"] < LEAST]
    wrong = [name for name, row in rows.items() if abs(row["error"]) > GOAL]
    for name in small:
        print(f"{name}: less than 1 GB of activations says nothing", file=sys.stderr)
    for name in wrong:
        print(f"{name}: off by more than {GOAL:.0%}", file=sys.stderr)
    sys.exit(1 if small or wrong else 0)


if __name__ == "__main__":
    main()
