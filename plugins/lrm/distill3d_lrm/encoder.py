"""Pictures to planes, remembered where nothing that trains has a part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256

import torch
from torch import Tensor, nn

from distill3d_lrm.cache import CodeCache, checksum
from distill3d_lrm.model import ReconstructionModel
from distill3d_lrm.remembered import state_of

FORMAT = 1  # raised when the same weights make something else of a picture: what is on disk is then computed again


class Encoder:
    """The two stages of a model, each kept by what it was computed from: its sizes, its weights and the picture.

    Image tokens are kept while the tokenizer does not train, planes while nothing before the decoder does. A run that
    trains the decoder, or an adapter behind the planes, therefore encodes each photo once.
    """

    def __init__(self, model: ReconstructionModel, cache: CodeCache):
        self.model, self.cache = model, cache
        self._sums: dict[str, tuple[object, str]] = {}  # of each tensor, by its name

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
        if torch.is_grad_enabled() and any(t.requires_grad for t in (image, *weights.values())):
            return compute()
        if image.is_meta:  # a planner's rehearsal: nothing is worth remembering, but it is as frozen as what is kept
            with torch.no_grad():
                return compute()
        made_by = f"{FORMAT} {image.device.type}"  # another kind of device rounds otherwise
        key = f"{stage} {made_by} {self.model.config} {self._sum(weights)} {checksum([image])}"
        return self.cache.get(key, compute).to(image)

    def _sum(self, weights: dict[str, nn.Parameter]) -> str:
        """Of the weights; those that changed are read again, as a run changes few of a gigabyte."""
        for name, tensor in weights.items():
            state = state_of([tensor])
            if name not in self._sums or self._sums[name][0] != state:
                self._sums[name] = (state, checksum([tensor]))
        return sha256("".join(self._sums[name][1] for name in weights).encode()).hexdigest()
