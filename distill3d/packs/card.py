"""README.md of a style pack: what it is, how to use it, how it was made, what it may be used for."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from distill3d.config import SCHEMA, DistillConfig
from distill3d.errors import ConfigError
from distill3d.files import as_file_name
from distill3d.licences import (
    EMBEDDED,
    MODELS,
    Licence,
    Part,
    licence_in_words,
    licence_of,
    pack_licence,
    source_of,
    verdict,
)
from distill3d.packs.config import SHEET, TURNTABLE, AdapterInfo, Base, PackConfig
from distill3d.packs.markdown import block, code, code_cell, one_line, plain
from distill3d.packs.sizes import size_in_words
from distill3d.report.page import command_again

TEMPLATE = Path(__file__).with_name("card.md.jinja")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LONGEST_NAME = 300  # characters of what the Hub shows as one name


def card_of(config: PackConfig, repo_id: str, *, pictures: bool) -> ModelCard:
    """The card of a pack.

    Args:
        repo_id: where it is, or will be, on the Hub; the code of the card loads it from there.
        pictures: whether its sheet and its turntable lie beside it.
    """
    return ModelCard.from_template(
        _front_matter(config, repo_id),
        template_path=str(TEMPLATE),
        **_about(config),
        **_use(config, repo_id),
        **_making(config),
        **_rights(config),
        pictures=(SHEET, TURNTABLE) if pictures else (),
    )


def _front_matter(config: PackConfig, repo_id: str) -> ModelCardData:
    """What the Hub reads."""
    licence, on_hub = pack_licence(config.parts), bool(HUB_ID.fullmatch(config.base.weights))
    style, backbone = (as_file_name(text) or "other" for text in (config.style, config.backbone))
    return ModelCardData(
        library_name="distill3d",
        license=licence.license,
        license_name=licence.license_name,
        license_link=licence.license_link,
        pipeline_tag=_task(config),
        tags=["distill3d", "style-pack", "3d", f"style:{style}", f"backbone:{backbone}", "score-distillation"],
        base_model=config.base.weights if on_hub else None,
        base_model_relation="adapter" if on_hub else None,
        model_name=repo_id.partition("@")[0].rpartition("/")[2],
        eval_results=_eval_results(config, backbone) or None,
    )


def _task(config: PackConfig) -> str:
    return "image-to-3d" if config.photos else "unconditional-image-generation"


def _eval_results(config: PackConfig, backbone: str) -> list[EvalResult]:
    if config.metrics is None:
        return []
    return [
        EvalResult(
            task_type=_task(config),
            dataset_type=f"distill3d-{backbone}",
            dataset_name=one_line(config.metrics.protocol)[:LONGEST_NAME] or "distill3d evaluate",
            metric_type=one_line(name) or "unnamed",  # the Hub refuses a card with none
            metric_name=one_line(name.replace("_", " ")) or "unnamed",
            metric_value=value,
        )
        for name, value in sorted(config.metrics.values.items())
    ]


def _about(config: PackConfig) -> dict[str, Any]:
    """What it is."""
    by_name = config.style != config.prompt
    return {
        "title": plain(config.style),
        "prompt": plain(config.prompt) if by_name else "",
        "negative_prompt": plain(config.negative_prompt),
        "backbone": code(config.backbone),
        "photos": config.photos,
        "toy": config.base.weights == EMBEDDED,
        "drawn": _learnt_from_drawings(config),
        "size": size_in_words(config.adapter.size),
        "exactness": _exactness(config.adapter),
        "figures": _figures(config),
        "protocol": plain(config.metrics.protocol).rstrip(".") if config.metrics else "",
    }


def _learnt_from_drawings(config: PackConfig) -> bool:
    """Whether the diffusion model is the one that comes with distill3d."""
    scorers = [part for part in config.parts if part.role == "scorer"]
    return config.settings.get("scorer") == "tiny" and all(part.name in (EMBEDDED, "") for part in scorers)


def _exactness(adapter: AdapterInfo) -> str:
    if adapter.format == "full" or not (adapter.weights_error or adapter.pictures_error):
        return "They are exactly those of the run."
    kind = {"half": "differences to the base in half precision", "low-rank": "low-rank differences to the base"}
    return (
        f"They are stored as {kind[adapter.format]}, and not exact: the change of the weights is off by "
        f"{adapter.weights_error:.2g} of its length (relative L2), and the pictures that were compared by at most "
        f"{adapter.pictures_error:.2g} (RMS, of values from -1 to 1)."
    )


def _figures(config: PackConfig) -> list[tuple[str, str]]:
    values = config.metrics.values if config.metrics else {}
    return [(plain(name.replace("_", " ")), f"{value:.3g}") for name, value in sorted(values.items())]


def _use(config: PackConfig, repo_id: str) -> dict[str, Any]:
    """How it is used, as code that can be run."""
    name, shown, other = json.dumps(repo_id), shlex.quote(repo_id), "user/another-style"
    lines = (
        f"distill3d render {shown} --seeds 0-3 --out pictures",
        f"distill3d render {shown} --seeds 0-3 --strength 0.5 --out weaker",
    )
    photo_lines = (f"distill3d stylize photo.jpg --model {shown} --out stylised",)
    mixed = f"distill3d render --pack {shown}:0.6 --pack {other}:0.4 --seeds 0-3 --out mixture"
    return {
        "command": block("\n".join(photo_lines if config.photos else lines), "bash"),
        "snippet": block(_photo_snippet(name) if config.photos else _seed_snippet(name), "python"),
        "mixed_command": "" if config.photos else block(mixed, "shell"),
        "mixed_snippet": block(f'mixture = model.blend({{{name}: 0.6, "{other}": 0.4}})', "py"),
        "base": _base(config.base),
        "sha256": code(config.base.sha256),
    }


def _seed_snippet(name: str) -> str:
    return "\n".join(
        (
            "import distill3d",
            "from distill3d.showcase import look",
            "",
            f"model = distill3d.load({name})",
            "pictures = look(model, seeds=[0, 1], yaws=[-30, 0, 30])  # (2, 3, 3, H, W) in [-1, 1]",
            f"weaker = model.blend({{{name}: 0.5}})  # 0 is the backbone as it was, 1 all of the style",
        )
    )


def _photo_snippet(name: str) -> str:
    return "\n".join(
        (
            "from pathlib import Path",
            "",
            "import distill3d",
            "from distill3d.showcase import look_round",
            "",
            f"model = distill3d.load({name}, subjects=False)",
            'scene = model.scene(model.codes_of_photos([Path("photo.jpg")]))',
            "pictures = look_round(model, scene, yaws=[-30, 0, 30])  # (3, 3, H, W) in [-1, 1]",
            f"weaker = model.blend({{{name}: 0.5}})  # 0 is the backbone as it was, 1 all of the style",
        )
    )


def _base(base: Base) -> str:
    """Which weights it belongs to, and how they are got."""
    if base.weights == EMBEDDED:
        return "the weights that come with distill3d: there is nothing to fetch"
    if not base.weights:
        return "weights that were not published; ask whoever made this pack"
    if HUB_ID.fullmatch(base.weights):
        return f"[{plain(base.weights)}](https://huggingface.co/{base.weights})"
    model = MODELS.get(base.weights)
    return f"the weights {code(base.weights)}" + (f" ([where they are published]({model.source}))" if model else "")


def _making(config: PackConfig) -> dict[str, Any]:
    """How it was made."""
    settings = {name: _public(value) for name, value in config.settings.items() if name != "schema"}
    return {
        "method": code(config.method),
        "steps": config.step,
        "seed": code(str(settings.get("seed", "not noted"))),
        "train": code(config.train),
        "settings": [(code_cell(name), code_cell(_written(value))) for name, value in sorted(settings.items())],
        "versions": [(plain(name), code_cell(version)) for name, version in sorted(config.versions.items())],
        "again": _again(settings),
    }


def _again(settings: Mapping[str, Any]) -> str:
    """The command that makes such a run, if these are the settings of one."""
    try:
        DistillConfig.from_json(json.dumps({**settings, "schema": SCHEMA}))
    except ConfigError:
        return ""
    command = command_again(settings)
    return block(command, "sh") if command else ""


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _public(value: Any) -> Any:
    """A setting without places on anybody's disk."""
    if isinstance(value, str):
        place = value.startswith(("/", "~", "\\")) or PureWindowsPath(value).drive
        return "LOCAL" if place else value
    if isinstance(value, Mapping):
        return {name: _public(part) for name, part in value.items()}
    return [_public(part) for part in value] if isinstance(value, list | tuple) else value


def _rights(config: PackConfig) -> dict[str, Any]:
    """What it may be used for."""
    licence = pack_licence(config.parts)
    return {
        "parts": [_row(part) for part in config.parts],
        "bound_by": [_bond(known) for known in licence.binding],
        "verdict": plain(verdict(config.parts)),
        "research_only": any(known.commercial == "no" for known in licence.binding),
    }


def _row(part: Part) -> tuple[str, str, str, str]:
    licence, source = plain(licence_in_words(part)), source_of(part)
    linked = f"[{licence}]({source})" if source else licence
    return plain(part.role), code_cell(part.name), linked, licence_of(part).commercial


def _bond(known: Licence) -> str:
    named = f"[{known.name}]({known.source})" if known.source else "an unknown licence"
    return f"{named}: {known.says}"
