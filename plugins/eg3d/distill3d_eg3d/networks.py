"""The networks of EG3D and PanoHead, by the names of official checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d_eg3d.architecture import FEATURES, Activation, Architecture, Upscaler
from distill3d_eg3d.convolution import FIR, Convolution, leaky
from distill3d_eg3d.layers import FullyConnected, SynthesisLayer, ToPicture, normalised


class MappingNetwork(nn.Module):
    """z and a camera label to w: what the subject is, told which views the training pictures had.

    Args:
        lr_multiplier: of the layers after the label's embedding.
        last_activated: whether the last layer has an activation, too.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        label_dim: int,
        w_dim: int,
        layers: int,
        *,
        lr_multiplier: float = 0.01,
        last_activated: bool = True,
    ):
        super().__init__()
        self.embed = FullyConnected(label_dim, w_dim)
        sizes = [z_dim + w_dim, *[w_dim] * layers]
        for i in range(layers):
            activated = last_activated or i < layers - 1
            layer = FullyConnected(sizes[i], sizes[i + 1], lr_multiplier=lr_multiplier, activated=activated)
            self.add_module(f"fc{i}", layer)
        self.layers = layers
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        """(N, z_dim) and (N, label_dim) to (N, w_dim)."""
        x = torch.cat([normalised(z), normalised(self.embed(label))], 1)
        for i in range(self.layers):
            x = self.get_submodule(f"fc{i}")(x)
        return x


class Block(nn.Module):
    """Two convolutions at one size, and the picture so far, doubled, plus what they add to it.

    The first block of a synthesis starts from a learnt constant and has one convolution.

    Args:
        inputs: channels; 0 for the first block.
        up: whether the first convolution, and the picture, are doubled.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        w_dim: int,
        size: int,
        picture_channels: int,
        convolution: Convolution,
        *,
        up: bool = True,
        clamp: float | None = None,
    ):
        super().__init__()
        self.register_buffer("resample_filter", FIR.clone())
        self.first, self.up, self.convolution = inputs == 0, up, convolution
        if self.first:
            self.const = nn.Parameter(torch.randn(outputs, size, size))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, size, convolution, up=up, clamp=clamp)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, size, convolution, up=False, clamp=clamp)
        self.torgb = ToPicture(outputs, picture_channels, w_dim, convolution, clamp=clamp)

    @property
    def convolutions(self) -> int:
        """How many rows of ws it uses up; one more, the next block's first, makes its picture."""
        return 1 if self.first else 2

    def forward(self, x: Tensor | None, picture: Tensor | None, ws: Tensor, noise: str) -> tuple[Tensor, Tensor]:
        """Features and picture, larger.

        Args:
            ws: (N or 1, convolutions + 1, w_dim).
        """
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x, ws[:, 0], noise)
        x = self.conv1(x, ws[:, -2], noise)
        added = self.torgb(x, ws[:, -1])
        if picture is None:
            return x, added
        if self.up:
            picture = self.convolution.doubled(picture, self.resample_filter)
        return x, picture + added  # not in place: the picture may be somebody's raw render


