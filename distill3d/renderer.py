"""What a backbone is: codes and cameras in, images out."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from distill3d.cameras import CameraPrior, Cameras
from distill3d.draws import Draws

Stage = Literal["raw", "image"]  # "raw": before super-resolution; a backbone without one gives its image for both
Scene = Mapping[str, Tensor]  # (S, ...): all that `render` reads besides the cameras and the weights


@dataclass(frozen=True)
class Render:
    """One picture per view. All float32, (S, V, C, H, W); `raw`, `depth` and `opacity` share the raw size."""

    raw: Tensor  # (S, V, 3, h, w) in [-1, 1]
    depth: Tensor  # (S, V, 1, h, w), along the ray, world units
    opacity: Tensor  # (S, V, 1, h, w) in [0, 1]
    image: Tensor | None = None  # (S, V, 3, H, W) in [-1, 1]; None for upto="raw"

    def tensors(self) -> dict[str, Tensor]:
        """The pictures that are there, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    def map(self, change: Callable[[Tensor], Tensor]) -> Render:
        """A render with `change` applied to each picture."""
        return replace(self, **{name: change(value) for name, value in self.tensors().items()})

    def stage(self, stage: Stage) -> Tensor:
        """The picture of that stage: `raw`, or `image`."""
        picture = self.raw if stage == "raw" else self.image
        if picture is None:
            raise ValueError('This view was rendered upto="raw"; a term that reads its image must ask for it in needs.')
        return picture


@dataclass(frozen=True, kw_only=True)
class RunDefaults:
    """What a run on this backbone uses unless it is told otherwise; these are the released script's (PanoHead)."""

    scorer: str = "diffusers"
    steps: int = 10_000
    lr: float = 1e-4
    batch: int = 1
    front: CameraPrior = CameraPrior(yaw=60, pitch=30)  # of single views
    around: CameraPrior = CameraPrior(yaw=180, pitch=30)  # of the grid's views
    stage: Stage = "image"  # of single views; "raw" where a scorer looks at no more pixels than that has
    path: Literal["flow", "noise"] = "noise"  # `--method ld`: a flow takes some ten looks of the scorer, see `ld`
    mirror: bool = True  # `--method ld`: mirrored pairs; they pay where a render is cheap beside a look of the scorer
    grid_every: int = 1  # `--method ld`: steps from grid to grid, likewise
    rerender: bool = True  # see `Trainer`: False is faster where the graphs of all views fit into memory
    threads: int | None = None  # on the CPU, unless OMP_NUM_THREADS says; None: as many as torch finds best
    anchors: Mapping[str, float] = field(default_factory=dict)  # weights by name, see `distill3d.anchors`
    flush_denormal: bool = False  # on the CPU: numbers below 1e-38 count as 0, see `training.cpu.denormal_flushed`
    replay: int | None = None  # steps after which a deterministic method sees the same subjects again; None: never


class Renderer(nn.Module, ABC):
    """A differentiable 3D generator: subject codes and cameras to images.

    The costly part that no camera changes is computed once, in `scene`; everything else about a backbone (mapping,
    planes, super-resolution) stays in its plugin. Nothing that is trained acts before `scene`, and no buffer changes
    in a step: that is what makes one backward through the scene exact.
    """

    code_shape: tuple[int, ...]
    image_size: int
    raw_size: int
    weights_licence: str = "unknown"
    # What brings somebody else these weights, as `weights` of the backbone's loader: a published name, a Hub id,
    # "embedded" for those in the package; "" where there is no such thing.
    weights_name: str = ""
    defaults: RunDefaults = RunDefaults()

    @abstractmethod
    def sample_codes(self, draws: Draws) -> Tensor:
        """Draw one subject for each of `draws.subjects`: (S, *code_shape); EG3D's `ws` are (S, num_ws, 512)."""

    @abstractmethod
    def scene(self, codes: Tensor) -> Scene:
        """All that `render` reads besides cameras and weights, each (S, ...): planes, and `ws` if SR reads it."""

    @abstractmethod
    def render(self, scene: Scene, cameras: Cameras, *, upto: Stage = "image", draws: Draws | None = None) -> Render:
        """Render each subject from its own V cameras.

        Args:
            scene: as returned by `scene`, S subjects.
            cameras: (S, V), in the canonical world.
            upto: "raw" stops before super-resolution (the grid needs no more).
            draws: jitter of the samples along the rays; None for none. Equal draws give an equal picture, and every
                view of a call sees the same: a view is what it is alone.
        Raises:
            ShapeError: if `scene` and `cameras` disagree on S.
        """

    @abstractmethod
    def trainable(self, group: str = "default") -> dict[str, nn.Parameter]:
        """The parameters that a run trains, by their names in `state_dict`.

        A group may add parameters, as low-rank changes of a weight, that leave every picture as it was bit for bit.

        Raises:
            UnknownNameError: if there is no such group.
        """

    def rate(self, name: str) -> float:
        """Factor of the learning rate of a trained parameter, above 0; a decoder under a new layer may want less."""
        return 1.0

    def codes_of_seeds(self, seeds: Sequence[int]) -> Tensor:
        """The subjects that users know by these numbers: (S, *code_shape), each independent of the others."""
        return torch.cat([self.sample_codes(Draws(seed, 0, (0,), "seed/")) for seed in seeds])


