"""Whose weights a metric measures with, as the function that a plugin offers says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from distill3d.errors import ConfigError
from distill3d.licences.known import UNKNOWN
from distill3d.licences.part import Part


def parts_of_metric(name: str, measure: Callable[..., object]) -> tuple[Part, ...]:
    """Its attribute `parts`, each in the role "metric NAME"; of a function that has none nobody knows whose.

    Raises:
        ConfigError: if the attribute is no tuple of parts.
    """
    role, said = f"metric {name}", getattr(measure, "parts", None)
    if said is None:
        return (Part(role, "", UNKNOWN.name),)
    if not isinstance(said, tuple) or not all(isinstance(part, Part) for part in said):
        raise ConfigError(
            f"The metric {name!r} says whose weights it uses by {said!r:.60}: it must be a tuple of "
            "distill3d.licences.Part, and () for none."
        )
    return tuple(replace(part, role=role) for part in said)