class SynthesisNetwork(nn.Module):
    """ws to a picture with any number of channels, from 4x4 upwards."""

    def __init__(
        self,
        w_dim: int,
        size: int,
        picture_channels: int,
        convolution: Convolution,
        *,
        channel_base: int,
        channel_max: int,
        clamp: float | None,
    ):
        super().__init__()
        self.sizes = [4 << i for i in range(size.bit_length() - 2)]
        channels = {s: min(channel_base // s, channel_max) for s in self.sizes}
        for s in self.sizes:
            inputs = 0 if s == 4 else channels[s // 2]
            block = Block(inputs, channels[s], w_dim, s, picture_channels, convolution, clamp=clamp)
            self.add_module(f"b{s}", block)

    @property
    def num_ws(self) -> int:
        return 2 * len(self.sizes)

    def forward(
        self, ws: Tensor, noise: str = "const", watch: Callable[[str, Tensor, Tensor], None] | None = None
    ) -> Tensor:
        """(N, at least num_ws, w_dim) to (N, picture_channels, size, size).

        Args:
            watch: told each block's name, features and picture.
        """
        x = picture = None
        row = 0
        for s in self.sizes:
            block = self.get_submodule(f"b{s}")
            assert isinstance(block, Block)
            x, picture = block(x, picture, ws[:, row : row + block.convolutions + 1], noise)
            row += block.convolutions
            if watch is not None:
                watch(f"b{s}", x, picture)
        assert picture is not None
        return picture


class Backbone(nn.Module):
    """Mapping and synthesis of the planes."""

    def __init__(self, a: Architecture, convolution: Convolution):
        super().__init__()
        self.synthesis = SynthesisNetwork(
            a.w_dim,
            a.plane_size,
            a.plane_channels,
            convolution,
            channel_base=a.channel_base,
            channel_max=a.channel_max,
            clamp=a.conv_clamp,
        )
        self.mapping = MappingNetwork(a.z_dim, a.label_dim, a.w_dim, a.mapping_layers)


class Decoder(nn.Module):
    """A point's features to its density, before any activation, and its rendered features."""

    def __init__(self, activation: Activation, lr_multiplier: float, hidden: int = 64):
        super().__init__()
        self.net = nn.Sequential(
            FullyConnected(FEATURES, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + FEATURES, lr_multiplier=lr_multiplier),
        )
        self.activation = activation

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(..., 32) to density (...) and features (..., 32)."""
        found = self.net(features)
        return found[..., 0], self.activated(found[..., 1:])

    def activated(self, values: Tensor) -> Tensor:
        if self.activation == "sigmoid":
            return values.sigmoid() * (1 + 2 * 0.001) - 0.001  # so that 0 and 1 can be reached (Mip-NeRF)
        return leaky(values) if self.activation == "lrelu" else values


def directly(compute: Callable[..., Any], *inputs: Any) -> Any:
    """Call it."""
    return compute(*inputs)


class SuperResolution(nn.Module):
    """Two synthesis blocks, all fed the last row of ws, from the rendered features to the final picture."""

    block0: Block
    block1: Block

    def __init__(self, a: Architecture, upscaler: Upscaler, convolution: Convolution):
        super().__init__()
        self.input_size, self.always_resizes = upscaler.input_size, upscaler.always_resizes
        self.antialias, self.noise = a.upscaler_antialias, a.upscaler_noise
        inputs, size = FEATURES, upscaler.input_size
        for i, (outputs, up) in enumerate(zip(upscaler.channels, upscaler.ups)):
            size = 2 * size if up else size
            block = Block(inputs, outputs, a.w_dim, size, 3, convolution, up=up, clamp=a.upscaler_clamp)
            self.add_module(f"block{i}", block)
            inputs = outputs
        if upscaler.own_filter:
            self.register_buffer("resample_filter", FIR.clone())

    def forward(
        self,
        raw: Tensor,
        features: Tensor,
        w: Tensor,
        *,
        run: Callable[..., tuple[Tensor, Tensor]] = directly,
        precision: torch.dtype | None = None,
    ) -> Tensor:
        """(N, 3, r, r), (N, 32, r, r) and w (N or 1, w_dim) to (N, 3, image_size, image_size).

        Args:
            run: computes a block; one that checkpoints it saves memory.
            precision: of the features between convolutions; None for that of the input. Pictures keep theirs.
        """
        x, picture = self.resized(features).to(dtype=precision), self.resized(raw)
        ws = w[:, None].expand(-1, 3, -1)
        for block in (self.block0, self.block1):
            x, picture = run(block, x, picture, ws, self.noise)
        return picture

    def resized(self, x: Tensor) -> Tensor:
        """To the size that the first block takes; what has it, or may be larger, comes back itself."""
        size = x.shape[-1]
        if size == self.input_size or (size > self.input_size and not self.always_resizes):
            return x
        return F.interpolate(x, (self.input_size,) * 2, mode="bilinear", antialias=self.antialias)
