"""Pictures to planes, remembered where nothing that trains has a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from distill3d_lrm.cache import CodeCache, checksum
from distill3d_lrm.model import ReconstructionModel
from distill3d_lrm.remembered import state_of


class Encoder:
    """The two stages of a model, each kept by what it was computed from: its sizes, its weights and the picture.

    Image tokens are kept while the tokenizer does not train, planes while nothing before the decoder does. A run that
    trains the decoder, or an adapter behind the planes, therefore encodes each photo once.
    """

    def __init__(self, model: ReconstructionModel, cache: CodeCache):
        self.model, self.cache = model, cache
        self._sums: dict[str, tuple[object, str]] = {}

    def planes(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) in [0, 1] to (1, 3, C, h, w)."""
        before_decoder = dict(self._parameters(exclude=self.model.parts.decoder))
        return self._kept("planes", before_decoder, image, lambda: self.model.planes(self._tokens(image)))

    def _tokens(self, image: Tensor) -> Tensor:
        own = {name: p for name, p in self._parameters() if name.startswith(self.model.parts.tokenizer)}
        return self._kept("tokens", own, image, lambda: self.model.tokens(image))

    def _parameters(self, exclude: tuple[str, ...] = ()) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, p) for name, p in self.model.named_parameters() if not name.startswith(exclude or ("\0",)))

    def _kept(
        self, stage: str, weights: dict[str, nn.Parameter], image: Tensor, compute: Callable[[], Tensor]
    ) -> Tensor:
        if torch.is_grad_enabled() and any(p.requires_grad for p in weights.values()):
            return compute()
        key = f"{stage} {self.model.config} {self._sum(stage, weights)} {checksum([image])}"
        return self.cache.get(key, compute).to(image)

    def _sum(self, stage: str, weights: dict[str, nn.Parameter]) -> str:
        """Of the weights, computed again when one of them changed."""
        state = state_of(weights.values())
        if stage not in self._sums or self._sums[stage][0] != state:
            self._sums[stage] = (state, checksum(weights.values()))
        return self._sums[stage][1]
