"""What decides the shape of a generator and how it is rendered: read from a checkpoint, written beside its tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor

from distill3d.cameras import HEAD_FOCAL
from distill3d.errors import WeightsError
from distill3d.volume import EG3D_AXES, PANOHEAD_AXES, Axes

Family = Literal["eg3d", "panohead"]
Activation = Literal["sigmoid", "lrelu", "none"]
FEATURES = 32  # rendered channels, the first three of which are colours


@dataclass(frozen=True)
class Upscaler:
    """One of the published super-resolution networks: two blocks of this many channels."""

    input_size: int  # what it resizes its input to
    ups: tuple[bool, bool]  # which block doubles the size
    channels: tuple[int, int]
    always_resizes: bool  # also what is larger than `input_size`
    own_filter: bool  # has a filter buffer of its own, which nothing reads

    @property
    def output_size(self) -> int:
        """Pixels on a side of its picture."""
        return self.input_size * 2 ** sum(self.ups)


UPSCALERS = {
    "8XDC": Upscaler(128, (True, True), (256, 128), True, False),
    "8X": Upscaler(128, (True, True), (128, 64), True, True),
    "4X": Upscaler(128, (False, True), (128, 64), False, True),
    "Deepfp32": Upscaler(128, (False, True), (128, 64), False, True),
    "2X": Upscaler(64, (False, True), (128, 64), True, True),
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """EG3D (arXiv:2112.07945) and PanoHead (arXiv:2303.13071) are one network with these options."""

    family: Family
    z_dim: int
    w_dim: int
    label_dim: int
    image_size: int
    neural_resolution: int  # pixels on a side of the volume rendered picture
    mapping_layers: int
    channel_base: int
    channel_max: int
    conv_clamp: float | None  # of the planes' synthesis
    plane_size: int
    plane_depth: int | None  # slices of a tri-grid; None for flat planes
    plane_axes: Axes
    upscaler: str
    upscaler_clamp: float | None
    upscaler_antialias: bool
    upscaler_noise: str
    decoder_lr_multiplier: float
    decoder_activation: Activation
    raw_head: bool  # a modulated 1x1 convolution makes the raw picture; else it is the first three features
    background: bool  # a flat picture of features behind the volume, from the same ws
    samples: int
    samples_importance: int
    near: float | None  # None: where the ray enters the box
    far: float | None
    disparity: bool
    box_side: float
    crop: float | None  # no density within this distance of the box's sides, in x and z
    white_back: bool
    label_scale: float
    label_zero: bool  # the mapping is told no camera
    camera_radius: float
    camera_pivot: tuple[float, float, float]
    camera_focal: float  # divided by image size

    def __post_init__(self) -> None:
        """Refuse what no network can be made of, or what would be taken as something else."""
        for name, known in {
            "family": ("eg3d", "panohead"),
            "upscaler": tuple(UPSCALERS),
            "decoder_activation": ("sigmoid", "lrelu", "none"),
            "upscaler_noise": ("const", "none"),
            "plane_size": tuple(4 << i for i in range(10)),
            "w_dim": (512,),  # as super-resolution has it
        }.items():
            if getattr(self, name) not in known:
                raise WeightsError(f"{name} of the checkpoint is {getattr(self, name)!r}; known are {known}.")
        for name, least in {
            "z_dim": 1,
            "label_dim": 1,
            "neural_resolution": 1,
            "mapping_layers": 1,
            "channel_max": 1,
            # at least one channel at the largest size; the background has half as many
            "channel_base": max(self.plane_size, 2 * UPSCALERS[self.upscaler].input_size * self.background),
            "samples": 4,
            "samples_importance": 0,
        }.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise WeightsError(f"{name} of the checkpoint is {value!r}; it must be a whole number from {least}.")
        if not self.box_side > 0:
            raise WeightsError(f"The box of the checkpoint has a side of {self.box_side!r}.")

    @property
    def plane_channels(self) -> int:
        """Channels of the synthesis' picture, all planes and slices together."""
        return 3 * FEATURES * (self.plane_depth or 1)

    @property
    def num_ws(self) -> int:
        """Rows of ws that the planes' synthesis reads: two for every resolution from 4, less two."""
        return 2 * self.plane_size.bit_length() - 4

    def plain(self) -> dict[str, Any]:
        """Values that JSON holds."""
        return asdict(self)

    @classmethod
    def from_plain(cls, stored: Mapping[str, Any]) -> Architecture:
        """Inverse of `plain`, also after JSON has made lists of tuples.

        Raises:
            WeightsError: if a field is missing or unknown.
        """
        known = {f.name for f in fields(cls)}
        if set(stored) != known:
            strange = sorted(set(stored) ^ known)
            raise WeightsError(f"The checkpoint's architecture does not fit this version: {', '.join(strange)}.")
        frozen = {
            "plane_axes": tuple(tuple(axes) for axes in stored["plane_axes"]),
            "camera_pivot": tuple(stored["camera_pivot"]),
        }
        return cls(**{**stored, **frozen})


