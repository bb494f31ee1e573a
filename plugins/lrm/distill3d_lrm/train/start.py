"""Where training starts: the mean head, seen through the principal components of the planes' patches."""

from __future__ import annotations

import torch
from torch import Tensor

from distill3d_lrm.triposr import TripoSR


@torch.no_grad()
def start_from(model: TripoSR, planes: Tensor) -> None:
    """Set what follows from the planes (N, 3, C, h, w) of some heads alone.

    The transposed convolution paints every patch from the largest principal components of all patches; the embeddings
    are the mean head in them; and the transformer adds nothing yet.
    """
    c = model.config
    side, k, width = c.plane_size, c.upsample, c.channels
    patches = planes.unflatten(3, (side, k)).unflatten(5, (side, k)).permute(0, 1, 3, 5, 2, 4, 6)
    flat = patches.reshape(len(planes), -1, c.plane_channels * k * k)  # (N, tokens, C k k)
    every = flat.flatten(0, 1)
    _, values, basis = torch.linalg.svd(every.T @ every / len(every))
    scale = values[:width].sqrt()  # root mean square of each coefficient
    basis = basis[:width]
    upsample = model.post_processor.upsample
    upsample.weight.copy_((basis * scale[:, None]).view_as(upsample.weight))  # type: ignore[union-attr, operator]
    upsample.bias.zero_()  # type: ignore[union-attr, operator]
    mean = flat.mean(0) @ basis.T / scale  # (tokens, width)
    model.tokenizer.embeddings.copy_(mean.view(3, side, side, width).permute(0, 3, 1, 2))  # type: ignore[operator]
    model.backbone.proj_out.weight.zero_()
    model.backbone.proj_out.bias.zero_()
