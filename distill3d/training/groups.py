"""Which terms share views, how views are rendered, and renders that are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from distill3d.cameras import Cameras
from distill3d.objectives.term import StepBatch, Weighted
from distill3d.renderer import AnySize, Render, Renderer, Scene, Stage
from distill3d.views import View


@dataclass
class Group:
    """Terms that share views, and those views: handled together, one group after the other."""

    views: dict[View, None]  # an ordered set: the order of a set of Views would change with PYTHONHASHSEED
    terms: list[str]


def linked_groups(terms: Mapping[str, Weighted]) -> list[Group]:
    """Group the terms so that no two groups share a view."""
    groups: list[Group] = []
    for name, weighted in terms.items():
        merged = Group(dict.fromkeys(weighted.term.needs.views), [name])
        for group in [g for g in groups if g.views.keys() & merged.views.keys()]:
            groups.remove(group)
            merged = Group(group.views | merged.views, group.terms + merged.terms)
        groups.append(merged)
    return groups


def mates(views: Iterable[View]) -> list[list[View]]:
    """Views that differ in nothing but the mirror, together: they are seen at one draw, so one call renders both."""
    together: dict[View, list[View]] = {}
    for view in views:
        together.setdefault(replace(view, mirrored=False), []).append(view)
    return list(together.values())


def look(renderer: Renderer, scene: Scene, batch: StepBatch, views: Sequence[View], stage: Stage) -> dict[View, Render]:
    """Render views that differ in nothing but the mirror, in one call, with the step's own cameras and draws."""
    view = views[0]
    # Draws are keyed by the views' name, and every view of a call sees the same: a second rendering repeats the
    # first, a view alone is what it is beside its mirror.
    draws = batch.draws.scoped(f"render/{view.name}")
    cameras = Cameras.side_by_side([batch.cameras[v] for v in views])
    if stage == "raw" and view.size is not None and isinstance(renderer, AnySize):
        renders = renderer.render_raw(scene, cameras, min(view.size, renderer.raw_size), draws=draws)
    else:
        renders = renderer.render(scene, cameras, upto=stage, draws=draws)
    if len(views) == 1:
        return {view: renders}
    return {v: renders.map(lambda picture, i=i: picture[:, i : i + 1]) for i, v in enumerate(views)}  # type: ignore[misc]


class OnDemand(dict[View, Render]):
    """Renders of views, each made when it is first read."""

    def __init__(self, look: Callable[[View], Render]):
        super().__init__()
        self.look = look

    def __missing__(self, view: View) -> Render:
        return self.setdefault(view, self.look(view))
