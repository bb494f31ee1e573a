"""Score rank weighting: damp the weaker directions of a score's channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill3d.errors import ConfigError

PAPER_WEIGHTS = (1.0, 0.75, 0.5, 0.25)


def default_rank_weights(channels: int) -> tuple[float, ...]:
    """The paper's (1, .75, .5, .25) for four channels, evenly spaced from 1 to .25 for any other number."""
    return tuple(torch.linspace(1.0, 0.25, channels, dtype=torch.float64).tolist())


@torch.no_grad()
def rank_weight(score: Tensor, weights: Sequence[float] = PAPER_WEIGHTS) -> Tensor:
    r"""U W U^T S for each picture's score S = U diag(s) V^T, a matrix of C channels by h*w pixels.

    Bilecen et al., ICCV 2025, section 3.4: W = diag(1, .75, .5, .25) on singular values sorted descending. U comes
    from the C x C Gram matrix S S^T in float64 (in float32 it errs up to 1e-4), or from QR of S^T where a device has
    no float64. Where singular values coincide no unique answer exists; this one is still finite.

    Args:
        score: (B, C, h, w); carries no gradient.
        weights: C numbers, the first for the largest singular value.
    """
    channels = score.shape[1]
    if len(weights) != channels:
        raise ConfigError(
            f"rank_weights needs one weight for each of the {channels} latent channels, got {len(weights)}: "
            f"{tuple(weights)}. Evenly spaced ones: {default_rank_weights(channels)}."
        )
    flat = score.flatten(2)
    u = _left_singular_vectors(flat)
    scaled = (u * torch.tensor(list(weights)).to(u)) @ u.mT @ flat.to(u)
    return scaled.view_as(score).to(score)


@torch.no_grad()
def spectrum(score: Tensor) -> Tensor:
    """(B, C): each picture's singular values as shares of their sum, the largest first.

    Args:
        score: (B, C, h, w), as `rank_weight` takes it. All zero has shares of 0.
    """
    flat = score.flatten(2)
    wide = flat.float() if flat.device.type == "mps" else flat.double()  # no float64 there
    values = torch.linalg.eigvalsh(torch.nan_to_num(wide @ wide.mT)).clamp_min(0).sqrt().flip(-1)
    return values / values.sum(-1, keepdim=True).clamp_min(1e-30)


def _left_singular_vectors(flat: Tensor) -> Tensor:
    """(B, C, N) to U (B, C, C), strongest first."""
    if flat.device.type == "mps":  # no float64 there
        r = torch.linalg.qr(flat.mT.float(), mode="r").R
        return torch.linalg.svd(r).Vh.mT
    exact = flat.double()
    gram = torch.nan_to_num(exact @ exact.mT)  # a NaN stays in the product below; eigh would raise on it
    return torch.linalg.eigh(gram).eigenvectors.flip(-1)  # eigh sorts ascending


def restore_statistics(weighted: Tensor, score: Tensor, eps: float = 1e-5) -> Tensor:
    """Give `weighted` the mean and contrast that `score` has in each channel: the released script's next step."""
    mean, std = weighted.mean((-1, -2), keepdim=True), weighted.std((-1, -2), keepdim=True)
    return (weighted - mean) / (std + eps) * (score.std((-1, -2), keepdim=True) + eps) + score.mean(
        (-1, -2), keepdim=True
    )