class AnySize(ABC):
    """A capability of a backbone: its raw picture at any size, as volume rendering allows.

    A view whose raw picture is looked at in a small tile need not be rendered larger.
    """

    @abstractmethod
    def render_raw(self, scene: Scene, cameras: Cameras, size: int, *, draws: Draws | None = None) -> Render:
        """`Renderer.render` with upto="raw", its pictures `size` pixels on a side."""


class Thrifty(ABC):
    """A capability of a backbone: it can keep less for its backward and compute that twice instead."""

    low_memory: bool  # may be set at any time; pictures and gradients are the same


StylePart = Literal["geometry", "texture"]


class Parted(ABC):
    """A capability of a backbone: it tells what shapes a subject from what colours it, so that both can be mixed."""

    @abstractmethod
    def part_of(self, name: str) -> StylePart:
        """What a parameter, by its name in `state_dict`, mostly decides."""


class Folding(ABC):
    """A capability of a backbone whose training groups add parameters, as low-rank changes of its weights.

    Changes of two runs can be mixed as weights, not as factors: a product of sums is not the sum of products.
    """

    @abstractmethod
    def folded(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Trained tensors as those of the backbone before a group added any.

        Args:
            tensors: by their names after `trainable` of their group, which need not have been called on this one.
        Returns:
            each factor pair as the whole weight that it makes, by the weight's name before; the others as they are.
        """


def example(scene: Scene) -> Tensor:
    """An entry of floating numbers: cameras and points of this scene take its device and dtype."""
    return next(entry for entry in scene.values() if entry.is_floating_point())


class Field(ABC):
    """A capability of a backbone: what there is at any point, so that a surface can be taken out of it."""

    box_side: float  # of the cube around the origin that holds the subject, world units
    surface_density: float  # per world unit: what is denser counts as inside

    @abstractmethod
    def query(self, scene: Scene, points: Tensor) -> tuple[Tensor, Tensor]:
        """The field that `render` sees.

        Args:
            scene: as returned by `scene`, S subjects.
            points: (S, N, 3), in the canonical world.
        Returns:
            density (S, N) per world unit, not negative, and colours (S, N, 3), nominally in [-1, 1].
        """


class FromPhotos(ABC):
    """A capability of a backbone: its subjects are photographs."""

    @abstractmethod
    def codes_of_photos(self, paths: Sequence[Path]) -> Tensor:
        """The subjects in these picture files: (S, *code_shape), each independent of the others.

        Nothing that is trained acts here, as before `scene` anywhere.

        Raises:
            ConfigError: for a file that is missing, or is no picture that this backbone can read.
        """


def frozen_copy(renderer: Renderer, trained: Collection[Tensor]) -> Renderer:
    """The reference of a run: copies what is trained, shares every other parameter and every buffer.

    What is shared no longer requires grad, in the original either.
    """
    own = {id(p) for p in trained}
    shared = {id(t): t for t in [*renderer.parameters(), *renderer.buffers()] if id(t) not in own}
    return copy.deepcopy(renderer, memo=shared).requires_grad_(False)
