"""Everything that decides a run, as data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, get_args

from distill3d.errors import ConfigError
from distill3d.precision import check_precision

SCHEMA = 1

Split = Literal["subjects", "views"]  # what several processes share: the subjects of a step, or one subject's views


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
    precision: str | None = None  # of the scorer's networks; None: the device's best, see `distill3d.precision`
    fast: bool | str = False  # a tiny autoencoder in the scorer: the published one, or its folder or Hub id
    method: str = "ld"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method, as `guidance_scale`
    term_weights: Mapping[str, float] = field(default_factory=dict)  # factors of the method's own, by term
    anchors: Mapping[str, float] = field(default_factory=dict)  # weights by name; none: the backbone's
    train: str | None = None  # which group of the backbone's weights; None: the method's own
    steps: int | None = None
    batch: int | None = None  # subjects in a step
    lr: float | None = None
    warmup: int = 0  # steps over which the learning rate rises
    clip: float | None = None  # the largest norm of a step's gradient; None for no limit
    ema: float = 0.0  # decay of the moving average that is published instead of the last weights; 0 for none
    seed: int = 0
    save_every: int | None = None  # steps between checkpoints; a sixth of the run
    keep: int = 2  # the last checkpoints that are kept, beside the newest healthy one
    probe: int = 2  # draws by which each checkpoint's look at the terms' signal is taken; 0 for none
    stop_on_collapse: bool = False  # end the run when its subjects have become all but one
    stop_identity: float | None = None  # end it when identity, see `distill3d.health`, falls below
    trackers: tuple[str, ...] = ()  # such as "tensorboard"
    device: str = "cpu"
    vram: str | None = None  # memory that a step may take, as "8gb"; None: as the backbone's defaults say
    split: Split = "subjects"
    commercial_ok: bool = False  # refuse parts whose licence does not allow commercial use, see `distill3d.licences`

    # What may change on the way: where and how a run is computed and watched, not what it computes.
    FREE: ClassVar[tuple[str, ...]] = (
        "save_every",
        "keep",
        "probe",
        "stop_on_collapse",
        "stop_identity",
        "trackers",
        "device",
        "vram",
        "split",
        "commercial_ok",
    )

    def __post_init__(self) -> None:
        if not str(self.style).strip():
            raise ConfigError("style is empty. Give a name from `distill3d styles`, or a prompt in quotes.")
        for name in ("style", "backbone", "method", "device"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} must be a name, got {getattr(self, name)!r}.")
        for name in ("train", "vram"):
            if not isinstance(getattr(self, name), str | None):
                raise ConfigError(f"{name} must be a word, got {getattr(self, name)!r}.")
        self._check_numbers()
        self._check_tables()
        if self.precision is not None:
            check_precision(self.precision)
        if not isinstance(self.commercial_ok, bool):
            raise ConfigError(f"commercial_ok must be true or false, got {self.commercial_ok!r}.")
        if self.split not in get_args(Split):
            raise ConfigError(f"split must be one of {', '.join(get_args(Split))}, got {self.split!r}.")
        if isinstance(self.trackers, str) or not all(isinstance(name, str) for name in self.trackers):
            raise ConfigError(f"trackers must be names, got {self.trackers!r}.")

    def _check_numbers(self) -> None:
        for name in ("steps", "batch", "save_every", "keep"):
            value = getattr(self, name)
            if value is not None and (not _is_whole(value) or value < 1):
                raise ConfigError(f"{name} must be at least 1, and a whole number, got {value!r}.")
        if not _is_whole(self.seed):
            raise ConfigError(f"seed must be a whole number, got {self.seed!r}.")
        if not _is_whole(self.warmup) or self.warmup < 0:
            raise ConfigError(f"warmup must be at least 0, and a whole number, got {self.warmup!r}.")
        if not _is_whole(self.probe) or self.probe < 0 or self.probe == 1:
            raise ConfigError(f"probe takes 2 draws or more, or 0 for none, got {self.probe!r}.")
        for name in ("lr", "clip"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value < math.inf):
                raise ConfigError(f"{name} must be a positive number, got {value!r}.")
        if not (_is_number(self.ema) and 0 <= self.ema < 1):
            raise ConfigError(f"ema is a decay in [0, 1), 0 for none, got {self.ema!r}.")
        if self.stop_identity is not None and not (_is_number(self.stop_identity) and -1 <= self.stop_identity <= 1):
            raise ConfigError(f"stop_identity is a correlation in [-1, 1], got {self.stop_identity!r}.")

    def _check_tables(self) -> None:
        for table in ("anchors", "term_weights"):
            weights = getattr(self, table)
            if not isinstance(weights, Mapping):
                raise ConfigError(f"{table} must be weights by name, got {weights!r}.")
            for name, weight in weights.items():
                if not (_is_number(weight) and 0 <= weight < math.inf):
                    raise ConfigError(f"The weight of {name!r} in {table} must be a number from 0, got {weight!r}.")

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
            values["trackers"] = tuple(values.get("trackers", ()))
            values.setdefault("precision", "float32")  # in which runs were made before there was a choice
            return cls(**values)
        except (AttributeError, TypeError) as error:
            raise damaged from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
