"""Which terms share views, and renders that are made when they are first read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from distill3d.objectives.term import Weighted
from distill3d.renderer import Render
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


class OnDemand(dict[View, Render]):
    """Renders of views, each made when it is first read."""

    def __init__(self, look: Callable[[View], Render]):
        super().__init__()
        self.look = look

    def __missing__(self, view: View) -> Render:
        return self.setdefault(view, self.look(view))
