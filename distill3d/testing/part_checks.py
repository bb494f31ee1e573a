"""Is what a backbone says of its weights, so that styles can be shared and mixed, true?"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from distill3d.renderer import Folding, Parted, Render, StylePart
from distill3d.testing.contract import expect
from distill3d.testing.renderer_bench import RendererBench


def parts_are_told_apart(bench: RendererBench) -> None:
    """A backbone with the capability `Parted` says of every trained tensor what it decides."""
    renderer = bench.renderer
    assert isinstance(renderer, Parted)  # asked for by check_renderer
    parts = get_args(StylePart)
    for name in _as_pristine(bench, bench.trained):
        part = renderer.part_of(name)
        expect(part in parts, f"part_of({name!r})", " or ".join(map(repr, parts)), repr(part))


def untrained_changes_fold_to_nothing(bench: RendererBench) -> None:
    """A backbone with the capability `Folding` folds an untrained group to its own weights, and a trained one not."""
    trained = bench.trained
    folded = _as_pristine(bench, trained)
    expect(bool(folded), "folded(trainable())", "at least one tensor", "none")
    for name, value in folded.items():
        what = f"folded(trainable())[{name!r}]"
        # A group that was added may have given its weight another name.
        mine = [bench.before[name]] if name in bench.before else list(bench.before.values())
        alike = [own for own in mine if own.shape == value.shape and own.dtype == value.dtype]
        same = any(torch.equal(value, own) for own in alike)
        expect(same, what, "the weight as it is, bit for bit, while nothing is trained", "another")
    moved = _as_pristine(bench, {name: value + 0.1 for name, value in trained.items()})
    expect(moved.keys() == folded.keys(), "folded() of other numbers", "the same names", sorted(moved)[:3])
    still = [name for name, value in folded.items() if torch.equal(moved[name], value)]
    expect(not still, "folded() of changed tensors", "changed weights", f"the same for {', '.join(still)}")


def apart(one: Render, other: Render, of: Literal["depth", "raw"]) -> float:
    """How far two renders of the same views lie from each other where both are solid, mean absolute difference.

    What `Parted.part_of` should say is measured so: by the depth and by the colours that a part of a change moves, as
    shares of what the whole change does.
    """
    solid = (one.opacity > 0.5) & (other.opacity > 0.5)
    difference = (getattr(one, of) - getattr(other, of)).abs().mean(2, keepdim=True)
    return float((difference * solid).sum() / solid.sum())


def _as_pristine(bench: RendererBench, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return bench.renderer.folded(tensors) if isinstance(bench.renderer, Folding) else tensors
