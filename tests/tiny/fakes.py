"""Stand-ins for what is slow: judges of a few operations, and heads that are painted instead of traced."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from distill3d.tiny.world import STYLE_NAMES


class FakeClip:
    """Pictures by their mean colour, texts by their first letters."""

    def images(self, images):
        return F.normalize(images.mean((-1, -2)) + torch.tensor([0.1, 0.2, 0.3]), dim=-1)

    def texts(self, texts):
        return F.normalize(torch.tensor([[float(ord(letter)) for letter in text[:3]] for text in texts]), dim=-1)


@dataclass
class FakePanel:
    """A face is a small picture of it; the style is always `says`."""

    says: int = 1

    def __post_init__(self):
        self.clip = FakeClip()

    def face(self, images):
        return F.normalize(F.adaptive_avg_pool2d(images, 8).flatten(1), dim=-1)

    def style(self, images):
        return F.log_softmax(5 * torch.eye(len(STYLE_NAMES) + 1)[[self.says] * len(images)], -1)

    def features(self, images):
        return [F.avg_pool2d(images, 8), F.avg_pool2d(images, 16)]


def painted_heads(identity, styles, cameras, size, *, background=0.93, samples=4, tracer=None):
    """A square in the middle whose colours are the first three identity numbers, brighter with the style's."""
    subjects, views = cameras.cam2world.shape[:2]
    mask = torch.zeros(subjects, views, 1, size, size)
    mask[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    colour = (0.5 * identity[:, :3] + 0.4 * styles[:, :1].clamp(0, 1))[:, None, :, None, None]
    rgb = mask * colour + (1 - mask) * background
    return rgb, 3.05 - mask, mask
