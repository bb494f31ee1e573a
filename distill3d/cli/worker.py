"""One process of `distill3d launch`: the command itself, with its errors left to the launcher, which says them once."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback

import typer

from distill3d.cli import DEBUG, app
from distill3d.errors import Distill3dError, DivergedError
from distill3d.training.reports import THREADS, report_error, report_in

PATIENCE = 120  # seconds


def main() -> None:
    report_in()
    leads = os.environ.get("RANK", "0") == "0"
    if not leads:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the leading process tells, in the sum of a step
    _take_threads()
    try:
        app(args=[word for word in sys.argv[1:] if word != DEBUG])
    except Distill3dError as error:
        from distill3d.training.collectives import LostProcessError

        if DEBUG in sys.argv:
            traceback.print_exc()
        if not report_error(str(error), lost=isinstance(error, LostProcessError)):
            typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        if isinstance(error, DivergedError) and not leads:
            time.sleep(PATIENCE)  # all have this error, and the first to end ends all: the leading one has a report
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _take_threads() -> None:
    """Let torch read the launcher's number of threads; then forget it, since a backbone's own number goes before."""
    if os.environ.pop(THREADS, None):
        import torch  # noqa: F401

        os.environ.pop("OMP_NUM_THREADS", None)


if __name__ == "__main__":
    main()
