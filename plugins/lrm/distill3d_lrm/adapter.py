"""What a style can add to frozen planes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = 128


class PlaneAdapter(nn.Module):
    """A small convolutional network whose output is added to the planes; nothing at first, bit for bit.

    The three planes go through it side by side as channels, so that it can relate them.
    """

    def __init__(self, channels: int, hidden: int = HIDDEN):
        super().__init__()
        self.first = nn.Conv2d(3 * channels, hidden, 3, padding=1)
        self.second = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.last = nn.Conv2d(hidden, 3 * channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, planes: Tensor) -> Tensor:
        """(S, 3, C, h, w) to the same shape."""
        x = F.gelu(self.first(planes.flatten(1, 2)))
        return planes + self.last(F.gelu(self.second(x))).view_as(planes)
