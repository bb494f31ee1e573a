"""`distill3d sweep`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer


def sweep(
    file: Annotated[Path, typer.Argument(help="The sweep's settings; see docs/sweep.md.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time. (default: the file's, else 1)")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local or ray. (default: the file's, else local)")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and how far they are; start none.")] = False,
) -> None:
    """Do many runs: styles by methods by seeds, each in a process of its own, one table at the end."""
    from distill3d.cli.evaluate import cache_folder
    from distill3d.sweep import read_sweep, run_sweep, text_table

    plan = read_sweep(file, workers=workers, engine=engine)
    if dry_run:
        _list(plan)
        return
    try:
        with _progress() as watch:
            table = run_sweep(plan, cache=cache_folder(), watch=watch)
    except KeyboardInterrupt:
        typer.echo("Stopped and saved. Go on with the same command.", err=True)
        raise
    typer.echo(text_table(table))
    finished = table.count("finished")
    typer.echo(f"{finished} of {len(table.rows)} runs finished. Side by side: {plan.out / 'index.html'}")
    if finished < len(table.rows):
        raise typer.Exit(1)


def _list(plan: Any) -> None:
    from distill3d.sweep.table import make_table

    for row in make_table(plan).rows:
        typer.echo(f"{row['run']:40} {row['status']}, {row['steps']} steps")
    typer.echo(f"{len(plan.runs)} runs in {plan.out}, {plan.workers or 1} at a time by engine {plan.engine}")


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar of the runs with what is at work now; a line for each that ended badly."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from distill3d.sweep import Counts, SweepWatch

    columns = (
        TextColumn("[bold]sweep"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("sweep", total=None, figures="")

        def changed(counts: Counts) -> None:
            now = ", ".join(f"{name} {done}/{steps or '?'}" for name, (done, steps) in counts.running.items())
            figures = f"failed {counts.failed}  running: {now or 'none'}"
            bar.update(task, total=counts.runs, completed=counts.done + counts.failed, figures=figures)

        def ended(end: Any, again: bool) -> None:
            if end.how in ("failed", "died"):
                then = "; taken up again" if again else ""
                bar.console.print(f"{end.name} {end.how}: {end.message}{then}", markup=False, highlight=False)

        yield SweepWatch(on_change=changed, on_end=ended)
