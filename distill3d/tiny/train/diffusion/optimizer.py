"""Muon for the convolutions and matrices, Adam for the rest: at these sizes it needs about half of Adam's steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTUM = 0.95


class Optimizer:
    """Steps with named state, so that a checkpoint can hold it.

    Muon (Jordan et al., 2024) replaces a matrix's averaged gradient by the nearest orthogonal matrix: all its
    directions move alike. Filters count as matrices (C_out, C_in * k * k). Vectors, embeddings, and the first and last
    layers, whose few channels are no directions among equals, take Adam's steps.
    """

    def __init__(self, net: nn.Module, weight_decay: float = 1e-4):
        named = dict(net.named_parameters())
        self.matrices = {name: p for name, p in named.items() if is_matrix(name, p)}
        self.others = {name: p for name, p in named.items() if name not in self.matrices}
        self.momentum = {name: torch.zeros_like(p) for name, p in self.matrices.items()}
        self.adam = torch.optim.AdamW(self.others.values(), betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)

    def step(self, muon_lr: float, adam_lr: float) -> None:
        """Move every parameter along its gradient; either kind at its own rate."""
        for group in self.adam.param_groups:
            group["lr"] = adam_lr
        self.adam.step()
        with torch.no_grad():
            for name, parameter in self.matrices.items():
                gradient, momentum = parameter.grad, self.momentum[name]
                if gradient is None:
                    continue
                momentum.lerp_(gradient, 1 - MOMENTUM)
                direction = orthogonalised(gradient.lerp(momentum, MOMENTUM).flatten(1)).view_as(parameter)
                tall = max(1.0, direction.shape[0] / direction[0].numel()) ** 0.5
                parameter.add_(direction, alpha=-muon_lr * tall)

    def state(self) -> dict[str, Tensor]:
        """All that the next step depends on, by name."""
        state = {f"momentum/{name}": tensor for name, tensor in self.momentum.items()}
        for name, parameter in self.others.items():
            for kind, tensor in self.adam.state.get(parameter, {}).items():
                state[f"{kind}/{name}"] = tensor
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        for name in self.matrices:
            self.momentum[name] = state[f"momentum/{name}"]
        for name, parameter in self.others.items():
            kinds = ("step", "exp_avg", "exp_avg_sq")
            found = {kind: state[f"{kind}/{name}"] for kind in kinds if f"{kind}/{name}" in state}
            if found:
                self.adam.state[parameter] = found


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon moves it."""
    return parameter.ndim >= 2 and min(parameter.shape[:2]) >= 16 and "embedding.weight" not in name


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U V^T of the (m, n) matrix's singular value decomposition, by five Newton-Schulz steps.

    The coefficients push singular values into [0.7, 1.2] fast rather than to 1 exactly, which training does not need.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / (wide.norm() + 1e-7)
    # Each step is a polynomial of W W^T times W. The polynomials commute, so only small square matrices are iterated.
    gram, one = wide @ wide.T, torch.eye(len(wide), dtype=wide.dtype)
    product = one
    for _ in range(5):
        factor = a * one + b * gram + c * gram @ gram
        product = factor @ product
        gram = factor @ gram @ factor
    wide = product @ wide
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T
