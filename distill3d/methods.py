"""The named bundles: which terms, on which views, with which settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from distill3d.errors import ConfigError, UnknownNameError
from distill3d.objectives.annealing import NO_ANNEALING, Annealing
from distill3d.objectives.bridge import Bridge
from distill3d.objectives.denoising import Denoising
from distill3d.objectives.guidance import guidance_table
from distill3d.objectives.rank import default_rank_weights
from distill3d.objectives.score import CSDLoss, LDLoss, ScoreDistillation, SDSLoss, variant
from distill3d.objectives.term import Term, Weighted
from distill3d.objectives.terms import RelativeDistance, ScoreTerm, Tweedie
from distill3d.options import checked_options
from distill3d.renderer import RunDefaults, Stage
from distill3d.scorer import Scorer
from distill3d.styles import Style
from distill3d.views import Grid, Mirror, Single, View, ViewLayout

GridStage = Literal["off", "raw", "image"]  # "raw": before super-resolution, as in the paper
Path = Literal["flow", "noise"]  # where a score is read: along the probability flow, or at one drawn noise
ControlName = Literal["off", "depth", "canny"]  # of single views; see `score_terms` for grids
# The ControlNets that each looks for, the first that the scorer has is taken.
CONTROL_CHOICES: dict[str, tuple[str, ...]] = {"off": (), "depth": ("depth",), "canny": ("canny", "depth")}


@dataclass(frozen=True)
class Method:
    """What the trainer needs to know of a method; it knows none by name."""

    terms: Mapping[str, Weighted]
    trains: str = "default"  # a group of `Renderer.trainable`
    betas: tuple[float, float] = (0.9, 0.99)  # Adam's
    final_lr: float = 1.0  # share of the learning rate that is left at the last step (cosine)
    replay: int | None = None  # steps after which all draws repeat: subjects, cameras, noise; None never repeats


MethodFactory = Callable[..., Method]  # (scorer, style, defaults, **options)


def score_terms(
    objective: ScoreDistillation,
    style: Style,
    defaults: RunDefaults,
    *,
    control: ControlName,
    mirror: bool,
    grid: GridStage,
    grid_every: int = 1,
    annealing: Annealing = NO_ANNEALING,
    antithetic: bool = False,
    term: Callable[[Denoising, ScoreDistillation], Term] | None = None,
) -> dict[str, Weighted]:
    """A term on single views and, unless `grid` is "off", every so many steps the same on 2x2 grids of one subject.

    Grids are controlled by depth: in a tile of a grid there is little room for edges.

    Args:
        annealing, antithetic: of the terms that draw a noise.
        term: another kind; None for those.
    """
    term = term or partial(ScoreTerm, annealing=annealing, antithetic=antithetic)
    scorer = objective.scorer
    main = View("main", defaults.front)
    views: ViewLayout = Mirror(main, objective.mirror_weights) if mirror else Single(main)
    shared = _draws_and_prompts(objective, style, annealing)
    controls = _control(scorer, *CONTROL_CHOICES[control])
    single = Denoising(scorer, views, **shared, stage=defaults.stage, controls=controls)
    terms = {"score": Weighted(1.0, term(single, objective))}
    if grid != "off":
        stage: Stage = grid
        layout = Grid(2, 2, defaults.around)
        of_grid = Denoising(
            scorer,
            replace(layout, size=layout.tile(scorer.image_size)),
            **shared,
            stage=stage,
            controls=_control(scorer, *CONTROL_CHOICES[control][-1:]),
            draw="grid",
        )
        terms["grid"] = Weighted(1.0, term(of_grid, variant(objective)), every=grid_every)
    return terms


def _draws_and_prompts(
    objective: ScoreDistillation, style: Style, annealing: Annealing = NO_ANNEALING
) -> dict[str, Any]:
    """What every denoising of a method has in common: the text of each branch, and where timesteps come from."""
    return {
        "prompts": {name: texts[0] for name, texts in objective.branches([style.prompt]).items()},
        "timesteps": annealing.timesteps(objective),
    }


def _control(scorer: Scorer, *wanted: str) -> tuple[str, ...]:
    """The first of the wanted ControlNets that the scorer has; none is no error, a scorer may come without."""
    return next(((name,) for name in wanted if name in scorer.controls), ())


def _paper_weights(scorer: Scorer, rank: bool) -> tuple[float, ...] | None:
    return default_rank_weights(scorer.latent_channels) if rank else None


def ld(
    scorer: Scorer,
    style: Style,
    defaults: RunDefaults,
    *,
    path: Path | None = None,
    guidance_scale: float = 3.5,
    noise_baseline: float = 0.0,
    t_range: tuple[float, float] = (0.02, 0.98),
    t_range_end: tuple[float, float] | None = None,
    guidance_end: float | None = None,
    antithetic: bool = False,
    control: ControlName = "depth",
    mirror: bool | None = None,
    grid: GridStage = "raw",
    grid_every: int | None = None,
    rank: bool = True,
) -> Method:
    """Recommended: the full score with depth control, mirror, grid and rank weighting.

    Read at one drawn noise level, as the paper does, weighted sigma (`path="noise"`), or along the whole probability
    flow (`path="flow"`): eleven looks of the scorer and a decode for each target, which pays where looks are cheap or
    targets are kept (`RunDefaults.replay`). `noise_baseline`, `t_range`, `antithetic` and what these end at say
    something under "noise" alone. `path`, `mirror` and `grid_every` are the backbone's unless they are given.
    docs/choose_an_objective.md has what was compared.
    """
    path = path or defaults.path
    mirror = defaults.mirror if mirror is None else mirror
    grid_every = defaults.grid_every if grid_every is None else grid_every
    annealing = Annealing(defaults.steps, t_range_end, guidance_end)
    if path == "flow" and (annealing or antithetic):
        raise ConfigError("t_range_end, guidance_end and antithetic are for path=noise: a flow draws no noise level.")
    objective = LDLoss(
        scorer,
        weighting="sigma",
        guidance_scale=guidance_scale,
        noise_baseline=noise_baseline,
        t_range=t_range,
        rank_weights=_paper_weights(scorer, rank),
        negative_prompt=style.negative_prompt,
    )
    terms = score_terms(
        objective,
        style,
        defaults,
        control=control,
        mirror=mirror,
        grid=grid,
        grid_every=grid_every,
        annealing=annealing,
        antithetic=antithetic,
        term=partial(Bridge, keep=defaults.replay is not None) if path == "flow" else None,
    )
    return Method(terms, final_lr=0.05, replay=defaults.replay if path == "flow" else None)


def ld_paper(
    scorer: Scorer,
    style: Style,
    defaults: RunDefaults,
    *,
    guidance_scale: float = 7.5,
    noise_baseline: float = 0.0,
    t_range: tuple[float, float] = LDLoss.t_range,
    t_range_end: tuple[float, float] | None = None,
    guidance_end: float | None = None,
    antithetic: bool = False,
    control: ControlName = "depth",
    mirror: bool = True,
    grid: GridStage = "raw",
    rank: bool = True,
) -> Method:
    """The printed equation: the full guided prediction, weighted sqrt(alpha_bar)/sigma, with all parts of the paper."""
    objective = LDLoss(
        scorer,
        guidance_scale=guidance_scale,
        noise_baseline=noise_baseline,
        t_range=t_range,
        rank_weights=_paper_weights(scorer, rank),
        negative_prompt=style.negative_prompt,
    )
    annealing = Annealing(defaults.steps, t_range_end, guidance_end)
    views: dict[str, Any] = {"control": control, "mirror": mirror, "grid": grid}
    return Method(score_terms(objective, style, defaults, **views, annealing=annealing, antithetic=antithetic))


def ld_released(scorer: Scorer, style: Style, defaults: RunDefaults, *, guidance_scale: float = 7.5) -> Method:
    """The released script's losses: its own gradient, opacity masks, a Tweedie distance and LDIS.

    Its LPIPS term is not in: it needs a perceptual network that no scorer brings. Its first ControlNet reads edges;
    a scorer without one is given depth. Depth is the reference's own, where the script estimates it, and views are
    resized as everywhere here.
    """
    weights = default_rank_weights(scorer.latent_channels)
    objective = LDLoss.released(scorer, guidance_scale=guidance_scale, rank_weights=weights)
    shared = {**_draws_and_prompts(objective, style), "sampled_posterior": True}
    layout = Mirror(View("main", defaults.front), objective.mirror_weights)
    single = Denoising(scorer, layout, **shared, controls=_control(scorer, "canny", "depth"), join="latents")
    around = Grid(2, 2, defaults.around)
    grid = Denoising(scorer, around, **shared, stage="raw", controls=_control(scorer, "depth"), draw="grid")
    of_grid = variant(objective, rank_weights=None)
    full = guidance_table("full", guidance_scale)
    return Method(
        {
            "score": Weighted(1.0, ScoreTerm(single, objective, mask="trained")),
            "grid": Weighted(1.0, ScoreTerm(grid, of_grid, mask="reference")),
            "tweedie": Weighted(0.1, Tweedie(single, full)),
            "ldis": Weighted(1.0, RelativeDistance()),
        },
        betas=(0.9, 0.999),
    )


def sds(
    scorer: Scorer,
    style: Style,
    defaults: RunDefaults,
    *,
    guidance_scale: float = SDSLoss.guidance_scale,
    noise_baseline: float = SDSLoss.noise_baseline,
    t_range: tuple[float, float] = SDSLoss.t_range,
    t_range_end: tuple[float, float] | None = None,
    guidance_end: float | None = None,
    antithetic: bool = False,
    control: ControlName = "off",
    mirror: bool = False,
    grid: GridStage = "off",
) -> Method:
    """DreamFusion's score distillation sampling on single views."""
    objective = SDSLoss(
        scorer,
        guidance_scale=guidance_scale,
        noise_baseline=noise_baseline,
        t_range=t_range,
        negative_prompt=style.negative_prompt,
    )
    annealing = Annealing(defaults.steps, t_range_end, guidance_end)
    views: dict[str, Any] = {"control": control, "mirror": mirror, "grid": grid}
    return Method(score_terms(objective, style, defaults, **views, annealing=annealing, antithetic=antithetic))


