"""`distill3d doctor`."""

from __future__ import annotations

import importlib.util
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import typer

CORE = ("torch", "diffusers", "transformers", "huggingface_hub", "safetensors", "pluggy", "typer")
EXTRAS = {
    "control": ("cv2", "canny edges as control pictures"),
    "mesh": ("trimesh", "coloured meshes"),
    "track": ("accelerate", "numbers for TensorBoard"),
    "video": ("imageio_ffmpeg", "videos as .mp4"),
    "ray": ("ray", "sweeps on a cluster"),
}


def doctor() -> None:
    """Say what is installed, what is missing, and the command to get it."""
    import distill3d
    from distill3d.plugins import registry

    typer.echo(f"distill3d {distill3d.__version__} on Python {platform.python_version()}, {platform.system()}")
    for package in CORE:
        try:
            typer.echo(f"  {package:16} {version(package)}")
        except PackageNotFoundError:
            typer.secho(f"  {package:16} missing: pip install {package}", fg=typer.colors.RED)
    _devices()
    typer.echo("Extras")
    for extra, (module, purpose) in EXTRAS.items():
        found = importlib.util.find_spec(module) is not None
        typer.echo(f"  {extra:16} {'installed' if found else f'missing ({purpose}): pip install distill3d[{extra}]'}")
    _embedded_pair()
    broken = [plugin for plugin in registry().plugins if plugin.broken]
    typer.echo(f"Plugins: {len(registry().plugins)} found, {len(broken)} broken")
    for plugin in broken:
        typer.secho(f"  {plugin.name}: {plugin.broken}", fg=typer.colors.RED)


def _embedded_pair() -> None:
    from distill3d.errors import Distill3dError
    from distill3d.plugins import registry

    typer.echo("Embedded pair")
    for kind in ("backbone", "scorer"):
        try:
            registry().find(kind, "tiny").load()()
            typer.echo(f"  {kind:16} loads")
        except Distill3dError as error:
            typer.secho(f"  {kind:16} {error}", fg=typer.colors.RED)


def _devices() -> None:
    import torch

    typer.echo(f"Devices\n  cpu              {os.cpu_count()} cores, {torch.get_num_threads()} threads")
    for i in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(i).total_memory / 2**30
        typer.echo(f"  cuda:{i}           {torch.cuda.get_device_name(i)}, {memory:.0f} GiB")
