"""A large reconstruction model as a `Renderer` of distill3d."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill3d.cameras import CameraPrior, Cameras
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError, UnknownNameError
from distill3d.renderer import (
    AnySize,
    Field,
    Folding,
    FromPhotos,
    Parted,
    Render,
    Renderer,
    RunDefaults,
    Scene,
    Stage,
    StylePart,
    Thrifty,
)
from distill3d.volume import pixel_rays
from distill3d_lrm.adapter import PlaneAdapter
from distill3d_lrm.cache import CodeCache
from distill3d_lrm.encoder import Encoder
from distill3d_lrm.low_rank import MARK, add_low_rank, folded, low_rank_names
from distill3d_lrm.model import Numbers, ReconstructionModel, Traced, joined
from distill3d_lrm.subjects import NoSubjects, Studio, Subjects

GPU_RAYS = 8  # times as many at once: on a GPU, starting so little work takes longer than doing it
LARGEST = 2048  # side of a picture; a config that somebody else wrote may ask for any
MODEL = "model."  # before the names of its parameters
DECODER_RATE = 0.1  # of the learning rate, beside low-rank changes: density is an exponential


@dataclass(frozen=True, kw_only=True)
class Look:
    """How subjects are shown and computed; nothing that a checkpoint decides."""

    background: float = 1.0  # grey level in [0, 1]
    last_blocks: int = 4  # that the group "blocks" trains
    low_memory: bool = True  # with gradients: keep no ray, compute them twice
    rays_at_once: int = 512  # of a CPU (see `GPU_RAYS`), without gradients and in low memory

    def __post_init__(self) -> None:
        if not 0 <= self.background <= 1:
            raise ConfigError(f"background is a grey level in [0, 1], got {self.background}.")
        if self.last_blocks < 1 or self.rays_at_once < 1:
            raise ConfigError(
                f"last_blocks and rays_at_once are at least 1, got {self.last_blocks} and {self.rays_at_once}."
            )

    def rays(self, of: Tensor) -> int:
        """That are followed together where this tensor lies."""
        return self.rays_at_once * (GPU_RAYS if of.is_cuda else 1)


class LrmRenderer(Renderer, AnySize, Field, FromPhotos, Thrifty, Folding, Parted):
    """TripoSR, OpenLRM, or a model like them.

    A code is a prepared picture, (3, image_size, image_size) in [0, 1]; its camera is yaw 0, pitch 0 of the canonical
    world. The model lives in a world of its own, turned against the canonical one but as large: rays and points are
    turned on their way in.

    Args:
        studio: makes pictures of photo files.
        subjects: who is drawn and counted.
        cache: keeps what is computed of a picture by weights that do not train.
        raw_size, image_size: sides of the raw picture and of the image, the same field looked at by fewer or more rays.
        licence: of the weights.
        weights_name: Hub id of the weights; "" for none.
    """

    turn: Tensor  # (3, 3): canonical to own

    def __init__(
        self,
        model: ReconstructionModel,
        studio: Studio,
        subjects: Subjects | None = None,
        look: Look | None = None,
        *,
        cache: CodeCache | None = None,
        raw_size: int | None = None,
        image_size: int | None = None,
        defaults: RunDefaults | None = None,
        licence: str = "unknown",
        weights_name: str = "",
    ):
        super().__init__()
        self.model, self.studio, self.look = model, studio, look or Look()
        self.subjects = subjects or NoSubjects()
        self.adapter: PlaneAdapter | None = None
        self.encoder = Encoder(model, cache or CodeCache())
        self.code_shape = (3, model.image_size, model.image_size)
        self.image_size = image_size or model.picture_size
        self.raw_size = raw_size or self.image_size
        if not 1 <= self.raw_size <= self.image_size <= LARGEST:
            raise ConfigError(f"Pictures have 1 to {LARGEST} pixels a side, got {self.raw_size} and {self.image_size}.")
        self.box_side, self.surface_density = model.box_side, model.surface_density
        self.defaults, self.weights_licence = defaults or run_defaults(model), licence
        self.weights_name = weights_name
        self.register_buffer("turn", torch.tensor(model.to_own), persistent=False)

    @property
    def low_memory(self) -> bool:
        """See `Thrifty.low_memory`."""
        return self.look.low_memory

    @low_memory.setter
    def low_memory(self, wanted: bool) -> None:
        self.look = replace(self.look, low_memory=wanted)

    def sample_codes(self, draws: Draws) -> Tensor:
        """(S, 3, h, w)."""
        return self.subjects.drawn(draws).to(self.turn)

    def codes_of_seeds(self, seeds: Sequence[int]) -> Tensor:
        """Photos by number, over and over; a model with subjects of its own says what its numbers mean."""
        return torch.stack([self.subjects.of_seed(seed) for seed in seeds]).to(self.turn)

    def codes_of_photos(self, paths: Sequence[Path]) -> Tensor:
        """See `FromPhotos.codes_of_photos`."""
        return torch.stack([self.studio.picture(Path(path)) for path in paths]).to(self.turn)

    def scene(self, codes: Tensor) -> Scene:
        """ "planes", (S, 3, C, h, w)."""
        if codes.shape[1:] != self.code_shape:
            raise ShapeError(f"Codes of this backbone are (S, {self.code_shape}), got {tuple(codes.shape)}.")
        # One by one: a subject must not depend on how many are encoded with it, not even in its last bit.
        planes = torch.cat([self.encoder.planes(code) for code in codes.split(1)])
        return {"planes": planes if self.adapter is None else self.adapter(planes)}

    def render(self, scene: Scene, cameras: Cameras, *, upto: Stage = "image", draws: Draws | None = None) -> Render:
        """See `Renderer.render`."""
        raw = self.render_raw(scene, cameras, self.raw_size, draws=draws)
        if upto == "raw":
            return raw
        same = self.image_size == self.raw_size
        image = raw if same else self.render_raw(scene, cameras, self.image_size, draws=draws)
        return replace(raw, image=image.raw)

    def render_raw(self, scene: Scene, cameras: Cameras, size: int, *, draws: Draws | None = None) -> Render:
        """See `AnySize.render_raw`."""
        planes, (subjects, views) = scene["planes"], cameras.cam2world.shape[:2]
        if len(planes) != subjects:
            raise ShapeError(f"A scene of {len(planes)} subjects cannot be seen by the cameras of {subjects}.")
        rays = [x.flatten(1, 2) for x in pixel_rays(cameras.to(planes), size, size)]  # (S, V*n*n, 3)
        found = []
        for s, one in enumerate(planes.split(1)):
            alone = None if draws is None else replace(draws, subjects=draws.subjects[s : s + 1])
            numbers = tuple(x.repeat(1, views, 1) for x in self.model.numbers(alone, size * size, one))
            found.append(self._gathered(one, rays[0][s : s + 1], rays[1][s : s + 1], numbers))
        traced = joined(found)
        colour = 2 * (traced.colour + (1 - traced.opacity) * self.look.background) - 1
        pictures = (
            x.unflatten(1, (views, size, size)).movedim(-1, 2) for x in (colour, traced.depth, traced.opacity)
        )  # (S, V, C, n, n)
        return Render(*pictures)

    def _gathered(self, planes: Tensor, origins: Tensor, directions: Tensor, numbers: Numbers) -> Traced:
        """The rays (1, N, 3) of one subject; depth reaches beyond the box where nothing is."""
        keeps = torch.is_grad_enabled() and not self.look.low_memory
        at_once = origins.shape[1] if keeps or self.model.reference else self.look.rays(planes)
        inputs = (origins @ self.turn.T, directions @ self.turn.T, *numbers)
        parts = []
        for some in zip(*(x.split(at_once, 1) for x in inputs)):
            trace = partial(self._traced, some[0], some[1], some[2:])
            again = torch.is_grad_enabled() and not keeps
            parts.append(
                checkpoint(trace, planes, use_reentrant=False, preserve_rng_state=False) if again else trace(planes)
            )
        return Traced(*(torch.cat(part, 1) for part in zip(*parts)))

    def _traced(self, origins: Tensor, directions: Tensor, numbers: Numbers, planes: Tensor) -> tuple[Tensor, ...]:
        found = self.model.trace(planes, origins, directions, numbers)
        behind = origins.norm(dim=-1, keepdim=True) + self.box_side
        return found.colour, found.depth + (1 - found.opacity) * behind, found.opacity

    def query(self, scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
        """See `Field.query`."""
        density, colours = self.model.query(scene["planes"], points @ self.turn.T)
        return density, 2 * colours - 1

    def trainable(self, group: str = "default") -> dict[str, nn.Parameter]:
        """ "default": low-rank changes of the plane transformer, and the decoder.

        "decoder"; "upsampler": that and the decoder; "adapter": a network behind the planes; "lora": the low-rank
        changes alone; "blocks": the last blocks of the plane transformer (`last_blocks`); "all": the whole model.
        """
        parts = self.model.parts
        groups: dict[str, tuple[str, ...]] = {
            "default": parts.decoder,
            "decoder": parts.decoder,
            "upsampler": parts.upsampler + parts.decoder,
            "adapter": (),
            "lora": (),
            "blocks": parts.blocks[-self.look.last_blocks :],
            "all": ("",),
        }
        if group not in groups:
            raise UnknownNameError("training group", group, groups)
        if group == "adapter":
            return {f"adapter.{name}": p for name, p in self._own_adapter().named_parameters()}
        if group in ("default", "lora"):
            add_low_rank(self.model)
        low_rank = low_rank_names(self.model) if group in ("default", "lora") else []
        beginnings = groups[group]
        own = {
            f"model.{name}": p
            for name, p in self.model.named_parameters()
            if name in low_rank or (beginnings and name.startswith(beginnings) and self._trains(name))
        }
        return own

    def _trains(self, name: str) -> bool:
        return MARK not in name and not name.startswith(self.model.parts.unread)

    def folded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `Folding.folded`; the network of "adapter" is no change of a weight, and stays as it is."""
        model = {name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)}
        others = {name: value for name, value in tensors.items() if not name.startswith(MODEL)}
        return others | {f"{MODEL}{name}": value for name, value in folded(self.model, model).items()}

    def part_of(self, name: str) -> StylePart:
        """See `Parted.part_of`: the decoder is texture but for its first layer, which goes with the planes it reads.

        A convention, measured on the embedded model alone (docs/lrm.md): there texture alone moves depth by .04 of what
        the whole change of a run does and colour by .31; geometry alone depth by 1.02 and colour by .91.
        """
        parts, name = self.model.parts, name.removeprefix(MODEL)
        texture = name.startswith(parts.decoder) and not name.startswith(parts.plane_reader)
        return "texture" if texture else "geometry"

    def _own_adapter(self) -> PlaneAdapter:
        """Made when it is first asked for, the same in every process."""
        if self.adapter is None:
            with torch.random.fork_rng([]):
                torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too, for good
                self.adapter = PlaneAdapter(self.model.plane_channels).to(self.turn)
        return self.adapter

    def rate(self, name: str) -> float:
        """See `Renderer.rate`: the decoder learns a tenth as fast beside low-rank changes."""
        decoder = name.startswith(tuple(f"model.{part}" for part in self.model.parts.decoder))
        return DECODER_RATE if decoder and low_rank_names(self.model) else 1.0


def run_defaults(model: ReconstructionModel) -> RunDefaults:
    """Cameras as far away as the model was trained for; all round, and no higher than it was shown."""
    views = partial(CameraPrior, pitch=30, focal=model.camera_focal, radius=model.camera_radius)
    return RunDefaults(front=views(yaw=60), around=views(yaw=180), rerender=False, flush_denormal=True)
