"""Multi-head attention."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt(width of a head)) v; every head has its own block of neighbouring channels.

    Args:
        queries: (B, N, C).
        keys, values: (B, M, C).
    Returns:
        (B, N, C).
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
