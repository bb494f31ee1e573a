"""`distill3d plan`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distill3d.training.planning.predict import Prediction
    from distill3d.training.planning.survey import Survey

GIB = 2**30


def plan(
    backbone: Annotated[str, typer.Option(help="A name from `distill3d backbones`.")] = "panohead",
    vram: Annotated[
        str, typer.Option(help="Memory of the device: 8gb, 8192mb, or auto for what is left here.")
    ] = "8gb",
    method: Annotated[str, typer.Option(help="A name from `distill3d methods`.")] = "ld",
    batch: Annotated[int | None, typer.Option(min=1, help="Subjects in a step. (default: the backbone's)")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="A name from `distill3d scorers`. (default: the backbone's)")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the scorer's networks. (default: half on a GPU, else float32)")
    ] = None,
    option: Annotated[list[str] | None, typer.Option("--set", help="A setting of the method; repeatable.")] = None,
    ema: Annotated[bool, typer.Option(help="With a moving average of the weights.")] = False,
    device: Annotated[str | None, typer.Option(help="cuda or cpu. (default: cuda; for auto, what is here)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Predict what a step needs, without any download, and choose the fastest way to compute it that fits."""
    from distill3d.cli.run import _pairs, _value
    from distill3d.training.planning.survey import Question, survey

    question = Question(
        backbone=backbone,
        vram=vram,
        method=method,
        scorer=scorer,
        precision=precision,
        batch=batch,
        ema=ema,
        device=device or _device(vram),
        options={name: _value(text) for name, text in _pairs(option, "--set").items()},
    )
    found = survey(question, (lambda survey, rung: None) if as_json else _say_rung)
    if as_json:
        typer.echo(json.dumps(found.plain(), indent=2))
    else:
        _say_table(found, found.check())
        _say_cards(found)
    found.check()


def _device(vram: str) -> str:
    if vram.strip().lower() != "auto":
        return "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _say_rung(found: Survey, rung: Prediction) -> None:
    from distill3d.training.planning.budget import RESERVED
    from distill3d.training.planning.plan import last_saving

    if len(found.rungs) == 1:
        question = found.question
        typer.echo(
            f"{question.backbone}, {question.method}, {found.batch} subject{'s' if found.batch > 1 else ''} a step, "
            f"scorer in {question.precision}, on {found.kind}: {found.budget / GIB:.1f} GiB, of which "
            f"{RESERVED[found.kind] / GIB:.1f} are kept free for what is not the step's. All figures are predicted."
        )
        typer.echo(f"  {'what is saved, one after the other':36s} {'peak':>9s} {'work':>6s}")
    mark = "<- chosen" if rung is found.chosen else "fits" if found.fits(rung) else ""
    warning = "  changes the gradient" if rung.plan.fast else ""
    name = last_saving(rung.plan)
    typer.echo(f"  {name:36s} {_gib(rung.peak)} {found.relative_flops(rung):5.2f}x  {mark}{warning}".rstrip())


def _say_table(found: Survey, rung: Prediction) -> None:
    from distill3d.training.planning.plan import last_saving

    typer.echo(f"Memory of the chosen plan ({last_saving(rung.plan)}), all the time:")
    held: list[tuple[str, int]] = [
        ("parameters of the backbone", rung.backbone),
        ("  trained ones of its frozen original", rung.reference),
        ("parameters of the scorer", rung.scorer),
        ("optimiser", rung.optimizer),
        ("moving average", rung.averaged),
    ]
    for name, size in held:
        if size:
            typer.echo(f"  {name:36s} {_gib(size)}")
    typer.echo(
        f"Beside that, at most, while it runs (gradients of the weights, {_gib(rung.gradients).strip()}, included):"
    )
    for name, phase in rung.phases.items():
        work = f"{phase.flops / 1e12:8.3f} TFLOP" if phase.flops > 5e8 else ""
        typer.echo(f"  {name:36s} {_gib(rung.activations(name))} {work}".rstrip())
    typer.echo(f"  {'peak, everything counted':36s} {_gib(rung.peak)} {rung.flops / 1e12:8.3f} TFLOP")
    if rung.plan.fast:
        typer.secho(
            "Nothing else fits: a tiny autoencoder takes the VAE's place, which changes the gradient (--fast).",
            fg=typer.colors.YELLOW,
        )


def _say_cards(found: Survey) -> None:
    from distill3d.training.planning.cards import START, UTILISATION

    expected = found.expected()
    if expected:
        typer.echo(
            f"Steps a second, predicted, not measured: {UTILISATION:.0%} of the data sheets' dense peak is assumed "
            "(bfloat16's for half precision, else float32's without TF32), and "
            f"{1e6 * START:.0f} microseconds for each of {found.check().operations} kernels to start."
        )
    for card, fits, speed in expected:
        typer.echo(f"  {card.name:16s} {card.memory:3d} GiB  {speed:6.2f}{'' if fits else '  does not fit'}")


def _gib(size: int) -> str:
    return f"{size / GIB:6.2f} GiB"
