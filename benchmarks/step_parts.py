"""Every network call of a step timed alone at full size, one thread; and one whole step in half precision."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, UNet2DConditionModel
from released_step import AlexDistance, DepthAnything
from step_count import Tallies, make_trainer
from step_meter import tensors_of
from step_models import FROZEN, make_renderer, make_scorer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from distill3d.cameras import orbit
from distill3d.draws import Draws
from distill3d.scorers.architectures import CONTROLNET, TEXT, TINY_AUTOENCODER, UNET, VAE

Calls = dict[str, Callable[[], Any]]
Seconds = dict[str, tuple[float, float]]  # part to CPU seconds of a forward and of a backward
WITH_WEIGHTS = "VAE encode, gradients of its weights too"
TINY = "VAE encode, tiny autoencoder"


def sum_of_parts(tallies: Tallies, seconds: Seconds, *, released: bool = False, fast: bool = False) -> float:
    """Calls times seconds of a call."""
    total = 0.0
    for part, tally in tallies.items():
        if not tally.calls:
            continue
        name = part
        if part == "VAE encode":
            name = WITH_WEIGHTS if released else TINY if fast else part
        forward, backward = seconds[name]
        total += tally.calls * forward + tally.backward_calls * backward
    return total


def time_parts(progress: Callable[[str], None]) -> Seconds:
    """Each call once, after a small one that loads the kernels; one picture, for UNet and ControlNet two branches.

    One network is in memory at a time.
    """
    torch.ones(1, 3, 8, 8, requires_grad=True).square().sum().backward()
    found: Seconds = {}
    for calls_of in (_generator, _autoencoder, _unet, _controlnet, _text_encoder, _tiny, _depth, _lpips):
        for name, call in calls_of().items():
            found[name] = timed(call)
            progress(f"{name}: {found[name][0]:.2f} CPU-s forward, {found[name][1]:.2f} backward")
    return found


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Forward and, where anything requires grad, backward."""
    started = time.process_time()
    ends = [t for t in tensors_of(call()) if t.requires_grad]
    half = time.process_time()
    if ends:
        torch.autograd.backward(ends, [torch.ones_like(t) for t in ends])
    return half - started, time.process_time() - half


def _generator() -> Calls:
    """Of the trained generator with a graph, of the frozen one without."""
    renderer = make_renderer("full")
    codes = renderer.codes_of_seeds([0])
    g, size = renderer.generator, renderer.raw_size
    cameras, draws = orbit(torch.zeros(1, 1), torch.zeros(1, 1)), Draws(0, 0, (0,))
    scene = {name: entry.requires_grad_() for name, entry in renderer.scene(codes).items()}
    raw, features = (torch.randn(1, channels, size, size, requires_grad=True) for channels in (3, 32))
    for parameter in renderer.trainable().values():
        parameter.requires_grad_(True)
    calls: Calls = {
        "planes": lambda: g.planes(codes),
        "volume rendering": lambda: renderer.render(scene, cameras, upto="raw", draws=draws).raw,
        "super-resolution": lambda: g.superresolution(raw, features, codes[:, -1]),
        "background": lambda: g.flat_background(codes),
    }
    return {**calls, **{f"{name}{FROZEN}": torch.no_grad()(call) for name, call in calls.items()}}


def _picture(size: int = 512) -> Tensor:
    return torch.randn(1, 3, size, size).clamp(-1, 1).requires_grad_()


def _autoencoder() -> Calls:
    vae, picture, latents = AutoencoderKL(**VAE).requires_grad_(False), _picture(), torch.randn(1, 4, 64, 64)

    def encode() -> Tensor:
        return vae.encode(picture).latent_dist.mean

    def encode_with_weights() -> Tensor:
        vae.requires_grad_(True)
        return encode()

    decode = torch.no_grad()(lambda: vae.decode(latents).sample)
    return {"VAE decode": decode, "VAE encode": encode, WITH_WEIGHTS: encode_with_weights}


def _branches() -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, timesteps and texts of two branches."""
    return torch.randn(2, 4, 64, 64), torch.tensor([281, 281]), torch.randn(2, 77, UNET["cross_attention_dim"])


def _unet() -> Calls:
    net, given = UNet2DConditionModel(**UNET), _branches()
    return {"UNet": torch.no_grad()(lambda: net(*given).sample)}


def _controlnet() -> Calls:
    net, given, picture = ControlNetModel(**CONTROLNET), _branches(), _picture().repeat(2, 1, 1, 1)
    return {"ControlNet": torch.no_grad()(lambda: net(*given, picture, return_dict=False)[1])}


def _text_encoder() -> Calls:
    net, ids = CLIPTextModel(CLIPTextConfig(**TEXT)), torch.zeros(1, 77, dtype=torch.long)
    return {"text encoder": torch.no_grad()(lambda: net(ids)[0])}


def _tiny() -> Calls:
    net, picture = AutoencoderTiny(**TINY_AUTOENCODER).requires_grad_(False), _picture()
    return {TINY: lambda: net.encode(picture).latents}


def _depth() -> Calls:
    net, picture = DepthAnything(), _picture(518)
    return {"Depth Anything": torch.no_grad()(lambda: net(picture))}


def _lpips() -> Calls:
    net, picture = AlexDistance(), _picture()
    return {"LPIPS": lambda: net(picture.detach(), picture)}


def whole_step(precision: str) -> dict[str, Any]:
    """CPU seconds and peak memory of one whole full-size `ld` step, everything loaded, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_whole_step, (precision,))


def _whole_step(precision: str) -> dict[str, Any]:
    torch.set_num_threads(1)
    trainer = make_trainer("ld", "full", "cpu", make_scorer("full", precision=precision))
    started = time.process_time()
    log = trainer.step()
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # kilobytes to GiB
    return {"precision": precision, "cpu_seconds": seconds, "peak_gib": peak, "gradient_norm": log.gradient_norm}
