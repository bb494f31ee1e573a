"""Everything that decides a run, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from distill3d.errors import ConfigError

SCHEMA = 1


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Everything that decides a run; written as config.json beside its weights.

    None means the backbone's own default; a run's config.json has the numbers that were used.
    """

    style: str  # a name of the catalogue, or a prompt
    backbone: str = "tiny"
    weights: str | None = None  # of the backbone
    backbone_options: Mapping[str, Any] = field(default_factory=dict)  # its settings, as `psi`
    scorer: str | None = None
    scorer_weights: str | None = None
    controlnets: Mapping[str, str] = field(default_factory=dict)  # control picture to folder or Hub id
    method: str = "ld"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method, as `guidance_scale`
    anchors: Mapping[str, float] = field(default_factory=dict)  # weights by name; none: the backbone's
    train: str | None = None  # which group of the backbone's weights; None: the method's own
    steps: int | None = None
    batch: int | None = None  # subjects in a step
    lr: float | None = None
    seed: int = 0
    save_every: int | None = None  # steps between checkpoints; a sixth of the run
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not str(self.style).strip():
            raise ConfigError("style is empty. Give a name from `distill3d styles`, or a prompt in quotes.")
        for name in ("steps", "batch", "save_every"):
            value = getattr(self, name)
            if value is not None and (not _is_whole(value) or value < 1):
                raise ConfigError(f"{name} must be at least 1, and a whole number, got {value!r}.")
        if not _is_whole(self.seed):
            raise ConfigError(f"seed must be a whole number, got {self.seed!r}.")
        number = isinstance(self.lr, int | float) and not isinstance(self.lr, bool)
        if self.lr is not None and not (number and 0 < self.lr < float("inf")):
            raise ConfigError(f"lr must be a positive number, got {self.lr!r}.")
        for name in ("style", "backbone", "method", "device"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be a name, got {getattr(self, name)!r}.")
        if not isinstance(self.anchors, Mapping):
            raise ConfigError(f"anchors must be weights by name, got {self.anchors!r}.")
        for name, weight in self.anchors.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not (number and 0 <= weight < float("inf")):
                raise ConfigError(f"The weight of {name!r} in anchors must be a number from 0, got {weight!r}.")
        if self.train is not None and not isinstance(self.train, str):
            raise ConfigError(f"train must be a name, got {self.train!r}.")

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> DistillConfig:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: for text that is no config, or one of a newer version.
        """
        damaged = ConfigError("This config.json is damaged or was not written by distill3d.")
        try:
            values = json.loads(text)
            schema = values.pop("schema")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise damaged from error
        if schema != SCHEMA:
            raise ConfigError(f"This config.json has version {schema}, this distill3d reads version {SCHEMA}.")
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(f"config.json has settings that this distill3d does not know: {', '.join(unknown)}.")
        try:
            for name in ("options", "backbone_options"):
                options = values.get(name, {}).items()
                values[name] = {k: tuple(v) if isinstance(v, list) else v for k, v in options}  # JSON has no tuples
            return cls(**values)
        except (AttributeError, TypeError) as error:
            raise damaged from error
