"""sweep.yaml to the runs that it stands for, checked before the first of them starts."""

from __future__ import annotations

import difflib
import itertools
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError
from distill3d.sweep.names import run_name
from distill3d.sweep.source import read_yaml

SETTINGS = ("out", "base", "vary", "workers", "retries", "evaluate", "engine", "ray")
ENGINES = ("local", "ray")
ALWAYS = ("style", "method", "seed")  # columns of every table, in this order, varied or not
MOST = 10_000  # runs: more are a slip of the pen
FIELDS = {f.name: str(f.type) for f in fields(DistillConfig)}
DEFAULTS = DistillConfig(style="any")


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a sweep."""

    name: str  # of its folder
    config: DistillConfig
    varied: Mapping[str, Any]  # style, method, seed, and whatever else is varied


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep.yaml says."""

    out: Path  # absolute
    runs: tuple[PlannedRun, ...]
    workers: int | None = None  # runs at the same time; None: one, or on a Ray cluster as many as it takes
    retries: int = 2  # how often a run that died is taken up again
    evaluate: bool = False
    engine: str = "local"
    ray: Mapping[str, float] = field(default_factory=dict)  # what one run asks of the cluster: num_cpus, num_gpus


def read_sweep(path: Path, *, workers: int | None = None, engine: str | None = None) -> Sweep:
    """Read and check a sweep.yaml.

    Args:
        workers, engine: take the place of what the file says.
    Raises:
        ConfigError, UnknownNameError: what is wrong, before anything has started.
    """
    values = read_yaml(path)
    _refuse_unknown(f"{path}", values, SETTINGS)
    base, vary = (_mapping(name, values.get(name)) for name in ("base", "vary"))
    if not isinstance(values.get("out"), str) or not values["out"].strip():
        raise ConfigError(f"{path} does not say where the runs go: add a line like `out: sweeps/first`.")
    sweep = Sweep(
        out=Path(values["out"]).resolve(),
        runs=tuple(plan_runs(base, vary)),
        workers=_whole_number("workers", workers or values.get("workers"), least=1),
        retries=_whole_number("retries", values.get("retries", Sweep.retries), least=0),
        evaluate=_truth("evaluate", values.get("evaluate", Sweep.evaluate)),
        engine=_known_engine(engine or values.get("engine", Sweep.engine)),
        ray=_resources(_mapping("ray", values.get("ray"))),
    )
    elsewhere = sweep.engine == "ray" and "RAY_ADDRESS" in os.environ
    for run in sweep.runs:
        check_run(run.config, elsewhere=elsewhere)
    return sweep


def plan_runs(base: Mapping[str, Any], vary: Mapping[str, Any]) -> Iterable[PlannedRun]:
    """Every combination of the varied values, the first named field changing slowest.

    Raises:
        ConfigError: for what is no field, or given twice, or no list; a value that a run cannot have.
    """
    _refuse_unknown("base", base, FIELDS)
    _refuse_unknown("vary", vary, FIELDS)
    for name, choices in vary.items():
        if name in base:
            raise ConfigError(f"{name} is fixed in base and varied in vary; take it out of one of them.")
        if not isinstance(choices, list) or not choices:
            raise ConfigError(f"vary takes a list of values for {name}, got {choices!r}; a single value goes in base.")
    if "style" not in {**base, **vary}:
        raise ConfigError("Say which styles: `style: [zombie, joker]` in vary, or one in base.")
    if (count := math.prod(len(choices) for choices in vary.values())) > MOST:
        raise ConfigError(f"These are {count} runs; a sweep has at most {MOST}.")
    runs: dict[str, PlannedRun] = {}
    for choice in itertools.product(*vary.values()):
        run = _planned(base, dict(zip(vary, choice)))
        if run.name in runs:
            raise ConfigError(f"Two runs of this sweep would be called {run.name!r}; is a value listed twice?")
        runs[run.name] = run
    return runs.values()


def check_run(config: DistillConfig, *, elsewhere: bool = False) -> None:
    """Refuse what can be known to fail without loading a network.

    Args:
        elsewhere: the run is for other machines, whose devices are not known here.
    Raises:
        UnknownNameError, ConfigError: what is wrong, and what to do.
    """
    from distill3d.anchors import check_anchors
    from distill3d.options import checked_options
    from distill3d.plugins import registry
    from distill3d.preparation import find_style
    from distill3d.runs import check_device
    from distill3d.training.planning.budget import parse_vram

    known = registry()
    find_style(config.style, known.styles)
    offers = {kind: known.find(kind, getattr(config, kind)) for kind in ("backbone", "method")}
    if config.scorer is not None:
        known.find("scorer", config.scorer)
    check_anchors(config.anchors)
    if not elsewhere:
        check_device(config.device)
    if config.vram is not None:
        parse_vram(config.vram, "cpu" if elsewhere else config.device)
    checked_options("Method", config.method, offers["method"].load(), config.options)
    checked_options("Backbone", config.backbone, offers["backbone"].load(), config.backbone_options)