def architecture_of(
    init: Mapping[str, Any],
    rendering: Mapping[str, Any],
    neural_resolution: int,
    plane_axes: Tensor | Sequence[Any] | None,
    *,
    panohead: bool,
) -> Architecture:
    """From what an official checkpoint says of itself.

    Args:
        init: the keyword arguments that its generator was made with.
        rendering: its rendering options as they are, which training may have changed since.
        plane_axes: (3, 3, 3), one matrix of unit rows for each plane; None for the family's own.
    Raises:
        WeightsError: if something needed is missing, or is an option that no published checkpoint has.
    """
    try:
        return _architecture(init, rendering, neural_resolution, plane_axes, panohead)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"The checkpoint does not describe an EG3D or PanoHead generator: {error!r}.") from error


def _architecture(
    init: Mapping[str, Any], rendering: Mapping[str, Any], neural_resolution: int, plane_axes: Any, panohead: bool
) -> Architecture:
    upscaler = str(rendering["superresolution_module"]).rpartition("SuperresolutionHybrid")[2]
    if upscaler not in UPSCALERS:
        raise ValueError(f"super-resolution {rendering['superresolution_module']!r}")
    if rendering.get("clamp_mode", "softplus") != "softplus":
        raise ValueError(f"clamp_mode {rendering['clamp_mode']!r}")
    size = int(init["img_resolution"])
    if size != UPSCALERS[upscaler].output_size:
        raise ValueError(f"{upscaler} makes pictures of {UPSCALERS[upscaler].output_size} pixels, not {size}")
    near, far = (None if rendering[end] == "auto" else float(rendering[end]) for end in ("ray_start", "ray_end"))
    return Architecture(
        family="panohead" if panohead else "eg3d",
        z_dim=int(init["z_dim"]),
        w_dim=int(init["w_dim"]),
        label_dim=int(init["c_dim"]),
        image_size=size,
        neural_resolution=int(neural_resolution),
        mapping_layers=int(init.get("mapping_kwargs", {}).get("num_layers", 8)),
        channel_base=int(init.get("channel_base", 32768)),
        channel_max=int(init.get("channel_max", 512)),
        conv_clamp=_number(init.get("conv_clamp", None)),
        plane_size=int(rendering.get("triplane_size", 256)) if panohead else 256,
        plane_depth=int(rendering.get("triplane_depth", 1)) if panohead else None,
        plane_axes=_axes(plane_axes, panohead),
        upscaler=upscaler,
        upscaler_clamp=256.0 if init.get("sr_num_fp16_res", 0) > 0 else None,
        upscaler_antialias=bool(rendering.get("sr_antialias", True)) and upscaler != "Deepfp32",
        upscaler_noise=str(rendering.get("superresolution_noise_mode", "none")),
        decoder_lr_multiplier=float(rendering.get("decoder_lr_mul", 1)),
        decoder_activation=rendering.get("decoder_activation", "sigmoid") if panohead else "sigmoid",
        raw_head=panohead and bool(rendering.get("use_torgb_raw", False)),
        background=panohead and bool(rendering.get("use_background", False)),
        samples=int(rendering["depth_resolution"]),
        samples_importance=int(rendering["depth_resolution_importance"]),
        near=near,
        far=far,
        disparity=bool(rendering.get("disparity_space_sampling", False)),
        box_side=float(rendering["box_warp"]),
        crop=float(rendering.get("triplane_crop", 0.1)) if panohead else None,
        white_back=bool(rendering.get("white_back", False)),
        label_scale=float(rendering.get("c_scale", 0)),  # 0 if missing, as the original has it
        label_zero=bool(rendering.get("c_gen_conditioning_zero", False)),
        camera_radius=float(rendering.get("avg_camera_radius", 2.7)),
        # not written in checkpoints: the official scripts' own, for cars (seen from 1.7) and for everything else
        camera_focal=1.7074 if rendering.get("avg_camera_radius") == 1.7 else HEAD_FOCAL,
        camera_pivot=tuple(float(x) for x in rendering.get("avg_camera_pivot", (0, 0, 0))),  # type: ignore[arg-type]
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _axes(matrices: Any, panohead: bool) -> Axes:
    """The world axes of each plane: a point's coordinates in it are `point @ inverse(matrix)`, a permutation."""
    if matrices is None:
        return PANOHEAD_AXES if panohead else EG3D_AXES
    planes = torch.as_tensor(matrices, dtype=torch.float64)
    permutations = planes.shape == (3, 3, 3) and bool(((planes == 0) | (planes == 1)).all())
    if not permutations or not torch.equal(planes @ planes.mT, torch.eye(3).double().expand(3, 3, 3)):
        raise ValueError(f"plane axes {matrices}")
    # The inverse of a permutation is its transpose, so row k says which world axis is the k-th coordinate.
    return tuple(tuple(row.argmax().item() for row in plane[: 3 if panohead else 2]) for plane in planes)
