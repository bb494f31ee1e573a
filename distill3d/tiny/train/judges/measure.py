"""The ceilings: what each judge makes of the truth, on heads that no training saw."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill3d.tiny.judges.loading import TextImageJudge
from distill3d.tiny.judges.networks import PICTURE
from distill3d.tiny.judges.retrieval import retrieval_top1
from distill3d.tiny.train.diffusion.captions import PHRASINGS
from distill3d.tiny.train.judges.augment import backgrounds
from distill3d.tiny.train.judges.corruptions import CORRUPTIONS, OF_PHOTOS, strangers
from distill3d.tiny.train.judges.faces import Faces
from distill3d.tiny.world import STYLE_NAMES

GALLERY = 64  # subjects among which one is looked for
SEED = 7


def face_ceiling(embed: Callable[[Tensor], Tensor], faces: Faces) -> dict[str, float]:
    """Top-1 among 64 heads by the name of the queries' style; the gallery is a photo by another camera.

    Every picture has a background of its own; groups of 64 heads are taken one after the other.
    """
    generator = torch.Generator().manual_seed(SEED)
    faces = _part(faces, faces.frontal[:, 0].nonzero()[:, 0])
    group = min(GALLERY, len(faces))
    found: dict[str, list[Tensor]] = {name: [] for name in STYLE_NAMES}
    for start in range(0, len(faces) - group + 1, group):
        heads = torch.arange(start, start + group)
        views = [embed(shown(faces, heads, view, generator)) for view in range(faces.views)]
        for view in range(1, faces.views):
            name = STYLE_NAMES[int(faces.style[start, view])]
            found[name].append(retrieval_top1(views[view], views[0])[faces.frontal[heads, view]])
    return _means(found)


def style_ceiling(answers: Callable[[Tensor], Tensor], faces: Faces) -> dict[str, float]:
    """Share of right answers by style, of frontal views, and share of rejected pictures by kind of corruption.

    Args:
        answers: (B, 3, 64, 64) in [-1, 1] to log-probabilities (B, 8).
    """
    generator = torch.Generator().manual_seed(SEED)
    heads = torch.arange(len(faces))
    right: dict[str, list[Tensor]] = {name: [] for name in STYLE_NAMES}
    for view in range(faces.views):
        said = answers(shown(faces, heads, view, generator)).argmax(1)
        right[STYLE_NAMES[int(faces.style[0, view])]].append((said == faces.style[:, view])[faces.frontal[:, view]])
    rejected = {f"rejected {kind}": [_rejected(answers, faces, kind, generator)] for kind in CORRUPTIONS}
    return _means({**right, **rejected})


def _rejected(answers: Callable[[Tensor], Tensor], faces: Faces, kind: str, generator: torch.Generator) -> Tensor:
    heads = torch.arange(len(faces))
    of_photos = list(CORRUPTIONS).index(kind) < OF_PHOTOS
    views = torch.zeros_like(heads) if of_photos else torch.randint(faces.views, heads.shape, generator=generator)
    pictures, style = faces.pictures(heads, views), faces.style[heads, views]
    image = pictures.over(backgrounds(len(heads), PICTURE, generator))
    others = heads if of_photos else strangers(style, len(heads), generator)
    other = image[others]
    if of_photos:  # a zombie, a joker ... in turn lends its colours
        lenders = 2 + heads % (faces.views - 2)
        other = faces.pictures(heads, lenders).over(backgrounds(len(heads), PICTURE, generator))
    spoiled = CORRUPTIONS[kind](image, other, pictures.mask, generator).clamp(0, 1)
    return answers(2 * spoiled - 1).argmax(1) == len(STYLE_NAMES)


def green_photos(answers: Callable[[Tensor], Tensor], faces: Faces) -> float:
    """Share of photos with green skin that the style judge takes for zombies."""
    generator = torch.Generator().manual_seed(SEED)
    heads = torch.arange(len(faces))
    pictures = faces.pictures(heads, torch.zeros_like(heads))
    image = pictures.over(backgrounds(len(heads), PICTURE, generator))
    grey = image.mean(1, keepdim=True)
    green = image.lerp(grey * image.new_tensor([0.85, 1.15, 0.65]).view(1, 3, 1, 1), 0.8)
    said = answers(2 * (image + pictures.mask * (green - image)).clamp(0, 1) - 1).argmax(1)
    return round((said == STYLE_NAMES.index("zombie")).float().mean().item(), 4)


def clip_ceiling(clip: TextImageJudge, faces: Faces) -> dict[str, float]:
    """Share of frontal views whose style's first phrasing is the nearest of the seven, by the name of the style."""
    generator = torch.Generator().manual_seed(SEED)
    texts = clip.texts([PHRASINGS[name][0] for name in STYLE_NAMES])
    heads = torch.arange(len(faces))
    right: dict[str, list[Tensor]] = {name: [] for name in STYLE_NAMES}
    for view in range(faces.views):
        said = (clip.images(shown(faces, heads, view, generator)) @ texts.T).argmax(1)
        right[STYLE_NAMES[int(faces.style[0, view])]].append((said == faces.style[:, view])[faces.frontal[:, view]])
    return _means(right)


def depth_ceiling(depth: Callable[[Tensor], Tensor], faces: Faces) -> dict[str, float]:
    """Correlation with the true depth picture over the head, mean over views, by the name of the style."""
    generator = torch.Generator().manual_seed(SEED)
    heads = torch.arange(len(faces))
    found: dict[str, list[Tensor]] = {name: [] for name in STYLE_NAMES}
    for view in range(faces.views):
        guess = depth(shown(faces, heads, view, generator))
        pictures = faces.pictures(heads, torch.full_like(heads, view))
        found[STYLE_NAMES[int(faces.style[0, view])]].append(masked_correlation(guess, pictures.depth(), pictures.mask))
    return _means(found)


def masked_correlation(one: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """(B,): Pearson's correlation of (B, 1, H, W) pictures where `mask` is more than half."""
    weight = (mask > 0.5).float().flatten(1)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1)
    first, second = (x.flatten(1) - (x.flatten(1) * weight).sum(1, keepdim=True) for x in (one, other))
    products = [(weight * a * b).sum(1) for a, b in ((first, second), (first, first), (second, second))]
    return products[0] / (products[1] * products[2]).clamp(min=1e-12).sqrt()


def _means(found: dict[str, list[Tensor]]) -> dict[str, float]:
    return {name: round(torch.cat(values).float().mean().item(), 4) for name, values in found.items()}


def shown(faces: Faces, heads: Tensor, view: int, generator: torch.Generator) -> Tensor:
    """(B, 3, 64, 64) in [-1, 1]: one view of each head, before a background of its own."""
    pictures = faces.pictures(heads, torch.full_like(heads, view))
    return 2 * pictures.over(backgrounds(len(heads), PICTURE, generator)) - 1


def _part(faces: Faces, where: Tensor) -> Faces:
    return Faces(**{name: value[where] for name, value in vars(faces).items()})
