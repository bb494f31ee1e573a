"""A finished run measured: with paired truth where the backbone has it, else by what needs none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill3d.errors import ConfigError
from distill3d.files import as_file_name, check_replaceable, folder_written_aside, sha256
from distill3d.licences import JUDGES, UNKNOWN, Part, parts_of_metric, with_parts
from distill3d.models import Stylised, Told, find_model, load_stylised, tell_log
from distill3d.packs.config import ADAPTER
from distill3d.plugins import registry
from distill3d.recipe import find_style
from distill3d.renderer import Renderer
from distill3d.report.page import write_report
from distill3d.report.pictures import save_picture
from distill3d.run_files import EVALUATION, FIGURES
from distill3d.runs import RunFolder, trained_weights, versions
from distill3d.showcase import look
from distill3d.styles import Style
from distill3d.stylisation import Stylisation
from distill3d.tiny.evaluation import (
    CEILING,
    SUBJECTS,
    Clip,
    Evaluation,
    Exam,
    Panel,
    Progress,
    Setting,
    has_truth,
    markdown,
    query_pictures,
    silent,
    style_sheet,
    text_table,
    true_pictures,
)

TABLE, SHEET = "table.md", "sheet.png"
GENERAL_SEEDS, GENERAL_YAWS = tuple(range(1000, 1016)), (-30.0, 0.0, 30.0)  # of metrics that need no truth; degrees


@dataclass(frozen=True)
class Report:
    """What `evaluate_run` found, and where it wrote it."""

    folder: Path
    table: str  # plain text
    remarks: list[str] = field(default_factory=list)
    paired: Evaluation | None = None  # None: the backbone knows no truth
    others: dict[str, float] = field(default_factory=dict)  # of metrics that need no truth


def evaluate_run(
    run: str | Path,
    *,
    against: Sequence[str | Path] = (),
    out: Path | None = None,
    panel: Panel | None = None,
    clip: Clip | None = None,
    cache: Path | None = None,
    seeds: Sequence[int] = SUBJECTS,
    device: str | None = None,
    base: str | None = None,
    told: Told = tell_log,
    progress: Progress = silent,
) -> Report:
    """Measure a run or a style pack; see `docs/evaluate.md`.

    Args:
        run: see `distill3d.models.find_model`.
        out: the folder that is written; None for RUN/evaluation, of a style pack evaluation/NAME.
        device, base, told: see `distill3d.models.load`.
        against: other runs of the same style and backbone, as more rows.
        panel: the judges; None for those that come with the package.
        clip: the diffusion model's own CLIP, if it is at hand.
        cache: a folder that keeps true pictures for the next run of that style.
        seeds: the subjects.
    Raises:
        RunError, WeightsError: if a run cannot be read.
        ConfigError: if two runs cannot be compared.
    """
    progress("loading", 0, 1)
    found = find_model(run, told=told)
    style = find_style(found.style, registry().styles)
    stylised = load_stylised(found, device=device, base=base)
    original = stylised.original
    folder = out or _folder_of(found)
    check_replaceable(folder, (FIGURES, TABLE, SHEET))
    if not has_truth(original, style.name):
        return _without_truth(found, folder, style, stylised, against, progress)
    generators: dict[str, Renderer] = {found.name: stylised}
    for other in against:
        name, generator = _comparable(find_model(other, told=told), style, stylised.palette.sha256, device, base)
        generators[name if name not in generators else str(other)] = generator
    setting = Setting.of(seeds)
    truth = true_pictures(setting, setting.identity(original), style.name, cache=cache, progress=progress)
    exam = Exam(original, style, panel or _shipped_judges(), truth, setting, clip)
    rows = {}
    for done, (name, generator) in enumerate(generators.items()):
        progress("measuring", done, len(generators) + 1)
        rows[name] = exam.measure(generator)
    progress("measuring", len(generators), len(generators) + 1)
    evaluation = Evaluation(style.name, len(seeds), {**rows, **exam.references()}, _made_with(found, stylised))
    others, parts = _general(style, stylised, core=False)
    sheet = style_sheet(query_pictures(original, setting), query_pictures(stylised, setting), truth.sheet)
    with folder_written_aside(folder) as aside:
        noted = _noted(evaluation.plain(), [*_judges(panel, clip), *parts])
        (aside / FIGURES).write_text(noted, encoding="utf-8")
        (aside / TABLE).write_text(markdown(evaluation.rows), encoding="utf-8")
        save_picture(sheet, aside / SHEET)
    if folder.parent == found.folder:
        write_report(found.folder)
    progress("measuring", 1, 1)
    return Report(folder, text_table(evaluation.rows), _remarks(evaluation, found.name), evaluation, others)


def _folder_of(found: Stylisation) -> Path:
    """A pack's own folder may be the Hub's cache, which is nobody's to write into."""
    if isinstance(found, RunFolder):
        return found.folder / EVALUATION
    return Path(EVALUATION) / (as_file_name(found.name) or "pack")


