"""What the study runs: its configurations, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BASELINES = (0.0, 0.25, 0.5, 0.75, 1.0)
LR_FACTORS = (1 / 3, 1.0, 3.0)  # of the backbone's default
STYLES, SEEDS = ("zombie", "pixar"), (0, 1, 2)
GUIDANCE = 6.0  # the same for all
ALL_TIMESTEPS = (0.02, 0.98)

# CPU-seconds of one step of one subject on one core, and what each part adds; of one snapshot of 64 subjects.
CONTROL = {False: "off", True: "depth"}  # without and with ControlNet
STEP = {"base": 0.18, "control": 0.025, "grid=raw": 0.145, "grid=image": 0.36, "mirror": 0.07}
SNAPSHOT, START = 2.2, 0.5


@dataclass(frozen=True)
class Configuration:
    """A method with its settings, at one learning rate."""

    method: str
    options: tuple[tuple[str, Any], ...]
    lr: float

    @property
    def key(self) -> str:
        """A file name's part, the same for equal configurations."""
        words = [f"{name}={_word(value)}" for name, value in self.options]
        return "_".join([self.method, *words, f"lr={self.lr:.5g}"])


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def configuration(method: str, lr: float, **options: Any) -> Configuration:
    """A configuration whose options are in a fixed order."""
    return Configuration(method, tuple(sorted(options.items())), lr)


def plain(lr: float, baseline: float, control: bool, **parts: Any) -> Configuration:
    """The family at equal w(t) = sigma, single views unless `parts` says otherwise."""
    options = {"mirror": False, "grid": "off", "grid_every": 1, "rank": False, **parts}
    return configuration(
        "ld",
        lr,
        path="noise",
        guidance_scale=GUIDANCE,
        t_range=ALL_TIMESTEPS,
        noise_baseline=baseline,
        control=CONTROL[control],
        **options,
    )


def baseline_grid(lr: float) -> dict[tuple[float, bool, float], Configuration]:
    """(learning rate, with ControlNet, noise_baseline) to configuration: everything else is equal."""
    return {
        (lr * factor, control, baseline): plain(lr * factor, baseline, control)
        for factor in LR_FACTORS
        for control in (False, True)
        for baseline in BASELINES
    }


def ladder(lr: float) -> dict[str, Configuration]:
    """The paper's ablation, each rung the one above and one thing more, all at equal w(t) = sigma."""
    return {
        "SDS": plain(lr, 1.0, False),
        "SDS + ControlNet": plain(lr, 1.0, True),
        "LD + ControlNet": plain(lr, 0.0, True),
        "+ rank weighting": plain(lr, 0.0, True, rank=True),
        "+ grid after SR": plain(lr, 0.0, True, rank=True, grid="image"),
        "+ grid before SR": plain(lr, 0.0, True, rank=True, grid="raw"),
        "+ mirror": plain(lr, 0.0, True, rank=True, grid="raw", mirror=True),
    }


def own_weights(lr: float) -> dict[str, Configuration]:
    """The first three rungs with the w(t) that each method was published with, and nothing else changed."""
    shared = {"guidance_scale": GUIDANCE, "t_range": ALL_TIMESTEPS, "mirror": False, "grid": "off"}
    return {
        "SDS, w = sigma^2": configuration("sds", lr, control=CONTROL[False], **shared),
        "SDS + ControlNet, w = sigma^2": configuration("sds", lr, control=CONTROL[True], **shared),
        "LD + ControlNet, w = sqrt(alpha_bar)/sigma": configuration(
            "ld-paper", lr, control=CONTROL[True], rank=False, **shared
        ),
    }


def configurations(lr: float) -> list[Configuration]:
    """All of them, each once: the ladder shares its first rungs with the grid."""
    every = [*ladder(lr).values(), *own_weights(lr).values(), *baseline_grid(lr).values()]
    return list(dict.fromkeys(every))


def expected_seconds(configuration: Configuration, steps: int, snapshots: Sequence[int]) -> float:
    """CPU-seconds of one cell, by what the parts cost."""
    options: Mapping[str, Any] = dict(configuration.options)
    step = STEP["base"] + STEP["control"] * (options["control"] != "off") + STEP["mirror"] * options["mirror"]
    step += STEP.get(f"grid={options['grid']}", 0.0)
    return START + steps * step + len(snapshots) * SNAPSHOT
