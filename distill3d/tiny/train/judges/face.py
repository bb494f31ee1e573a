"""The identity judge: views of one head in different styles lie close together, other heads lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.tiny.judges.networks import FACE_INPUT, PICTURE, FaceNet, Layout
from distill3d.tiny.train.diffusion.loop import Recipe
from distill3d.tiny.train.judges.augment import backgrounds, blurred, coarse, moved, noisy, tinted
from distill3d.tiny.train.judges.faces import Faces, draw_views
from distill3d.tiny.world import IDENTITY_NAMES

LAYOUT = Layout(widths=(32, 80, 112), depths=(1, 2, 2), outputs=128)
RECIPE = Recipe(steps=3_000, lr=0.02, batch=24, ema=0.995, warmup=50, decay_share=0.6)
WARMTH = 0.1  # temperature of the contrast


class FaceTrainee(nn.Module):
    """The judge, and what only its training needs: a guess of the identity's numbers from the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.judge = FaceNet(LAYOUT)
        self.guess = nn.Linear(LAYOUT.outputs, 2 * len(IDENTITY_NAMES))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embedding (B, E) of unit length, and mean and log-variance of each number, both (B, K)."""
        embedding = self.judge(image)
        mean, spread = self.guess(embedding).chunk(2, 1)
        return F.normalize(embedding, dim=-1), mean, spread


def face_loss(trainee: FaceTrainee, faces: Faces, heads: int) -> Callable[[int, torch.Generator], Tensor]:
    """Contrast between heads plus the likelihood of the identity's numbers."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        chosen, views = (drawn.flatten() for drawn in draw_views(faces, heads, generator))
        image, asked = seen(faces, chosen, views, generator), faces.frontal[chosen, views]
        with torch.autocast("cpu", torch.bfloat16):
            embedding, mean, spread = trainee(image)
        truth = math.sqrt(12) * (faces.identity[chosen] - 0.5)  # of variance 1
        guessed = likelihood(mean.float(), spread.float(), truth)
        return contrast(embedding.float()[asked], chosen[asked]) + guessed  # from behind, a guess is all one can ask

    return loss


def seen(faces: Faces, heads: Tensor, views: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, 112, 112) in [-1, 1]: the given views as the judge may meet them."""
    image = faces.pictures(heads, views).over(backgrounds(len(heads), PICTURE, generator))
    image = coarse(blurred(image, generator), generator)
    image = noisy(tinted(image, generator), generator).clamp(0, 1)
    return 2 * moved(image, FACE_INPUT, generator) - 1


def contrast(embedding: Tensor, who: Tensor) -> Tensor:
    """Supervised contrast (Khosla et al., 2020, arXiv:2004.11362): each view should find the others of its head."""
    logits = embedding @ embedding.T / WARMTH
    oneself = torch.eye(len(who), dtype=torch.bool)
    right = (who[:, None] == who[None]) & ~oneself
    log_share = F.log_softmax(logits.masked_fill(oneself, -1e4), 1)
    return -((log_share * right).sum(1) / right.sum(1).clamp(min=1)).sum() / right.any(1).sum().clamp(min=1)


def likelihood(mean: Tensor, spread: Tensor, truth: Tensor) -> Tensor:
    """Gaussian, each number with a variance of its own: what a style hides is said to be unknown, and costs little."""
    spread = spread.clamp(-6, 2)
    return 0.5 * (spread + (mean - truth).square() * (-spread).exp()).mean()
