"""One style's exam: what it is measured against is prepared once, then any generator can take it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from distill3d.evaluation import (
    clip_direction,
    clip_score,
    diversity_ratio,
    pairwise_distances,
    perceptual_distance,
    psnr,
    retrieve,
    rsa,
    style_accuracy,
)
from distill3d.renderer import Renderer
from distill3d.styles import Style
from distill3d.tiny.evaluation.figures import Figures
from distill3d.tiny.evaluation.judging import SOURCE_PROMPT, Clip, Panel, in_chunks
from distill3d.tiny.evaluation.setting import Setting, at_size, gallery_pictures, query_pictures
from distill3d.tiny.evaluation.truth import Truth
from distill3d.tiny.generator import BACKGROUND
from distill3d.tiny.subjects import WorldSubjects
from distill3d.tiny.world import STYLE_NAMES

CLASSES = len(STYLE_NAMES) + 1  # with "off-distribution"
CEILING, UNTOUCHED, MEAN, CHANCE = "ceiling", "untouched", "mean head", "chance"


def has_truth(renderer: Renderer, style: str) -> bool:
    """Whether the true stylised picture of every subject of this backbone is known."""
    return isinstance(renderer, WorldSubjects) and style in STYLE_NAMES


@dataclass(frozen=True)
class Exam:
    """Measures generators of the embedded world in one style.

    Args:
        original: the untouched generator.
        style: one of the world's, with its prompt.
        truth: as `true_pictures` renders it for this setting and style.
        clip: the diffusion model's own; without one its columns stay empty.
    """

    original: Renderer
    style: Style
    panel: Panel
    truth: Truth
    setting: Setting
    clip: Clip | None = None

    def measure(self, renderer: Renderer) -> Figures:
        """The figures of a stylised generator."""
        return self.of_pictures(query_pictures(renderer, self.setting), self.gallery)

    def references(self) -> dict[str, Figures]:
        """The rows beside it: ceiling, two floors and chance."""
        subjects = len(self.setting.seeds)
        return {
            CEILING: self.of_pictures(self.truth.queries, self.true_gallery),
            UNTOUCHED: self.of_pictures(self.base, self.gallery),
            MEAN: self.of_pictures(self.truth.mean, self.gallery),
            CHANCE: Figures(style_accuracy=1 / CLASSES, retrieval_top1=1 / subjects, mean_rank=(subjects + 1) / 2),
        }

    @torch.no_grad()
    def of_pictures(self, pictures: Tensor, gallery: Tensor) -> Figures:
        """The figures of queries (S, 3, H, W), each to be found in `gallery` (S, E)."""
        pictures = at_size(pictures)
        found = retrieve(self._faces(pictures), gallery)
        quality = float(psnr(pictures, self.truth.queries).mean())
        figures = Figures(
            style_accuracy=style_accuracy(in_chunks(self.panel.style, pictures), STYLE_NAMES.index(self.style.name)),
            retrieval_top1=found.top1,
            mean_rank=found.mean_rank,
            psnr=quality,
            psnr_gain=quality - self._base_psnr,
            perceptual=self._perceptual(pictures),
            rsa_base=self._over_cameras(rsa, pictures, self.base),
            rsa_truth=self._over_cameras(rsa, pictures, self.truth.queries),
            diversity=self._over_cameras(diversity_ratio, pictures, self.base),
        )
        score, direction = self._clip(self.panel.clip, pictures)
        figures = replace(figures, clip=score, clip_direction=direction)
        if self.clip is None:
            return figures
        score, direction = self._clip(self.clip, pictures)
        return replace(figures, own_clip=score, own_clip_direction=direction)

    @cached_property
    def base(self) -> Tensor:
        """The queries of the untouched generator."""
        return at_size(query_pictures(self.original, self.setting))

    @cached_property
    def gallery(self) -> Tensor:
        """Embeddings of the untouched subjects, from other cameras on other backgrounds."""
        return self._faces(gallery_pictures(self.original, self.setting, BACKGROUND))

    @cached_property
    def true_gallery(self) -> Tensor:
        """The same of the procedural photos."""
        return self._faces(self.truth.gallery)

    @cached_property
    def _base_psnr(self) -> float:
        return float(psnr(self.base, self.truth.queries).mean())

    def _faces(self, pictures: Tensor) -> Tensor:
        return in_chunks(self.panel.face, pictures)

    def _perceptual(self, pictures: Tensor) -> float:
        both = zip(pictures.split(16), self.truth.queries.split(16))
        distances = [perceptual_distance(self.panel.features(a), self.panel.features(b)) for a, b in both]
        return float(torch.cat(distances).mean())

    def _over_cameras(self, metric, pictures: Tensor, others: Tensor) -> float:
        """The mean of a metric of pairwise distances over the cameras: only pictures from one camera are compared."""
        values = []
        for camera in self.setting.camera.unique():
            here = self.setting.camera == camera
            values.append(metric(pairwise_distances(pictures[here]), pairwise_distances(others[here])))
        return sum(values) / len(values)

    def _clip(self, clip: Clip, pictures: Tensor) -> tuple[float, float]:
        text, source_text = clip.texts([self.style.prompt, SOURCE_PROMPT])
        after, before = in_chunks(clip.images, pictures), in_chunks(clip.images, self.base)
        return clip_score(after, text), clip_direction(after, before, text, source_text)
