"""A backbone of coloured balls, and a scorer that knows colours by name: a plugin as small as it can be."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from distill3d.cameras import Cameras
from distill3d.draws import Draws
from distill3d.errors import ConfigError, PromptError, ShapeError, UnknownNameError
from distill3d.renderer import Render, Renderer, RunDefaults, Scene, Stage
from distill3d.schedule import Schedule
from distill3d.scorer import Scorer
from distill3d.volume import pixel_rays

COLOURS = {"red": (0.9, -0.7, -0.7), "green": (-0.7, 0.6, -0.6), "blue": (-0.7, -0.5, 0.9), "gold": (0.8, 0.5, -0.6)}


class Sphere(Renderer):
    """One ball per subject; its colour is linear in the surface normal, so every side looks different."""

    code_shape, raw_size, image_size = (4,), 32, 32
    weights_licence = "Apache-2.0"
    defaults = RunDefaults(scorer="colour", steps=60, lr=0.2, batch=4)

    def __init__(self) -> None:
        super().__init__()
        self.paint, self.swell = nn.Linear(4, 3 * 4), nn.Linear(4, 1)

    def sample_codes(self, draws: Draws) -> Tensor:
        return draws.normal("codes", *self.code_shape).to(self.paint.weight)

    def scene(self, codes: Tensor) -> Scene:
        return {"paint": self.paint(codes).view(-1, 3, 4), "radius": 0.16 + 0.1 * torch.sigmoid(self.swell(codes))}

    def render(self, scene: Scene, cameras: Cameras, *, upto: Stage = "image", draws: Draws | None = None) -> Render:
        subjects, views = cameras.cam2world.shape[:2]
        if len(scene["radius"]) != subjects:
            raise ShapeError(f"A scene of {len(scene['radius'])} subjects, but cameras for {subjects}.")
        origin, direction = pixel_rays(cameras.to(scene["radius"]), self.raw_size, self.raw_size)  # (S, V, n*n, 3)
        middle = -(origin * direction).sum(-1, keepdim=True)  # distance to the ray's point nearest to the centre
        offset = (origin + middle * direction).square().sum(-1, keepdim=True)
        inside = scene["radius"].view(-1, 1, 1, 1) ** 2 - offset
        opacity = torch.sigmoid(inside / 0.002)  # a soft edge: the radius gets a gradient
        depth = middle - inside.clamp(min=1e-6).sqrt()
        normal = F.normalize(origin + depth * direction, dim=-1)
        paint = scene["paint"][:, None]  # (S, 1, 3, 4)
        colour = torch.tanh(normal @ paint[..., :3].transpose(-1, -2) + paint[..., None, :, 3])
        values = torch.cat([opacity * colour, depth, opacity], -1).transpose(-1, -2)  # the background is 0, mid-grey
        raw, depth, opacity = values.view(subjects, views, 5, self.raw_size, self.raw_size).split([3, 1, 1], 2)
        return Render(raw, depth, opacity, raw if upto == "image" else None)  # no super-resolution

    def trainable(self, group: str = "default") -> dict[str, nn.Parameter]:
        if group != "default":
            raise UnknownNameError("training group", group, ["default"])
        return dict(self.named_parameters())


class Colour(Scorer):
    """A prompt's pictures are Gaussian around the colour it names, so the score has a closed form."""

    image_size, latent_size, latent_channels = 32, 8, 3
    weights_licence = "Apache-2.0"
    schedule = Schedule.scaled_linear()

    def condition(self, prompts: Sequence[str], **others: object) -> Tensor:
        """(B, 4, 1, 1): mean colour and variance; the empty prompt allows every colour."""
        if others.get("controls") or others.get("image") is not None or others.get("cameras") is not None:
            raise ConfigError("The scorer 'colour' takes prompts and nothing else.")
        if unknown := [prompt for prompt in prompts if prompt and self.unknown_words(prompt)]:
            raise PromptError(f"The prompt {unknown[0]!r} names no colour. Known: {', '.join(COLOURS)}.")
        named = [next((COLOURS[word] for word in p.lower().split() if word in COLOURS), None) for p in prompts]
        return torch.tensor([(*rgb, 0.05) if rgb else (0.0, 0.0, 0.0, 1.0) for rgb in named])[..., None, None]

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        latents = F.avg_pool2d(images, self.image_size // self.latent_size)
        return latents if noise is None else latents + 0.05 * noise

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents, scale_factor=self.image_size // self.latent_size, mode="bilinear")

    def predict_noise(self, noisy: Tensor, timestep: Tensor, conditions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        signal, noise = self.schedule.signal(timestep).to(noisy), self.schedule.noise(timestep).to(noisy)
        given = {name: condition.to(noisy).split([3, 1], 1) for name, condition in conditions.items()}
        # x_t ~ N(signal mean, signal^2 variance + noise^2), and the noise prediction is -noise * score
        return {n: noise * (noisy - signal * mean) / (signal**2 * var + noise**2) for n, (mean, var) in given.items()}

    def unknown_words(self, prompt: str) -> list[str]:
        words = prompt.lower().split()
        return [] if set(words) & set(COLOURS) else words


def load_sphere(weights: str | None = None, device: str = "cpu") -> Sphere:
    """Random weights, or those of a safetensors file."""
    renderer, draw = Sphere(), torch.Generator().manual_seed(0)
    for parameter in renderer.parameters():
        parameter.data.normal_(0, 0.4, generator=draw)
    if weights is not None:
        renderer.load_state_dict(load_file(weights))
    return renderer.to(device).eval()


def load_colour(weights: str | None = None, device: str = "cpu") -> Colour:
    return Colour().to(device).eval()
