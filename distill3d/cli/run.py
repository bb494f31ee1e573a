"""`distill3d run`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError

DEFAULTS = DistillConfig(style="any")


def run(
    context: typer.Context,
    style: Annotated[str, typer.Option(help="A name from `distill3d styles`, or a prompt in quotes.")] = "",
    backbone: Annotated[str, typer.Option(help="A name from `distill3d backbones`.")] = DEFAULTS.backbone,
    method: Annotated[str, typer.Option(help="A name from `distill3d methods`.")] = DEFAULTS.method,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps. (default: the backbone's)")] = None,
    batch: Annotated[int | None, typer.Option(help="Subjects in a step. (default: the backbone's)")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. (default: the backbone's)")] = None,
    seed: Annotated[int, typer.Option(help="Decides every random number of the run.")] = DEFAULTS.seed,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints. (default: a sixth of the run)")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder. (default: runs/STYLE-BACKBONE)")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    weights: Annotated[str | None, typer.Option(help="Checkpoint of the backbone.")] = None,
    backbone_option: Annotated[
        list[str] | None,
        typer.Option("--backbone-set", help="A setting of the backbone: psi=0.7, low_memory=true; repeatable."),
    ] = None,
    subjects: Annotated[
        list[str] | None, typer.Option(help="File or folder of subjects, where the backbone reads them; repeatable.")
    ] = None,
    scorer: Annotated[str | None, typer.Option(help="A name from `distill3d scorers`.")] = None,
    scorer_weights: Annotated[str | None, typer.Option(help="Folder or Hub id of the diffusion model.")] = None,
    controlnet: Annotated[list[str] | None, typer.Option(help="depth=FOLDER or canny=HUB_ID; may be repeated.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method: guidance_scale=5, mirror=false, grid=off; repeatable."),
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(help="Hold on to the original: opacity=10, perceptual=1, variation=0.001, scene=10; repeatable."),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="Group of the backbone's weights, as decoder. (default: the method's)")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1; may change on --resume.")] = DEFAULTS.device,
) -> None:
    """Distil a style into a 3D generator."""
    from distill3d import recipe  # torch: only when a run starts

    with _progress() as watch:
        if resume is not None:
            given = _given(context)
            if others := sorted(given - {"resume", "device"}):
                flags = ", ".join(f"--{name.replace('_', '-')}" for name in others)
                raise ConfigError(f"--resume takes everything from the run's own config.json; leave out {flags}.")
            folder = recipe.resume(resume, device=device if "device" in given else None, watch=watch)
        else:
            if not style:
                raise ConfigError("Say which style: --style zombie, or a prompt in quotes. See `distill3d styles`.")
            config = DistillConfig(
                style=style,
                backbone=backbone,
                method=method,
                steps=steps,
                batch=batch,
                lr=lr,
                seed=seed,
                save_every=save_every,
                weights=weights,
                backbone_options=_backbone_options(backbone_option, subjects),
                scorer=scorer,
                scorer_weights=scorer_weights,
                controlnets=_pairs(controlnet, "--controlnet"),
                anchors=_weights(anchor),
                train=train,
                options={name: _value(text) for name, text in _pairs(option, "--set").items()},
                device=device,
            )
            folder = recipe.distill(config, out, watch=watch)
    _say_where(folder)


def _given(context: typer.Context) -> set[str]:
    """The parameters that were typed."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _say_where(folder: Path) -> None:
    if (folder / "sheet.png").exists():
        typer.echo(f"Before and after: {folder / 'sheet.png'}\nTurntable: {folder / 'turntable.webp'}")
        typer.echo(f"Everything: {folder / 'report.html'}")
    else:
        typer.echo(f"Stopped and saved. Continue with: distill3d run --resume {folder}")


def _backbone_options(pairs: list[str] | None, subjects: list[str] | None) -> dict[str, Any]:
    """What --backbone-set and --subjects say; paths that hold in any folder."""
    options = {name: _value(text) for name, text in _pairs(pairs, "--backbone-set").items()}
    return {**options, "subjects": tuple(str(Path(p).resolve()) for p in subjects)} if subjects else options


def _pairs(texts: list[str] | None, flag: str) -> dict[str, str]:
    pairs = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{flag} takes NAME=VALUE, got {text!r}.")
        pairs[name.replace("-", "_")] = value
    return pairs


def _weights(texts: list[str] | None) -> dict[str, float]:
    """What --anchor says."""
    weights = {}
    for name, text in _pairs(texts, "--anchor").items():
        try:
            weights[name] = float(text)
        except ValueError:
            raise ConfigError(f"--anchor takes NAME=NUMBER, got {name}={text!r}.") from None
    return weights


def _value(text: str) -> Any:
    """true and false, numbers, ranges like 0.02,0.5, else text."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
    return numbers if len(numbers) > 1 else numbers[0]


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar with loss, step time and remaining time; Ctrl-C finishes the step and saves, twice stops at once."""
    import signal

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from distill3d.training.loop import Watch

    asked: list[int] = []
    stepping: list[int] = []

    def ask(signum: int, frame: object) -> None:
        if asked or not stepping:  # while loading there is nothing to save
            raise KeyboardInterrupt
        asked.append(signum)
        bar.console.print("Finishing this step, then saving. Once more to stop at once.")

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("loading", total=None, figures="")

        def started(step: int, steps: int) -> None:
            stepping.append(step)
            bar.reset(task, total=steps, completed=step, description="distilling")

        def stepped(log: Any, seconds: float) -> None:
            figures = f"loss {log.loss:.3g}  {seconds:.2f} s/step{'  skipped: not finite' if log.skipped else ''}"
            bar.update(task, advance=1, figures=figures)

        def previewed(path: Path) -> None:
            bar.console.print(f"Preview: {path}")

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield Watch(on_start=started, on_step=stepped, on_preview=previewed, should_stop=lambda: bool(asked))
        finally:
            signal.signal(signal.SIGINT, before)
