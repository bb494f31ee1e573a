"""Whether the identity judge, which has seen only drawn heads, recognises what a generator makes of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from distill3d.cameras import orbit
from distill3d.renderer import Renderer
from distill3d.tiny.judges.retrieval import retrieval_top1
from distill3d.tiny.train.judges.faces import Faces
from distill3d.tiny.train.judges.measure import GALLERY, SEED, shown
from distill3d.tiny.world import CODE_SIZE

YAW, PITCH = 0.6, 0.2  # radians: where the generator is looked at


def codes_of(identity: Tensor) -> Tensor:
    """(N, 32) codes of heads with that identity (N, K); the entries that the world does not read are drawn."""
    rest = torch.randn(len(identity), CODE_SIZE - identity.shape[1], generator=torch.Generator().manual_seed(SEED))
    return torch.cat([torch.special.ndtri(identity.double().clamp(1e-6, 1 - 1e-6)).float(), rest], 1)


@torch.no_grad()
def generated_top1(embed: Callable[[Tensor], Tensor], renderer: Renderer, faces: Faces) -> float:
    """Top-1 of the generator's pictures of held-out heads among 64 drawn photos of them, by another camera."""
    generator = torch.Generator().manual_seed(SEED)
    where = faces.frontal[:, 0].nonzero()[:, 0]
    group, hits = min(GALLERY, len(where)), []
    for start in range(0, len(where) - group + 1, group):
        heads = where[start : start + group]
        yaw, pitch = (most * (2 * torch.rand(group, 1, generator=generator) - 1) for most in (YAW, PITCH))
        scene = renderer.scene(codes_of(faces.identity[heads]))
        pictures = renderer.render(scene, orbit(yaw, pitch), upto="raw").raw[:, 0]
        hits.append(retrieval_top1(embed(pictures), embed(shown(faces, heads, 0, generator))))
    return round(torch.cat(hits).mean().item(), 4)
