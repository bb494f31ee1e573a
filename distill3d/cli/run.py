"""`distill3d run`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
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
    warmup: Annotated[int, typer.Option(help="Steps over which the learning rate rises.")] = DEFAULTS.warmup,
    clip: Annotated[float | None, typer.Option(help="Largest norm of a step's gradient. (default: no limit)")] = None,
    ema: Annotated[
        float, typer.Option(help="Decay of a moving average that is published, as 0.995; 0 for none.")
    ] = DEFAULTS.ema,
    seed: Annotated[int, typer.Option(help="Decides every random number of the run.")] = DEFAULTS.seed,
    save_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints. (default: a sixth of the run)")
    ] = None,
    keep: Annotated[int, typer.Option(help="Last checkpoints to keep, beside the newest healthy one.")] = DEFAULTS.keep,
    out: Annotated[Path | None, typer.Option(help="The run's folder. (default: runs/STYLE-BACKBONE)")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
    override: Annotated[
        bool, typer.Option("--override", help="With --resume: go on although settings have changed.")
    ] = False,
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
    precision: Annotated[
        str | None,
        typer.Option(help="Of the diffusion model: float32, half, bfloat16, float16. (default: the device's best)"),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="A tiny autoencoder in the diffusion model (TAESD).")] = False,
    autoencoder: Annotated[
        str | None, typer.Option(help="Folder or Hub id of another tiny autoencoder than --fast takes.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the method: guidance_scale=5, mirror=false, grid=off; repeatable."),
    ] = None,
    weight: Annotated[
        list[str] | None, typer.Option(help="Factor of a term of the method: grid=0.5, tweedie=0; repeatable.")
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(help="Hold on to the original: opacity=10, perceptual=1, variation=0.001, scene=10; repeatable."),
    ] = None,
    train: Annotated[
        str | None, typer.Option(help="Group of the backbone's weights, as decoder. (default: the method's)")
    ] = None,
    probe: Annotated[
        int, typer.Option(help="Draws by which each checkpoint measures the terms' signal-to-noise ratio; 0 for none.")
    ] = DEFAULTS.probe,
    stop_on_collapse: Annotated[
        bool, typer.Option("--stop-on-collapse", help="End the run when its subjects have become all but one.")
    ] = False,
    stop_identity: Annotated[
        float | None, typer.Option(help="End it when identity (RUN/health.jsonl) falls below, as 0.4.")
    ] = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Also log to tensorboard, wandb or another of accelerate's; repeatable.")
    ] = None,
    vram: Annotated[
        str | None, typer.Option(help="Memory that a step may take: 8gb, 12gb, 24gb, auto. See `distill3d plan`.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="What several processes share: subjects, or the views of one. See `distill3d launch`.")
    ] = DEFAULTS.split,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1; may change on --resume.")] = DEFAULTS.device,
    commercial_ok: Annotated[
        bool,
        typer.Option(help="Refuse parts whose licence forbids commercial use, or is unknown; see docs/licences.md."),
    ] = DEFAULTS.commercial_ok,
) -> None:
    """Distil a style into a 3D generator."""
    settings = {
        "style": style,
        "backbone": backbone,
        "method": method,
        "steps": steps,
        "batch": batch,
        "lr": lr,
        "warmup": warmup,
        "clip": clip,
        "ema": ema,
        "seed": seed,
        "save_every": save_every,
        "keep": keep,
        "weights": weights,
        "backbone_options": _backbone_options(backbone_option, subjects),
        "scorer": scorer,
        "scorer_weights": scorer_weights,
        "controlnets": _pairs(controlnet, "--controlnet"),
        "precision": precision,
        "fast": autoencoder or fast,
        "anchors": _weights(anchor, "--anchor"),
        "term_weights": _weights(weight, "--weight"),
        "train": train,
        "options": {name: _value(text) for name, text in _pairs(option, "--set").items()},
        "probe": probe,
        "stop_on_collapse": stop_on_collapse,
        "stop_identity": stop_identity,
        "trackers": tuple(track or ()),
        "vram": vram,
        "split": split,
        "device": device,
        "commercial_ok": commercial_ok,
    }
    given = _given(context)
    if resume is None:
        if not style:
            raise ConfigError("Say which style: --style zombie, or a prompt in quotes. See `distill3d styles`.")
        if override:
            raise ConfigError("--override goes with --resume RUN.")
        folder = _distill(DistillConfig(**settings), out)  # type: ignore[arg-type]
    else:
        if out is not None:
            raise ConfigError("--resume goes on in the run's own folder; leave out --out.")
        changes = {FIELDS.get(name, name): settings[FIELDS.get(name, name)] for name in given - NO_SETTINGS}
        folder = _resume(resume, changes, override)
    if folder is not None:
        _say_where(folder)


# Options that have another name than the setting that they give, and those that give none.
FIELDS = {
    "backbone_option": "backbone_options",
    "subjects": "backbone_options",
    "controlnet": "controlnets",
    "autoencoder": "fast",
    "option": "options",
    "weight": "term_weights",
    "anchor": "anchors",
    "track": "trackers",
}
NO_SETTINGS = {"resume", "override", "out"}


def _distill(config: DistillConfig, out: Path | None) -> Path | None:
    """The run's folder; None in a process that does not lead."""
    from distill3d import recipe  # torch: only when a run starts

    with _several(config.split, config.device) as (share, device), _progress(share.leads) as watch:
        folder = recipe.distill(replace(config, device=device), out, watch=watch, share=share)
        return folder if share.leads else None


