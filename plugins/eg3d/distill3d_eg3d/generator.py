"""EG3D's and PanoHead's generator: codes to planes, planes and rays to features, features to a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill3d.volume import mean_of_planes, sample_planes
from distill3d_eg3d.architecture import FEATURES, UPSCALERS, Architecture
from distill3d_eg3d.convolution import Convolution, Fast, Literal
from distill3d_eg3d.layers import ToPicture
from distill3d_eg3d.networks import Backbone, Decoder, MappingNetwork, SuperResolution, SynthesisNetwork
from distill3d_eg3d.volume import Field


@dataclass(frozen=True)
class RawPicture:
    """What super-resolution reads."""

    raw: Tensor  # (N, 3, r, r)
    features: Tensor  # (N, 32, r, r)


class Generator(nn.Module):
    """The networks in one module, with the state-dict keys of official checkpoints.

    Args:
        reference: compute every convolution by the published recipe literally, see `Literal`; slower.
    """

    def __init__(self, architecture: Architecture, *, reference: bool = False):
        super().__init__()
        self.architecture = a = architecture
        self.reference = reference
        convolution: Convolution = Literal() if reference else Fast()
        upscaler = UPSCALERS[a.upscaler]
        self.backbone = Backbone(a, convolution)
        self.superresolution = SuperResolution(a, upscaler, convolution)
        self.decoder = Decoder(a.decoder_activation, a.decoder_lr_multiplier)
        if a.raw_head:
            self.torgb = ToPicture(FEATURES, 3, a.w_dim, convolution)
        if a.background:
            self.bcg_synthesis = SynthesisNetwork(
                a.w_dim,
                upscaler.input_size,
                FEATURES,
                convolution,
                channel_base=a.channel_base // 2,
                channel_max=a.channel_max,
                clamp=a.conv_clamp,
            )
        if a.family == "panohead":
            self.t_mapping = MappingNetwork(
                a.z_dim, a.label_dim, 3, a.mapping_layers, lr_multiplier=1.0, last_activated=False
            )

    def ws(self, z: Tensor, label: Tensor, *, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """(N, z_dim) and the conditioning camera's label (N, 25) to (N, num_ws, w_dim).

        Args:
            psi: truncation: 1 leaves w, 0 gives the mean subject.
            cutoff: how many rows are truncated; None for all.
        """
        mapping = self.backbone.mapping
        w = mapping(z, self._told(label))
        return truncated(w[:, None].repeat(1, self.architecture.num_ws, 1), mapping.w_avg, psi, cutoff)

    def offset(self, z: Tensor, label: Tensor, *, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """PanoHead's shift of the camera in training, (N, 3) world units; official scripts leave it out."""
        mapping = self.t_mapping
        return truncated(mapping(z, self._told(label))[:, None], mapping.w_avg, psi, cutoff)[:, 0]

    def _told(self, label: Tensor) -> Tensor:
        a = self.architecture
        return torch.zeros_like(label) if a.label_zero else label * a.label_scale

    def planes(
        self, ws: Tensor, noise: str = "const", watch: Callable[[str, Tensor, Tensor], None] | None = None
    ) -> Tensor:
        """(N, num_ws, w_dim) to (N, 3, 32, [depth,] size, size)."""
        picture = self.backbone.synthesis(ws, noise, watch)
        depth = self.architecture.plane_depth
        return picture.unflatten(1, (3, FEATURES) if depth is None else (3, FEATURES, depth))

    def field(self, planes: Tensor) -> Field:
        """What there is at a point, as the decoder says it: raw density and features, also outside of the box."""

        def ask(points: Tensor) -> tuple[Tensor, Tensor]:
            a = self.architecture
            if self.reference:
                found = sample_planes(planes, points, a.plane_axes, a.box_side).mean(1).transpose(1, 2)
            else:
                found = mean_of_planes(planes, points, a.plane_axes, a.box_side)
            return self.decoder(found)

        return ask

    def flat_background(self, ws: Tensor, noise: str = "const") -> Tensor:
        """(N, 32, input size of super-resolution, same): features behind the volume, the same from every camera.

        Behind planes that are smaller than it (none that is published) the last row of ws is read again.
        """
        rows = self.bcg_synthesis.num_ws
        missing = max(0, rows - ws.shape[1])
        return self.bcg_synthesis(torch.cat([ws[:, :rows], ws[:, -1:].expand(-1, missing, -1)], 1), noise)

    def resized_background(self, background: Tensor, size: int) -> Tensor:
        """(N, 32, size, size)."""
        antialias = self.architecture.upscaler_antialias
        return F.interpolate(background, (size, size), mode="bilinear", antialias=antialias)

    def raw_picture(
        self, features: Tensor, opacity: Tensor, ws: Tensor, background: Tensor | None = None
    ) -> RawPicture:
        """From what the rays gathered to what super-resolution reads.

        Args:
            features, opacity: (N, 32, r, r) and (N, 1, r, r).
            ws: (N or 1, num_ws, w_dim).
            background: (N or 1, 32, r, r), or None for none.
        """
        a = self.architecture
        if a.decoder_activation == "sigmoid":
            features = features * 2 - 1
        if background is not None:
            features = features + (1 - opacity) * background
        raw = self.torgb(features, ws[:, -1]) if a.raw_head else features[:, :3]
        return RawPicture(raw, features)


def truncated(ws: Tensor, mean: Tensor, psi: float, cutoff: int | None) -> Tensor:
    """(N, rows, w_dim) with the first `cutoff` rows moved towards the mean."""
    if psi == 1:
        return ws
    near = torch.lerp(mean.to(ws), ws[:, :cutoff], psi)
    return near if cutoff is None else torch.cat([near, ws[:, cutoff:]], 1)
