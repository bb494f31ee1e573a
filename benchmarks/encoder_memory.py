"""What encoding a picture costs with its gradient: VAE or tiny autoencoder, kept or computed again.

    python benchmarks/encoder_memory.py [--size 512] [--precision float32]

Stable Diffusion 1.5's shapes, random weights, one thread of the CPU. Each row runs in a process of its own: resident
memory that is held between forward and backward, the peak, and CPU seconds of both.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import time

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, also for child processes

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny

from distill3d.precision import dtypes_of
from distill3d.scorers import architectures, autoencoder

GIB = 2**20  # kilobytes


def resident() -> float:
    with open("/proc/self/status", encoding="ascii") as lines:
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / GIB


def measure(tiny: bool, recompute: bool, size: int, precision: str) -> tuple[float, float, float]:
    """GiB held, GiB at the peak, CPU seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = AutoencoderTiny(**architectures.TINY_AUTOENCODER) if tiny else AutoencoderKL(**architectures.VAE)
    dtype = torch.float32 if tiny else dtypes_of(precision)[1]
    torch.nn.Module.to(network.eval().requires_grad_(False), dtype)
    if dtype != torch.float32:
        torch.nn.Module.to(network, memory_format=torch.channels_last)  # type: ignore[call-overload]
    picture = F.interpolate(torch.randn(1, 3, 64, 64), size=size, mode="bicubic").requires_grad_()
    before, started = resident(), time.process_time()
    latents = autoencoder.encode(network, picture, None, recompute)
    held = resident() - before
    torch.autograd.grad(latents.square().sum(), picture)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIB - before
    return held, peak, time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--precision", default="float32")
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    print(f"{'':30s} {'held, GiB':>10s} {'peak, GiB':>10s} {'CPU-s':>7s}")
    for tiny in (False, True):
        for recompute in (False, True):
            with context.Pool(1) as pool:
                held, peak, seconds = pool.apply(measure, (tiny, recompute, given.size, given.precision))
            name = ("TAESD" if tiny else "VAE") + (", computed again" if recompute else "")
            print(f"{name:30s} {held:10.2f} {peak:10.2f} {seconds:7.1f}")


if __name__ == "__main__":
    main()
