"""Peak signal-to-noise ratio."""

from __future__ import annotations

from torch import Tensor

from distill3d.errors import ShapeError

PEAK = 2.0  # of pictures in [-1, 1]


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """10 log10(peak^2 / mean squared error) of each picture, in dB.

    Args:
        images, truth: (B, 3, H, W) in [-1, 1].
    Returns:
        (B,): 6 dB more for half the error; infinite for equal pictures.
    Raises:
        ShapeError: if the two differ in shape.
    """
    if images.shape != truth.shape or images.ndim != 4:
        raise ShapeError(f"PSNR compares two (B, 3, H, W) tensors, got {tuple(images.shape)} and {tuple(truth.shape)}.")
    error = (images.float() - truth.float()).square().flatten(1).mean(1)
    return 10 * (PEAK**2 / error).log10()