def _remarks(evaluation: Evaluation, name: str) -> list[str]:
    """The figures that a reader looks for first."""
    parts, row = evaluation.of_ceiling(name), evaluation.rows[name]
    return [
        f"style accuracy is {parts['style_accuracy']:.2f} of the ceiling's, "
        f"identity top-1 {parts['retrieval_top1']:.2f} of it ({evaluation.rows[CEILING].retrieval_top1:.2f} by the "
        f"judge on true pictures); PSNR to the truth {row.psnr_gain:+.1f} dB against the untouched generator"
    ]


def _without_truth(
    found: Stylisation,
    folder: Path,
    style: Style,
    stylised: Stylised,
    against: Sequence[str | Path],
    progress: Progress,
) -> Report:
    if against:
        raise ConfigError("--against compares runs by their paired truth, and this backbone has none; leave it out.")
    progress("measuring", 0, 1)
    others, parts = _general(style, stylised, core=True)
    plain = {name: value if math.isfinite(value) else None for name, value in others.items()}
    with folder_written_aside(folder) as aside:
        values = {"schema": 1, "style": style.name, "metrics": plain, "made_with": _made_with(found, stylised)}
        (aside / FIGURES).write_text(_noted(values, parts), encoding="utf-8")
    progress("measuring", 1, 1)
    remark = (
        f"There is no paired truth for {style.name!r} on backbone {found.backbone.name!r}: only the embedded "
        "world's own styles have true pictures. These are the metrics that need none."
    )
    lines = [f"{name:16} {value:.3f}" for name, value in others.items()]
    return Report(folder, "\n".join(lines), [remark], None, others)


def _general(style: Style, stylised: Stylised, *, core: bool) -> tuple[dict[str, float], list[Part]]:
    """What the registered metrics say of pictures before and after, and whose weights they used.

    Args:
        core: False leaves out the core's own, which need none.
    """
    offers = [o for o in registry().offers["metric"].values() if core or o.plugin != "builtin"]
    if not offers:
        return {}, []
    before, after = (look(renderer, GENERAL_SEEDS, GENERAL_YAWS) for renderer in (stylised.original, stylised))
    figures: dict[str, float] = {}
    parts: list[Part] = []
    for offer in offers:
        measure = offer.load()
        parts += () if offer.plugin == "builtin" else parts_of_metric(offer.name, measure)
        figures.update({name: float(value) for name, value in measure(before, after, style).items()})
    return figures, parts


def _judges(panel: Panel | None, clip: Clip | None) -> list[Part]:
    """Whose weights the protocol of the embedded world uses; of what is not the package's own nobody knows."""
    brought = {"judges": panel, "own CLIP": clip}
    others = [Part(f"metric {name}", "", UNKNOWN.name) for name, used in brought.items() if used is not None]
    return others if panel is not None else [JUDGES, *others]


def _noted(values: Mapping[str, Any], parts: Sequence[Part]) -> str:
    """evaluation.json."""
    return json.dumps(with_parts(values, parts), indent=2) + "\n"


def _comparable(
    found: Stylisation, style: Style, base_sha256: str, device: str | None, base: str | None
) -> tuple[str, Renderer]:
    """The stylised generator of another run and its name, if it can stand in the same table."""
    theirs = find_style(found.style, registry().styles)
    if theirs != style:
        raise ConfigError(f"{found.name} is a run of style {theirs.name!r}, and this one of {style.name!r}.")
    stylised = load_stylised(found, device=device, base=base)
    if stylised.palette.sha256 != base_sha256:
        raise ConfigError(f"{found.name} started from other backbone weights, so its pictures are of other subjects.")
    return found.name, stylised


def _made_with(found: Stylisation, stylised: Stylised) -> dict[str, str]:
    """What a repetition needs; the figures are those of these weights."""
    weights = trained_weights(found.folder) if isinstance(found, RunFolder) else found.folder / ADAPTER
    return {**versions(), "backbone_sha256": stylised.palette.sha256, "weights_sha256": sha256(weights)}


def _shipped_judges() -> Panel:
    from distill3d.tiny.judges import load_judges

    return load_judges()
