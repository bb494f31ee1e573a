"""From style to style, or one style from none to too much: a sheet to look at, and a video that loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from distill3d.errors import ConfigError
from distill3d.files import check_replaceable, folder_written_aside
from distill3d.models import Palette, Stylised, Told, load_palette, tell_log
from distill3d.renderer import Renderer
from distill3d.report.pictures import contact_sheet, save_picture
from distill3d.report.video import VideoFormat, check_format, save_video
from distill3d.showcase import look_round, turntable_yaws
from distill3d.styles import STRONGEST

SHEET, VIDEO = "sheet.png", "morph"  # the video's ending is its format
ALL = (0.0, STRONGEST)  # the strengths of a sweep, unless told otherwise
Progress = Callable[[str, int, int], None]  # what is being done, how much of how much is
Amounts = tuple[float, ...]  # one for each style


@dataclass(frozen=True, kw_only=True)
class MorphOptions:
    """What is shown of a sweep or of a way from style to style.

    Args:
        strengths: of the one style, from and to; None for 0 to 1.5. Several styles have none.
        columns: of the sheet, at least 2; a way along several styles may get a few more, so that each has its own.
        seeds: the subjects.
        frames: of the video, at least 2, from style to style, or from one end of the strengths to the other.
        fps: frames in a second.
        turn: the subjects turn round once on each such way, as far as the backbone's cameras go.
        yaw: degrees; from where they are seen in the sheet, and in a video without `turn`.
        format: of the video; "mp4" needs the `video` extra.
    """

    strengths: tuple[float, float] | None = None
    columns: int = 7
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    frames: int = 24
    fps: float = 12
    turn: bool = False
    yaw: float = 0.0
    format: VideoFormat = "webp"

    def __post_init__(self) -> None:
        if self.columns < 2 or self.frames < 2 or not self.seeds:
            raise ConfigError(
                f"A morph has at least 2 columns, 2 frames and one of seeds, got {self.columns}, {self.frames} and "
                f"{self.seeds}."
            )
        if not (math.isfinite(self.fps) and self.fps > 0 and math.isfinite(self.yaw)):
            raise ConfigError(f"fps must be above 0 and yaw a number of degrees, got {self.fps} and {self.yaw}.")
        low, high = self.strengths or ALL
        if not -math.inf < low < high < math.inf:
            raise ConfigError(f"strengths go from one number up to another, as (0, 1.5), got {self.strengths}.")


@dataclass(frozen=True)
class MorphFiles:
    """What was written."""

    sheet: Path
    video: Path


@torch.no_grad()
def morph(
    models: Sequence[str],
    out: Path,
    *,
    options: MorphOptions | None = None,
    device: str | None = None,
    base: str | None = None,
    token: str | bool | None = None,
    told: Told = tell_log,
    progress: Progress = lambda what, done, total: None,
) -> MorphFiles:
    """Write a sheet and a video of subjects whose style changes; memory holds one mixture at a time.

    Of one model the strength goes up and down. Of several the style goes from the first along all of them and back to
    the first: between two, (1 - t) of one and t of the other.

    Args:
        models: see `distill3d.models.find_model`.
        out: the folder, new or empty. It is there whole or not at all.
        device, base, token, told: see `distill3d.models.load`.
    Raises:
        ConfigError: for no model, one that is named twice, styles that cannot be mixed, or strengths of several.
        MissingExtraError: for an .mp4 without the `video` extra.
        RunError, PackError, HubError, WeightsError: for a model that cannot be loaded, or a place that cannot be
            written.
    """
    options = options or MorphOptions()
    _check(models, options)
    check_replaceable(out, ())
    progress("loading", 0, 1)
    palette = load_palette(models, device=device, base=base, token=token, told=told)
    names = list(palette.styles)
    course = Course.of_strengths(options.strengths) if len(names) == 1 else Course.along(names)
    places = course.columns(options.columns)
    columns = [Shot(course.at(place), options.yaw) for place in places]
    frames = [
        Shot(course.at(p), yaw) for p, yaw in zip(course.frames(options.frames), _yaws(palette.original, options))
    ]
    with folder_written_aside(out) as aside:
        seen = _look(palette, options.seeds, [*columns, *frames], progress)
        sheet = contact_sheet(
            torch.stack([seen[shot] for shot in columns], 1),
            [f"seed {seed}" for seed in options.seeds],
            [course.label(place) for place in places],
        )
        save_picture(sheet, aside / SHEET)
        progress("writing the video", 0, 1)
        video = f"{VIDEO}.{options.format}"
        save_video(torch.stack([seen[shot] for shot in frames]), aside / video, fps=options.fps)
        progress("writing the video", 1, 1)
    return MorphFiles(out / SHEET, out / video)


def _check(models: Sequence[str], options: MorphOptions) -> None:
    if not models:
        raise ConfigError("Say which style: one model for its strengths, several for the way between them.")
    if len(models) > 1 and options.strengths is not None:
        raise ConfigError(f"Strengths are of one model, got {len(models)}: {' '.join(models)}.")
    check_format(options.format)


@dataclass(frozen=True)
class Course:
    """A closed way through mixtures: straight from stop to stop, and back to the first.

    A place p in [0, number of stops] is between the stops floor(p) and floor(p) + 1.
    """

    stops: tuple[Amounts, ...]
    names: tuple[str, ...] = ()  # of the stops; none for strengths of one style

    @classmethod
    def of_strengths(cls, strengths: tuple[float, float] | None) -> Course:
        """One style's strength, up and down."""
        low, high = strengths or ALL
        return cls(((low,), (high,)))

    @classmethod
    def along(cls, names: Sequence[str]) -> Course:
        """From each style to the next, all of it and nothing of the others."""
        stops = (tuple(float(i == k) for i in range(len(names))) for k in range(len(names)))
        return cls(tuple(stops), tuple(names))

    def at(self, place: float) -> Amounts:
        """The mixture there; stops are exact."""
        leg, part = divmod(place, 1)
        one, other = (self.stops[(int(leg) + i) % len(self.stops)] for i in (0, 1))
        # Rounded, so that the way back has the very mixtures of the way there: they are rendered once.
        return tuple(round((1 - part) * a + part * b, 6) for a, b in zip(one, other))

    def columns(self, count: int) -> list[float]:
        """Places at equal distances, every stop among them: once there, and of more than two stops once round."""
        legs = 1 if len(self.stops) == 2 else len(self.stops)
        each = math.ceil((count - 1) / legs)
        return [i / each for i in range(legs * each + 1)]

    def frames(self, count: int) -> list[float]:
        """Places once round, so many from stop to stop, closer near them."""
        return [leg + _eased(i / count) for leg in range(len(self.stops)) for i in range(count)]

    def label(self, place: float) -> str:
        """In words: a strength, the name of a stop, or how much of the stops before and behind."""
        if not self.names:
            return f"{self.at(place)[0]:.3g}"
        leg, part = divmod(place, 1)
        return f"{1 - part:.2f} + {part:.2f}" if part else self.names[int(leg) % len(self.names)]


