"""`distill3d explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from distill3d.cli.shared import Device


def explain(
    run: Annotated[str, typer.Argument(help="A run's folder.")],
    step: Annotated[int, typer.Option(help="Which step: one that the run has taken, or the next.")],
    subject: Annotated[int, typer.Option(help="Place in the step's batch.")] = 0,
    device: Device = None,
) -> None:
    """Take one step apart: what the scorer saw, what it said, and what each term does to the pictures and weights."""
    from distill3d.explain import explain as explain_run

    with _progress() as progress:
        page = explain_run(run, step, subject=subject, device=device, progress=progress)
    typer.echo(f"Explained: {page}")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar over the steps that are taken again."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("loading", total=None)

        def show(reached: int, wanted: int) -> None:
            bar.update(task, completed=reached, total=wanted, description="replaying")

        yield show
