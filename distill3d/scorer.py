"""What a diffusion model is to the objectives: pictures to latents, noised latents to noise predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from distill3d.cameras import Cameras
from distill3d.licences import Part
from distill3d.schedule import Schedule

Condition = Any  # opaque: whatever the scorer's own `condition` made; only that scorer reads it

NO_CONTROLS: Mapping[str, Tensor] = {}


class Scorer(nn.Module, ABC):
    """A text-conditioned denoiser with its image encoder, frozen.

    Whatever the checkpoint predicts (noise, velocity, flow) becomes a noise prediction here, once. Float32 goes in and
    comes out; inside, a scorer computes in its own dtype.
    """

    image_size: int
    latent_size: int
    latent_channels: int
    schedule: Schedule
    controls: tuple[str, ...] = ()  # the control pictures it understands, such as "depth"
    grid_words: str = ""  # what captions of 2x2 grids of views were taught to say; most models know no such words
    weights_licence: str = "unknown"
    weights_name: str = ""  # what others can get its weights by: a Hub id, or the name of a folder; "" for neither
    other_weights: tuple[Part, ...] = ()  # that it reads beside those: ControlNets, a tiny autoencoder

    @property
    def parts(self) -> tuple[Part, ...]:
        """Whose weights it reads."""
        return Part("scorer", self.weights_name, self.weights_licence), *self.other_weights

    @abstractmethod
    def condition(
        self,
        prompts: Sequence[str],
        *,
        controls: Mapping[str, Tensor] = NO_CONTROLS,
        image: Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> Condition:
        """What a branch of the prediction is conditioned on.

        Args:
            prompts: B texts, one for each picture; "" is the empty prompt. Text is embedded once and cached.
            controls: pictures (B, 3, H, W) in [0, 1] by name, of `image_size`.
            image: (B, 3, H, W) in [-1, 1] that an editing model looks at.
            cameras: for multi-view models.
        Raises:
            ConfigError: for a control, image or camera that this scorer cannot use.
        """

    @abstractmethod
    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), differentiable.

        `noise`, of the latents' shape, samples the posterior; None takes its mean.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) to images (B, 3, H, W) in about [-1, 1]."""

    @abstractmethod
    def predict_noise(self, noisy: Tensor, timestep: Tensor, conditions: Mapping[str, Condition]) -> dict[str, Tensor]:
        """The noise prediction of every branch, in one batched pass.

        Args:
            noisy: (B, C, h, w), shared by the branches.
            timestep: (B,) int64.
            conditions: branch name to what `condition` returned.
        """

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of the prompt that this scorer was never taught. A full-size text encoder knows them all."""
        return []


@dataclass(frozen=True)
class Economy:
    """What a scorer does to need less memory. Nothing of it changes what comes out, but for the last bits."""

    recompute_encoder: bool = False  # activations of `encode` are computed again in its backward, picture by picture
    sliced_decoder: bool = False  # `decode` takes one picture at a time
    branches_apart: bool = False  # `predict_noise` takes one branch at a time
    offload: bool = False  # weights that are not in use wait in main memory


class Economical(ABC):
    """A capability of a scorer: to spend time in order to save memory."""

    economy: Economy = Economy()  # as it is now

    @abstractmethod
    def economise(self, economy: Economy) -> None:
        """From now on do this, and only this. Called when the scorer is where it stays: on its device, in its dtype."""


def encode_at_unit_scale(scorer: Scorer, images: Tensor, noise: Tensor | None = None) -> Tensor:
    """`scorer.encode`, with a backward that runs at RMS 1 per picture.

    Score gradients of 1e-4 and less would underflow in a half-precision encoder. The gradient on the latents is
    divided by its RMS before the encoder's backward, and the gradient on the images multiplied by it after.
    """
    inside, rms = images * 1, []  # a node of its own, whose gradient the second hook may change
    latents = scorer.encode(inside, noise).to(images)

    def down(gradient: Tensor) -> Tensor:
        rms.append(gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-30))
        return gradient / rms[-1]

    if latents.requires_grad:
        latents.register_hook(down)
        inside.register_hook(lambda gradient: gradient * rms.pop())
    return latents
