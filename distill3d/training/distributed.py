"""Several processes take a step together: each has some of the subjects, or some of the views of all.

No wrapper around the network: gradients are added up once, by hand, before anybody looks at them, so that every process
decides and moves alike. `docs/several_devices.md` says what that costs and when which split pays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from distill3d.errors import ConfigError, RunError, UnknownNameError
from distill3d.renderer import Render
from distill3d.training.collectives import add_up, gather_rows, gather_text, share_out, together
from distill3d.training.reports import ASKED
from distill3d.training.share import Share, StepLog
from distill3d.views import View

TIMEOUT = timedelta(minutes=10)  # how long a process waits for another: one may write a preview meanwhile

PICTURES = tuple(f.name for f in fields(Render))


class SeveralShare(Share):
    """What every way of sharing has in common: the one sum of a step.

    Args:
        device: where pictures that another process made are put.
    """

    def __init__(self, rank: int, world: int, device: str = "cpu"):
        self.rank, self.world, self.device = rank, world, device
        self.names: list[str] = []  # of the figures, in an order that all processes know

    def reduce(self, parameters: Iterable[Tensor], log: StepLog) -> None:
        """See `Share.reduce`: one all-reduce of one vector, and a small second one where a figure's name is new.

        A gradient that no process has stays None; whether any has is counted in the vector. It has the widest dtype
        among the gradients, at least float32: a sum in float64 loses nothing, one of bfloat16 gains.
        """
        parameters = list(parameters)
        new = sorted(set(log.figures) - set(self.names))
        numbers = [log.loss, float(log.stopping), float(len(new)), *_counted(log.figures, self.names)]
        present = [float(p.grad is not None) for p in parameters]
        vector = _vector(parameters, present + numbers)
        add_up(vector)
        split = sum(p.numel() for p in parameters)
        present, numbers = _divided(vector[split:].tolist(), len(parameters))
        _write_back(parameters, vector[:split], present)
        log.loss, stopping, unknown, *values = numbers
        log.stopping = stopping > 0
        figures = _figures(self.names, values)
        if unknown > 0:
            figures |= self._reduce_new(log.figures, new)
        log.figures = figures

    def _reduce_new(self, figures: Mapping[str, float], new: Sequence[str]) -> dict[str, float]:
        """The figures whose names were not known to all."""
        new = sorted({name for text in gather_text("\n".join(new)) for name in text.splitlines()})
        vector = torch.tensor(_counted(figures, new), dtype=torch.float64)
        add_up(vector)
        self.names += new
        return _figures(new, vector.tolist())

    def agree(self, wish: bool) -> bool:
        """See `Share.agree`."""
        vote = torch.tensor([int(wish)])
        add_up(vote)
        return bool(vote.item())


class SubjectShare(SeveralShare):
    """Each process has a part of the batch's subjects, as equal as can be, and all that belongs to them."""

    def subjects(self, batch: int) -> tuple[int, ...]:
        """See `Share.subjects`.

        Raises:
            ConfigError: if there are fewer subjects than processes.
        """
        if batch < self.world:
            raise ConfigError(
                f"--batch {batch} leaves {self.world - batch} of {self.world} processes without a subject: "
                f"--split views, or --batch {self.world}."
            )
        return part(batch, self.rank, self.world)

    def gather_subjects(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Share.gather_subjects`; all processes must call it."""
        return {name: gather_rows(entry) for name, entry in entries.items()}


class ViewShare(SeveralShare):
    """All processes have all subjects; each renders some of the views, and scores some of the groups of terms.

    Pictures go to everybody, since any term may read any view; the gradients on them come back the same way, and each
    process carries its own views' on to the scene. Small integers say beforehand what is sent: nothing is pickled.
    """

    lockstep = True

    def renders(self, place: int) -> bool:
        return place % self.world == self.rank

    def scores(self, group: int) -> bool:
        return group % self.world == self.rank

    def exchange_renders(self, renders: Mapping[View, Render | None]) -> dict[View, Render]:
        """See `Share.exchange_renders`. Renders of this process keep their graphs, the others have none."""
        own = {view: render.map(Tensor.detach).tensors() for view, render in renders.items() if render is not None}
        every = self._exchange(renders, own)
        return {view: Render(**every[view]) if render is None else render for view, render in renders.items()}

    def exchange_gradients(
        self, group: int, gradients: Mapping[View, Mapping[str, Tensor]]
    ) -> Mapping[View, Mapping[str, Tensor]]:
        return self._exchange(gradients, gradients)

    def _exchange(
        self, views: Iterable[View], own: Mapping[View, Mapping[str, Tensor]]
    ) -> dict[View, dict[str, Tensor]]:
        """Give everybody the pictures that anybody has, by view and name; no two have the same one."""
        slots = [(view, name) for view in views for name in PICTURES]
        pictures = share_out([own.get(view, {}).get(name) for view, name in slots], self.device)
        found: dict[View, dict[str, Tensor]] = {view: {} for view in views}
        for (view, name), picture in zip(slots, pictures):
            if picture is not None:
                found[view][name] = picture
        return found


SHARES = {"subjects": SubjectShare, "views": ViewShare}


def part(batch: int, rank: int, world: int) -> tuple[int, ...]:
    """The places of one process: contiguous, the first processes have one more where it does not come out even."""
    least, rest = divmod(batch, world)
    start = rank * least + min(rank, rest)
    return tuple(range(start, start + least + (rank < rest)))


def started_processes() -> int:
    """How many processes this run has, by the environment that `torch.distributed.run` makes; 1 without it.

    Raises:
        RunError: if that is not what `distill3d launch` was asked for.
    """
    inside = "RANK" in os.environ and "MASTER_ADDR" in os.environ
    world = int(os.environ.get("WORLD_SIZE", "1")) if inside else 1
    asked = os.environ.get(ASKED)
    if asked is not None and int(asked) != world:
        raise RunError(f"{asked} processes were asked for, {world} came up. Start the run with: distill3d launch.")
    return world


def own_device(device: str) -> str:
    """What --device means in this process: "cuda" is one GPU for each.

    Raises:
        ConfigError: for a device that several processes cannot share, or fewer GPUs than processes.
    """
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if started_processes() == 1 or device == "cpu":
        return device
    if device not in ("cuda", "cuda:0", f"cuda:{local}"):  # cuda:0 is what the first process writes down
        raise ConfigError(f"Several processes run on --device cpu, or cuda with one GPU for each; got {device!r}.")
    if local >= torch.cuda.device_count():
        raise ConfigError(f"Process {local} of this machine needs a GPU of its own; here are {_gpus()}.")
    return f"cuda:{local}"


def start_share(split: str = "subjects", device: str = "cpu", *, timeout: timedelta = TIMEOUT) -> Share:
    """Join the other processes that `torch.distributed.run` started; alone, there is nothing to join.

    Args:
        split: "subjects" or "views".
        device: as in the config; `own_device` says which one it is here.
        timeout: how long to wait for the others, now and at each exchange.
    Raises:
        RunError: if the others do not come, or are not as many as `distill3d launch` was asked for.
        ConfigError, UnknownNameError: for a device or a split that cannot be.
    """
    if split not in SHARES:
        raise UnknownNameError("split", split, SHARES)
    world = started_processes()
    if world == 1:
        return Share()
    device = own_device(device)
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    with together():
        # Small messages, on the CPU, go through gloo in either case: they would make a GPU wait.
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timeout)
    return SHARES[split](dist.get_rank(), world, device)


def stop_share() -> None:
    """Leave the others, at the end of a run; nothing happens if there are none."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _vector(parameters: Sequence[Tensor], numbers: Sequence[float]) -> Tensor:
    """All gradients, zeros for those that are missing, and the numbers behind them."""
    dtype = torch.float32
    for parameter in parameters:
        dtype = torch.promote_types(dtype, parameter.dtype)
    vector = torch.zeros(sum(p.numel() for p in parameters) + len(numbers), dtype=dtype, device=_device(parameters))
    at = 0
    for parameter in parameters:
        if parameter.grad is not None:
            vector[at : at + parameter.numel()].view(parameter.shape).copy_(parameter.grad)
        at += parameter.numel()
    vector[at:] = torch.tensor(numbers, dtype=dtype)
    return vector


def _write_back(parameters: Sequence[Tensor], vector: Tensor, present: Sequence[float]) -> None:
    pieces = vector.split([p.numel() for p in parameters])
    for parameter, piece, anywhere in zip(parameters, pieces, present):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            parameter.grad.copy_(piece.view(parameter.shape))


def _device(parameters: Sequence[Tensor]) -> torch.device:
    return parameters[0].device if parameters else torch.device("cpu")


def _divided(numbers: list[float], first: int) -> tuple[list[float], list[float]]:
    return numbers[:first], numbers[first:]


def _counted(figures: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """For each name the figure and 1, or 0 and 0 if it is not there."""
    return [x for name in names for x in ((figures[name], 1.0) if name in figures else (0.0, 0.0))]


def _figures(names: Sequence[str], counted: Sequence[float]) -> dict[str, float]:
    """Back from sums of `_counted`; what nobody had is left out."""
    return {name: value for name, value, count in zip(names, counted[::2], counted[1::2]) if count}


def _gpus() -> str:
    count = torch.cuda.device_count()
    return "none" if count == 0 else f"only {count}"