def _known_engine(name: Any) -> str:
    """Refuse an engine that there is not."""
    if name not in ENGINES:
        raise ConfigError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}.")
    return str(name)


def _whole_number(name: str, value: Any, *, least: int) -> Any:
    """None or a whole number from `least`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise ConfigError(f"{name} must be a whole number from {least}, got {value!r}.")
    return value


def _planned(base: Mapping[str, Any], varied: Mapping[str, Any]) -> PlannedRun:
    config = _config({**base, **varied})  # refuses what cannot be part of a name
    shown = {name: getattr(config, name) for name in ALWAYS} | dict(varied)
    return PlannedRun(name=run_name(shown), config=config, varied=shown)


def _config(values: Mapping[str, Any]) -> DistillConfig:
    """The config of these settings; `options.rank` means the entry `rank` of `options`."""
    given: dict[str, Any] = {}
    for name, value in sorted(values.items()):  # `options` itself before its entries
        outer, dot, inner = name.partition(".")
        value = _settled(name, value)
        if dot:
            given[outer] = {**given.get(outer, {}), inner: value}
        else:
            _check_type(name, value)
            given[name] = dict(value) if isinstance(value, Mapping) else value
    return _from_any_folder(DistillConfig(**given))


def _check_type(name: str, value: Any) -> None:
    """What DistillConfig itself takes on trust: texts and mappings."""
    if isinstance(getattr(DEFAULTS, name), Mapping) and not isinstance(value, Mapping):
        raise ConfigError(f"{name} must hold values by name, got {value!r}.")
    if FIELDS[name] in ("str", "str | None") and not isinstance(value, str | None.__class__):
        raise ConfigError(f"{name} must be text, got {value!r}; put it in quotes.")


def _settled(name: str, value: Any) -> Any:
    """Lists as tuples, as settings of methods are given them; what YAML has and a config has not is refused."""
    if isinstance(value, dict):
        return {str(key): _settled(name, part) for key, part in value.items()}
    if isinstance(value, list):
        return tuple(_settled(name, part) for part in value)
    if value is not None and not isinstance(value, str | int | float):
        raise ConfigError(f"{name} cannot be a {type(value).__name__}, got {value}; put a text in quotes.")
    return value


def _from_any_folder(config: DistillConfig) -> DistillConfig:
    """With its paths absolute: a worker may run elsewhere."""
    options = dict(config.backbone_options)
    if isinstance(options.get("subjects"), str | tuple):
        subjects = options["subjects"]
        options["subjects"] = tuple(_absolute(p) for p in ((subjects,) if isinstance(subjects, str) else subjects))
    from distill3d.preparation import with_absolute_paths  # torch: only when a sweep is read

    return with_absolute_paths(replace(config, backbone_options=options))


def _absolute(place: Any) -> Any:
    """A path that exists made absolute; a name or a Hub id stays."""
    return str(Path(place).resolve()) if isinstance(place, str) and place and Path(place).exists() else place


def _refuse_unknown(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Unknown names, the nearest known one beside the first; `options.rank` counts as `options`."""
    known = list(known)
    holders = {name for name, kind in FIELDS.items() if kind.startswith("Mapping")}
    for name in given:
        outer, dot, inner = str(name).partition(".")
        if outer in known and (not dot or (inner and outer in holders)):
            continue
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(
            f"{where} has a setting {name!r} that a sweep does not know. It knows: {', '.join(known)}.{hint}"
        )


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise ConfigError(f"{name} must hold settings by name, got {value!r}.")
    return value or {}


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}.")
    return value


def _resources(values: Mapping[str, Any]) -> dict[str, float]:
    """What one run asks of a Ray cluster."""
    for name, value in values.items():
        if name not in ("num_cpus", "num_gpus"):
            raise ConfigError(f"ray has a setting {name!r} that a sweep does not know. It knows: num_cpus, num_gpus.")
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
            raise ConfigError(f"{name} must be a number from 0, got {value!r}.")
    return dict(values)
