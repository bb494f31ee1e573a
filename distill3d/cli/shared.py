"""Arguments and options that several commands have, said once."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="A run's folder, a style pack's, or its Hub id user/name.")]
Base = Annotated[str | None, typer.Option(help="The backbone's own weights, if they are not found.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1. (default: the run's)")]
Pictures = Annotated[
    bool | None, typer.Option(help="Sheet and turntable. (default: unless photographs that you gave are on them)")
]
