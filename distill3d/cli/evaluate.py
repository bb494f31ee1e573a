"""`distill3d evaluate`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from distill3d.cli.shared import Base, Device, Model


def evaluate(
    run: Model,
    against: Annotated[list[str] | None, typer.Option(help="Another run of the same style; repeatable.")] = None,
    clip: Annotated[
        Path | None, typer.Option(help="Folder of the diffusion model's own CLIP, from its training.")
    ] = None,
    judges: Annotated[Path | None, typer.Option(help="Folder of judges. (default: the package's)")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder that is written. (default: RUN/evaluation; of a pack evaluation/NAME)")
    ] = None,
    base: Base = None,
    device: Device = None,
) -> None:
    """Measure a run: style, identity, and how near it comes to the true stylised pictures."""
    from distill3d.evaluate import evaluate_run
    from distill3d.tiny.evaluation import load_clip

    panel: Any = None
    if judges is not None:
        from distill3d.tiny.judges import load_judges

        panel = load_judges(judges)
    with _progress() as progress:
        report = evaluate_run(
            run,
            against=against or (),
            panel=panel,
            clip=None if clip is None else load_clip(clip),
            cache=cache_folder(),
            out=out,
            device=device,
            base=base,
            told=typer.echo,
            progress=progress,
        )
    typer.echo(report.table)
    for remark in report.remarks:
        typer.echo(remark)
    for name, value in report.others.items() if report.paired else ():
        typer.echo(f"{name:16} {value:.3f}")
    typer.echo(f"Everything: {report.folder}")


def cache_folder() -> Path:
    """Where true pictures are kept: they depend on no run, and take longest to make."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "distill3d" / "truth"


@contextmanager
def _progress() -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def show(what: str, done: int, total: int) -> None:
            if bar.tasks[0].description != what:
                bar.reset(task, total=total, description=what)
            bar.update(task, completed=done, total=total)

        yield show
