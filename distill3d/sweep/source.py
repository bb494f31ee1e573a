"""A YAML file read strictly: plain values only, no setting given twice, 1e-3 a number."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from distill3d.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as it is meant by who writes a config."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:  # YAML itself would take the last one and say nothing
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(  # YAML 1.1 reads 1e-3 as text, because it has no dot
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """What a YAML file says, by name; an empty file says nothing.

    Raises:
        ConfigError: if it cannot be read, or is no mapping of names to plain values.
    """
    try:
        with path.open(encoding="utf-8") as file:
            values = yaml.load(file, Loader=_Loader)  # a SafeLoader: makes no objects
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is no YAML that can be read: {_in_one_line(error)}.") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ConfigError(f"{path} must hold settings by name, as `out: sweeps/first`; see docs/sweep.md.")
    return values


def _in_one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"line {mark.line + 1}: {said}" if mark is not None else str(said).rstrip(".")
