"""A large reconstruction model against the published recipe: memory at three sizes, CPU time of encoding and rendering.

    python benchmarks/lrm_step.py [--repeats 3] [--skip-encoder]

TripoSR at full size, float32, one thread. The two forms take turns in one process, and the smallest CPU time counts.
Three fields are rendered at 64 px: noise, where no sample hides another; a solid ball that three rays in ten meet; and
a head by the embedded model, at its own size.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import torch
from torch import Tensor

from distill3d.cameras import orbit
from distill3d.testing.saved_bytes import SavedBytes
from distill3d_lrm.model import ReconstructionModel
from distill3d_lrm.renderer import Look, LrmRenderer
from distill3d_lrm.tiny import load_tiny_lrm
from distill3d_lrm.triposr import TripoSR, TripoSRConfig
from distill3d_lrm.vit import ViTConfig

SIZES = (64, 128, 256)
FIELD_ONLY = TripoSRConfig(  # planes, decoder and rays at full size; what makes the planes is not looked at
    layers=1, vit=ViTConfig(hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48)
)
BALL = 0.45  # radius, of a box of half side 0.87


def camera(renderer: LrmRenderer) -> Any:
    front = renderer.defaults.front
    return orbit(torch.tensor([[0.4]]), torch.tensor([[0.2]]), front.radius, front.focal)


def ball(model: TripoSR) -> Tensor:
    """Planes, and a decoder set to read them, of a solid ball: each plane has its share of 1 - r^2."""
    c = model.config
    place = torch.linspace(-1, 1, 2 * c.plane_size + 1)
    place = (place[1:] + place[:-1]) / 2 * c.radius / BALL
    planes = 0.1 * torch.randn(1, 3, c.plane_channels, len(place), len(place))
    planes[:, :, 0] = 1 / 3 - (place[:, None] ** 2 + place**2) / 2
    linear = [layer for layer in model.decoder.layers if isinstance(layer, torch.nn.Linear)]  # type: ignore[union-attr]
    with torch.no_grad():
        for layer in linear:  # the first neuron hands on what the first channels add up to
            layer.weight[0], layer.bias[0] = 0, 0
            layer.weight[0, 0] = 1
        linear[0].weight[0, :: c.plane_channels] = 20
        linear[-1].bias[0] = -6  # empty outside
    return planes


def smallest(forms: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """CPU seconds, in turns."""
    found = {name: float("inf") for name in forms}
    for _ in range(repeats):
        for name, compute in forms.items():
            started = time.process_time()
            compute()
            found[name] = min(found[name], time.process_time() - started)
    return found


def saved_bytes() -> None:
    """Peak of what autograd keeps for one view, forward and backward."""
    model = TripoSR(FIELD_ONLY)
    planes = torch.randn(1, 3, 40, 64, 64, requires_grad=True)
    peaks = {}
    for low_memory in (True, False):
        renderer = LrmRenderer(model, studio=None, look=Look(low_memory=low_memory))  # type: ignore[arg-type]
        for size in SIZES if low_memory else SIZES[:1]:
            with SavedBytes(ignore=model.parameters()) as saved:
                renderer.render_raw({"planes": planes}, camera(renderer), size).raw.sum().backward()
            peaks[low_memory, size] = saved.peak
    first = peaks[True, SIZES[0]]
    for (low_memory, size), peak in peaks.items():
        how = "ray chunks" if low_memory else "all rays kept"
        print(f"saved tensors at {size:3d} px, {how:14s} {peak / 2**20:8.1f} MiB ({peak / first:.3f})")


def pair(literal: ReconstructionModel, fast: ReconstructionModel) -> dict[str, ReconstructionModel]:
    literal.load_state_dict(fast.state_dict())
    return {"published recipe": literal, "ours": fast}


def say(what: str, found: dict[str, float], goal: float) -> None:
    literal, ours = found["published recipe"], found["ours"]
    print(f"{what:44s} {literal:7.2f} {ours:7.2f} CPU-s, {ours / literal:.2f} of it (goal {goal})")


def encode(repeats: int) -> None:
    """A picture to planes, weights of noise."""
    models = pair(TripoSR(reference=True), TripoSR())
    pictures = torch.rand(repeats + 1, 3, 512, 512).split(1)

    def planes(model: ReconstructionModel) -> Tensor:
        with torch.no_grad():
            return model.planes(model.tokens(pictures[0]))

    for model in models.values():
        planes(model)
    say("encode a picture", smallest({n: lambda m=m: planes(m) for n, m in models.items()}, repeats), 1.0)  # type: ignore[misc]


def render(what: str, models: dict[str, ReconstructionModel], planes: Tensor, like: LrmRenderer, repeats: int) -> None:
    """One view of 64 px: alone, and with its way back to planes and decoder."""

    def renderer(model: ReconstructionModel) -> LrmRenderer:
        made = LrmRenderer(model, like.studio, look=like.look, defaults=like.defaults).requires_grad_(False)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(model.parts.decoder))
        return made

    def forward(made: LrmRenderer) -> None:
        with torch.no_grad():
            made.render_raw({"planes": planes}, camera(made), 64)

    def both(made: LrmRenderer) -> None:
        leaf = planes.clone().requires_grad_()
        made.render_raw({"planes": leaf}, camera(made), 64).raw.square().sum().backward()

    made = {name: renderer(model) for name, model in models.items()}
    say(f"render {what}", smallest({n: lambda r=r: forward(r) for n, r in made.items()}, repeats), 0.6)  # type: ignore[misc]
    say(f"render {what}, and back", smallest({n: lambda r=r: both(r) for n, r in made.items()}, repeats), 0.6)  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--skip-encoder", action="store_true", help="it takes most of the time")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # as runs do; both forms profit
    torch.manual_seed(0)
    saved_bytes()
    models = pair(TripoSR(FIELD_ONLY, reference=True), TripoSR(FIELD_ONLY))
    like = LrmRenderer(models["ours"], studio=None)  # type: ignore[arg-type]
    render("noise", models, torch.randn(1, 3, 40, 64, 64), like, given.repeats)
    planes = ball(models["ours"])  # type: ignore[arg-type]
    render("a ball", pair(models["published recipe"], models["ours"]), planes, like, given.repeats)
    tiny = load_tiny_lrm()
    with torch.no_grad():
        head = tiny.scene(tiny.codes_of_seeds([1000]))["planes"]
    literal = TripoSR(tiny.model.config, reference=True)  # type: ignore[arg-type]
    render("a head, embedded model", pair(literal, tiny.model), head, tiny, given.repeats)
    if not given.skip_encoder:
        encode(given.repeats)


if __name__ == "__main__":
    main()
