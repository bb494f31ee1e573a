"""The fastest plan that fits."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from distill3d.errors import ConfigError
from distill3d.methods import Method
from distill3d.renderer import Renderer
from distill3d.scorer import Scorer
from distill3d.training.planning.apply import not_offered
from distill3d.training.planning.budget import GIB, RESERVED, parse_vram
from distill3d.training.planning.plan import OFFLOAD, MemoryPlan, ladder
from distill3d.training.planning.predict import Prediction, predict
from distill3d.training.planning.rehearsal import DeviceKind


def choose_plan(
    renderer: Renderer,
    scorer: Scorer,
    method: Method,
    *,
    batch: int,
    vram: str,
    ema: bool,
    device: torch.device | str,
) -> MemoryPlan:
    """The fastest plan whose predicted peak fits; takes some seconds a rung, as nothing below it is looked at.

    Args:
        renderer, scorer, method: of the run, on any device; they stay as they are.
        batch: subjects of a step on this device.
        vram: as "8gb", or "auto" for what the device has left, what is on it already not counted.
        ema: whether a moving average of the weights is kept.
        device: that the run is on.
    Raises:
        ConfigError: if no plan fits, with what the smallest needs; for a `vram` that is no size.
    """
    kind: DeviceKind = "cuda" if torch.device(device).type == "cuda" else "cpu"
    budget = parse_vram(vram, device)
    there = _already_there(renderer, scorer, vram, device)
    found = None
    for found in rungs(renderer, scorer, method, batch=batch, ema=ema, kind=kind):
        if needed(found, kind) <= budget + there:
            return found.plan
    assert found is not None
    raise ConfigError(too_small(found, kind, budget + there))


def rungs(
    renderer: Renderer, scorer: Scorer, method: Method, *, batch: int, ema: bool, kind: DeviceKind
) -> Iterator[Prediction]:
    """Predictions from the fastest plan to the smallest, each made when it is asked for."""
    without = not_offered(renderer, scorer, batch=batch)
    if kind == "cpu":  # there the device is the host
        without |= {OFFLOAD.name}
    for plan in ladder(batch=batch, without=without):
        yield predict(plan, renderer, scorer, method, batch=batch, ema=ema, kind=kind)


def needed(prediction: Prediction, kind: DeviceKind) -> int:
    """Bytes that a device must have for it: the peak, and what no step sees."""
    return prediction.peak + RESERVED[kind]


def too_small(smallest: Prediction, kind: DeviceKind, budget: int) -> str:
    """What to say where nothing fits."""
    return (
        f"No plan fits into {budget / GIB:.1f} GiB: the smallest ({smallest.peak / GIB:.1f} GiB predicted, and "
        f"{RESERVED[kind] / GIB:.1f} GiB beside the step) needs {needed(smallest, kind) / GIB:.1f} GiB. "
        "Where they are not in use yet, --precision half and --fast need less; a tiny autoencoder changes the gradient."
    )


def _already_there(renderer: Renderer, scorer: Scorer, vram: str, device: torch.device | str) -> int:
    """Bytes of the run's own weights that no longer count as free where the device was asked."""
    if vram.strip().lower() != "auto":
        return 0
    wanted = torch.device(device).type
    tensors = [*renderer.parameters(), *renderer.buffers(), *scorer.parameters(), *scorer.buffers()]
    return sum(t.nbytes for t in tensors if t.device.type == wanted)