def csd(
    scorer: Scorer,
    style: Style,
    defaults: RunDefaults,
    *,
    t_range: tuple[float, float] = CSDLoss.t_range,
    t_range_end: tuple[float, float] | None = None,
    antithetic: bool = False,
    control: ControlName = "off",
    mirror: bool = False,
    grid: GridStage = "off",
) -> Method:
    """Classifier score distillation on single views."""
    objective = CSDLoss(scorer, t_range=t_range, negative_prompt=style.negative_prompt)
    annealing = Annealing(defaults.steps, t_range_end)
    views: dict[str, Any] = {"control": control, "mirror": mirror, "grid": grid}
    return Method(score_terms(objective, style, defaults, **views, annealing=annealing, antithetic=antithetic))


def build_method(
    name: str, factory: MethodFactory, scorer: Scorer, style: Style, defaults: RunDefaults, options: Mapping[str, Any]
) -> Method:
    """Call a method's factory.

    Raises:
        ConfigError: for an option that this method does not have, or a value that it cannot be.
    """
    return factory(scorer, style, defaults, **checked_options("Method", name, factory, options))


def reweighted(method: Method, factors: Mapping[str, float]) -> Method:
    """The method with the weights of these terms multiplied; 0 leaves a term out.

    Raises:
        UnknownNameError: for a term that it does not have.
        ConfigError: if nothing is left.
    """
    for name in factors:
        if name not in method.terms:
            raise UnknownNameError("term", name, method.terms)
    terms = {
        name: replace(weighted, weight=_times(weighted.weight, factors.get(name, 1.0)))
        for name, weighted in method.terms.items()
        if factors.get(name, 1.0) != 0
    }
    if not terms:
        raise ConfigError(f"No term is left: all of {', '.join(method.terms)} have weight 0.")
    return replace(method, terms=terms)


def _times(weight: float | Callable[[int], float], factor: float) -> float | Callable[[int], float]:
    return (lambda step: factor * weight(step)) if callable(weight) else factor * weight