def _eased(part: float) -> float:
    """[0, 1] to itself, with no speed at its ends."""
    return part * part * (3 - 2 * part)


@dataclass(frozen=True)
class Shot:
    """A mixture from a camera."""

    amounts: Amounts
    yaw: float  # degrees


def _yaws(renderer: Renderer, options: MorphOptions) -> Iterable[float]:
    """Without end; every stop is seen from the same side."""
    if options.turn:
        return itertools.cycle(turntable_yaws(renderer.defaults.around, options.frames))
    return itertools.repeat(options.yaw)


def _look(palette: Palette, seeds: Sequence[int], shots: Sequence[Shot], progress: Progress) -> dict[Shot, Tensor]:
    """Every subject in each shot, (S, 3, H, W); equal shots once, mixture by mixture.

    Half precision: pictures become bytes, and there are many.
    """
    yaws: dict[Amounts, list[float]] = {}
    for shot in dict.fromkeys(shots):
        yaws.setdefault(shot.amounts, []).append(shot.yaw)
    done, total = 0, len(seeds) * sum(map(len, yaws.values()))

    def rendered() -> None:
        nonlocal done
        done += 1
        progress("rendering", done, total)

    seen = {}
    for amounts, angles in yaws.items():
        pictures = _pictures(palette.mixed(dict(zip(palette.styles, amounts))), seeds, angles, rendered)
        seen.update({Shot(amounts, yaw): each for yaw, each in zip(angles, pictures)})
    return seen


def _pictures(mixture: Stylised, seeds: Sequence[int], yaws: Sequence[float], seen: Callable[[], None]) -> Tensor:
    """(V, S, 3, H, W); in a function of its own, so that the mixture is gone before the next is made."""
    scenes = (mixture.scene(mixture.codes_of_seeds([seed])) for seed in seeds)
    return torch.stack([look_round(mixture, scene, yaws, seen=seen).half() for scene in scenes], 1)
