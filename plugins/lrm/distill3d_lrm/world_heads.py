"""Heads of the embedded world as subjects: portraits that come with the package, and others rendered when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill3d.cameras import orbit
from distill3d.draws import Draws
from distill3d.errors import WeightsError
from distill3d.tiny.world import BACKGROUND, CODE_SIZE, identity_from_codes, render_heads, style_rows
from distill3d_lrm.preparation import Pixels, Preparation
from distill3d_lrm.subjects import Subjects

SIZE = 64  # of a portrait
PORTRAITS = Path(__file__).parent / "weights" / "portraits.png"
COLUMNS = 16  # of portraits in that picture
KEPT = 256


def portrait(code: Tensor, size: int = SIZE) -> Pixels:
    """The head of a code (32,), seen from the front: RGBA, cut out."""
    zero = torch.zeros(1, 1)
    rgb, _, mask = render_heads(
        identity_from_codes(code[None]), style_rows(["photo"]), orbit(zero, zero), size, samples=2
    )
    alpha, seen = mask[0, 0].clamp(0, 1), rgb[0, 0]
    plain = (seen - (1 - alpha) * BACKGROUND) / alpha.clamp(min=1e-3)  # without the part of the background
    rgba = torch.cat([plain.clamp(0, 1), alpha]).permute(1, 2, 0)
    return np.ascontiguousarray((255 * rgba).round().to(torch.uint8).numpy())


def stored_portraits() -> list[Pixels]:
    """The portraits that come with the package: rendering one takes a second, and a run looks at many.

    Raises:
        WeightsError: if they are missing or damaged.
    """
    try:
        rows = np.array(Image.open(PORTRAITS).convert("RGBA")).reshape(-1, SIZE, COLUMNS, SIZE, 4)
    except (OSError, SyntaxError, ValueError) as error:  # the second of a damaged PNG
        raise WeightsError(f"The portraits {PORTRAITS} are missing or damaged. Reinstall distill3d-lrm.") from error
    return list(np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(-1, SIZE, SIZE, 4))


class WorldHeads(Subjects):
    """Draws choose among the stored portraits; numbers name the same heads as those of the embedded generator."""

    def __init__(self, preparation: Preparation):
        def picture(code: tuple[float, ...]) -> Tensor:
            return preparation(portrait(torch.tensor(code)))

        self._picture = lru_cache(KEPT)(picture)
        self._preparation = preparation

    @cached_property
    def _portraits(self) -> Tensor:
        return torch.stack([self._preparation(one) for one in stored_portraits()])

    def drawn(self, draws: Draws) -> Tensor:
        return self._portraits[draws.integers("subject", len(self._portraits))]

    def of_seed(self, seed: int) -> Tensor:
        return self._picture(tuple(self.codes_of_seeds([seed])[0].tolist()))

    @staticmethod
    def codes_of_seeds(seeds: Sequence[int]) -> Tensor:
        """(S, 32): see `distill3d.tiny.subjects.WorldSubjects`."""
        return torch.cat([Draws(seed, 0, (0,), "seed/").normal("codes", CODE_SIZE) for seed in seeds])
