"""Published checkpoints by name: where they are, what they may be used for, where this package looks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distill3d.errors import UnknownNameError
from distill3d.files import user_cache
from distill3d_eg3d.architecture import Family

EG3D_LICENCE = "NVIDIA Source Code License for EG3D: research and evaluation only"
EG3D_PAGE = "https://catalog.ngc.nvidia.com/orgs/nvidia/teams/research/models/eg3d"
EG3D_FILE = "https://api.ngc.nvidia.com/v2/models/org/nvidia/team/research/eg3d/1/files?redirect=true&path={}"


@dataclass(frozen=True)
class Known:
    """A published checkpoint."""

    name: str
    family: Family
    file: str  # as it is called where it is published
    page: str  # for people
    licence: str
    url: str | None  # None: the page has no address that a program can read
    size: str  # as far as it is published
    sha256: str | None = None  # None: not published; what is downloaded is noted when it is converted


def _eg3d(name: str) -> Known:
    file = f"{name}.pkl"
    return Known(name, "eg3d", file, EG3D_PAGE, EG3D_LICENCE, EG3D_FILE.format(file), "1.75 GB are all six of them")


CHECKPOINTS = {
    known.name: known
    for known in (
        _eg3d("ffhqrebalanced512-128"),
        _eg3d("ffhqrebalanced512-64"),
        _eg3d("ffhq512-128"),
        _eg3d("ffhq512-64"),
        _eg3d("afhqcats512-128"),
        _eg3d("shapenetcars128-64"),
        Known(
            "panohead-easy-khair-180",
            "panohead",
            "easy-khair-180-gpc0.8-trans10-025000.pkl",
            "https://github.com/SizheAn/PanoHead",
            "see the page; it builds on EG3D, whose licence allows research and evaluation only",
            None,
            "not published",
        ),
    )
}
DEFAULTS: dict[Family, str] = {"eg3d": "ffhqrebalanced512-128", "panohead": "panohead-easy-khair-180"}


def find(name: str) -> Known:
    """The checkpoint of that name.

    Raises:
        UnknownNameError: naming what there is, and the nearest.
    """
    if name not in CHECKPOINTS:
        raise UnknownNameError("published checkpoint", name, CHECKPOINTS)
    return CHECKPOINTS[name]


def published_as(file: str, checksum: str) -> str:
    """The name of the published checkpoint that a file is taken for, "" for none.

    By what it is called where it is published, and by its checksum where that is published, too. A file of that name
    may be another: who must know compares tensors, as style packs do.
    """
    known = (k.name for k in CHECKPOINTS.values() if k.file == file and k.sha256 in (None, checksum))
    return next(known, "")


def cache_folder() -> Path:
    """Where downloads and conversions are kept: $DISTILL3D_CACHE, else ~/.cache/distill3d."""
    return user_cache("eg3d")


def how_to_get(known: Known) -> str:
    """One sentence on getting it: the command, or the page and where to put the file."""
    place = cache_folder() / known.file
    by_hand = f"put {known.file} from {known.page} there: {place}"
    if known.url is None:
        return f"It has no direct download; {by_hand}. Licence: {known.licence}."
    return (
        f"Get it with: distill3d eg3d fetch {known.name} --accept-licence (size: {known.size}); or {by_hand}. "
        f"Licence: {known.licence}."
    )