def _resume(folder: Path, changes: dict[str, Any], override: bool) -> Path | None:
    from distill3d import recipe
    from distill3d.runs import read_config

    saved = read_config(folder)
    split, device = changes.get("split", saved.split), changes.get("device", saved.device)
    with _several(split, device) as (share, device), _progress(share.leads) as watch:
        changes = {**changes, "device": device}
        recipe.resume(folder, changes=changes, override=override, watch=watch, share=share)
        return folder if share.leads else None


@contextmanager
def _several(split: Any, device: str) -> Iterator[tuple[Any, str]]:
    """This process's share of the run, and its device: all of it, unless `distill3d launch` started several."""
    from distill3d.training.share import Share

    if "WORLD_SIZE" not in os.environ:
        yield Share(), device
        return
    from distill3d.training.distributed import own_device, start_share, stop_share

    device = own_device(device)
    share = start_share(split, device)
    try:
        yield share, device
    finally:
        stop_share()


def _given(context: typer.Context) -> set[str]:
    """The parameters that were typed."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _say_where(folder: Path) -> None:
    ended = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if "reason" in ended:
        typer.echo(f"Ended before its time: {ended['reason']}. The weights of step {ended['step']} are published.")
    if ended["status"] != "stopped":
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


def _weights(texts: list[str] | None, flag: str) -> dict[str, float]:
    """What --anchor and --weight say."""
    weights = {}
    for name, text in _pairs(texts, flag).items():
        try:
            weights[name] = float(text)
        except ValueError:
            raise ConfigError(f"{flag} takes NAME=NUMBER, got {name}={text!r}.") from None
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
def _progress(shown: bool = True) -> Iterator[Any]:
    """A bar with loss, step time and remaining time; Ctrl-C finishes the step and saves, twice stops at once."""
    import signal

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from distill3d.health import collapsed
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
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task("loading", total=None, figures="")

        def started(step: int, steps: int) -> None:
            stepping.append(step)
            bar.reset(task, total=steps, completed=step, description="distilling")

        def stepped(log: Any, seconds: float) -> None:
            figures = f"loss {log.loss:.3g}  {seconds:.2f} s/step{'  skipped: not finite' if log.skipped else ''}"
            bar.update(task, advance=1, figures=figures)

        def previewed(path: Path) -> None:
            bar.console.print(f"Preview: {path}")

        def checked(health: Any) -> None:
            if collapsed(health):
                bar.console.print(
                    f"[bold yellow]Collapse:[/] at step {health.step} {health.kept:.2f} of the subjects' own "
                    "differences are left. A smaller --lr, fewer --steps or --anchor scene=1 keep them."
                )

        before = signal.signal(signal.SIGINT, ask)
        try:
            yield Watch(
                on_start=started,
                on_step=stepped,
                on_preview=previewed,
                on_health=checked,
                should_stop=lambda: bool(asked),
            )
        finally:
            signal.signal(signal.SIGINT, before)
