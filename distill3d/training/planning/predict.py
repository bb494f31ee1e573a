"""What a step needs under a plan, from shapes alone: the real trainer takes a step on the meta device."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill3d.methods import Method
from distill3d.renderer import Renderer
from distill3d.scorer import Scorer
from distill3d.training.planning.apply import apply_plan
from distill3d.training.planning.kernels import cpu_scratch, no_scratch
from distill3d.training.planning.offload import play_offload
from distill3d.training.planning.phases import Phase, Phases
from distill3d.training.planning.plan import MemoryPlan
from distill3d.training.planning.rehearsal import DeviceKind, Rehearsal, played, uncollected
from distill3d.training.trainer import Trainer


@dataclass(frozen=True)
class Prediction:
    """Bytes and operations of one step in which every term is due, from the second step on."""

    plan: MemoryPlan
    backbone: int  # weights and buffers
    reference: int  # the frozen original's own copy of what is trained
    scorer: int  # weights and buffers; networks that wait on the host count in the phases that use them
    optimizer: int
    averaged: int  # moving average of the weights
    gradients: int  # alive from the backward through the scene to the optimiser's step
    phases: Mapping[str, Phase]  # in order of first appearance

    @property
    def held(self) -> int:
        """What is there all the time."""
        return self.backbone + self.reference + self.scorer + self.optimizer + self.averaged

    @property
    def peak(self) -> int:
        """The most that is alive at one moment, everything counted."""
        return max(phase.peak for phase in self.phases.values())

    @property
    def flops(self) -> int:
        return sum(phase.flops for phase in self.phases.values())

    @property
    def half_flops(self) -> int:
        return sum(phase.half_flops for phase in self.phases.values())

    @property
    def operations(self) -> int:
        return sum(phase.operations for phase in self.phases.values())

    def activations(self, phase: str) -> int:
        """Bytes beside what is there all the time; gradients of weights count from the scene's backward on."""
        return max(0, self.phases[phase].peak - self.held)


def predict(
    plan: MemoryPlan,
    renderer: Renderer,
    scorer: Scorer,
    method: Method,
    *,
    batch: int = 1,
    ema: bool = False,
    kind: DeviceKind = "cuda",
) -> Prediction:
    """Play a step through; the three stay as they are, and may lie on any device or on meta.

    Args:
        method: built with this scorer.
        kind: of device, whose branches are taken and whose kernels' needs are added.
    """
    renderer, scorer, method = on_meta(renderer, scorer, method)
    apply_plan(plan, renderer, scorer)
    phases = Phases()
    spare = cpu_scratch if kind == "cpu" else no_scratch
    memory = Rehearsal(spare, phases.at, phases.count)
    with played(kind), uncollected(), memory:
        memory.hold([*_tensors(renderer), *_tensors(scorer)])
        waiting = play_offload(scorer, memory.add)
        trainer = Trainer(
            renderer,
            method,
            batch=batch,
            rerender=plan.rerender,
            ema=0.999 if ema else 0.0,
            micro_batch=plan.micro_batch,
        )
        _fill_optimizer(trainer, kind)
        _name_phases(phases, trainer, scorer)
        phases.parts.clear()  # of what was only prepared
        trainer.step()
    trained = _bytes(trainer.trained.values())
    return Prediction(
        plan=plan,
        backbone=_bytes(_tensors(renderer)),
        reference=trained,
        scorer=_bytes(_tensors(scorer)) - waiting,
        optimizer=2 * trained,
        averaged=trained if ema else 0,
        gradients=trained,
        phases=phases.parts,
    )


def on_meta(renderer: Renderer, scorer: Scorer, method: Method) -> tuple[Renderer, Scorer, Method]:
    """Copies that belong together, their weights on the meta device: nothing is allocated."""
    memo: dict[int, object] = {id(t): _meta_twin(t) for t in [*_tensors(renderer), *_tensors(scorer)]}
    return copy.deepcopy((renderer, scorer, method), memo)


def _meta_twin(tensor: Tensor) -> Tensor:
    twin = tensor.detach().to("meta")
    return nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin


def _fill_optimizer(trainer: Trainer, kind: DeviceKind) -> None:
    """As after the first step: Adam makes its averages in it."""
    for group in trainer.optimizer.param_groups:
        group["foreach"] = kind == "cuda"  # torch's own choice there, with temporaries for all weights at once
    for parameter in trainer.trained.values():
        parameter.grad = torch.empty_like(parameter)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)


def _name_phases(phases: Phases, trainer: Trainer, scorer: Scorer) -> None:
    """Let the parts of a step say when they run; these are copies, so nothing needs to be put back."""
    calls: list[tuple[object, str, str]] = [
        (trainer.renderer, "scene", "scene"),
        (trainer.renderer, "render", "views"),
        (trainer.renderer, "render_raw", "views"),
        (trainer.reference, "scene", "reference"),
        (trainer.reference, "render", "reference"),
        (trainer.reference, "render_raw", "reference"),
        (scorer, "condition", "controls and text"),
        (scorer, "encode", "encode"),
        (scorer, "predict_noise", "denoise"),
        (scorer, "decode", "decode"),
        (trainer.optimizer, "step", "Adam"),
    ]
    for owner, call, name in calls:
        if hasattr(owner, call):
            setattr(owner, call, phases.of(name, getattr(owner, call)))


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Each storage once."""
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())
