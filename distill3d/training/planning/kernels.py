"""What kernels need beside their results while they run: measured, since no shape says so.

On the CPU (oneDNN, torch 2.13, float32, one operation at a time, `VmHWM` before and after): a convolution of pictures
that are not channels last writes the larger of input and result in a layout of its own, any convolution its weights;
backward likewise, and both pictures where the weights want a gradient; a transposed one two of its results, channels
last only its input. Attention and linear layers need under 3 MB.

On GPUs nothing was measured: `budget.RESERVED` holds an allowance for all kernels together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from distill3d.training.planning.results import channels_last

aten = torch.ops.aten


def cpu_scratch(func: Any, args: Sequence[Any], out: Any) -> int:
    """Bytes that oneDNN allocates and releases within one operation."""
    if func is aten.convolution.default:
        x, weight = args[0], args[1]
        if channels_last(x):
            return weight.nbytes + (x.nbytes if args[6] else 0)
        return weight.nbytes + (2 * out.nbytes if args[6] else max(x.nbytes, out.nbytes))
    if func is aten.convolution_backward.default:
        gradient, x, weight = args[:3]
        if channels_last(x):
            return int(weight.nbytes)
        both = x.nbytes + gradient.nbytes if args[10][1] else max(x.nbytes, gradient.nbytes)
        return int(weight.nbytes + both)
    return 0


def no_scratch(func: Any, args: Sequence[Any], out: Any) -> int:
    """For a device whose kernels are allowed for as a whole."""
    return 0
