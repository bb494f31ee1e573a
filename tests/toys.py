"""A backbone of a few lines with enough structure to break a wrong trainer."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from distill3d.cameras import CameraPrior
from distill3d.errors import ConfigError, UnknownNameError
from distill3d.methods import Method
from distill3d.objectives import LDLoss
from distill3d.objectives.denoising import Denoising, pick
from distill3d.objectives.term import Weighted
from distill3d.objectives.terms import ScoreTerm
from distill3d.renderer import AnySize, Field, FromPhotos, Render, Renderer, RunDefaults
from distill3d.views import Single, View, fit

AROUND = CameraPrior(yaw=180)
FRONT = CameraPrior(yaw=50)


class ToyTriplane(Renderer):
    """A frozen mapping, a scene entry (`ws`) with no path to trained weights, planes, a modulated super-resolution."""

    def __init__(self, *, raw_size=8, samples=6, num_ws=3, width=8, channels=6, plane=8):
        super().__init__()
        self.raw_size, self.image_size, self.samples = raw_size, 2 * raw_size, samples
        self.code_shape, self.channels, self.plane = (num_ws, width), channels, plane
        self.defaults = RunDefaults(scorer="gaussian", steps=4, lr=1e-3, batch=2, front=FRONT, around=AROUND)
        self.mapping = nn.Linear(width, width)
        self.layers = nn.ModuleList(nn.Linear(width, 3 * channels * plane**2) for _ in range(num_ws))
        self.decoder = nn.Linear(channels, 1 + 3)
        self.modulate = nn.Linear(width, 3)
        self.superres = nn.Conv2d(3, 3, 3, padding=1)

    def sample_codes(self, draws):
        return draws.normal("codes", *self.code_shape).to(self.decoder.weight)

    def scene(self, codes):
        ws = self.mapping(codes)
        planes = torch.stack([torch.tanh(layer(ws[:, i])) for i, layer in enumerate(self.layers)]).sum(0)
        return {"planes": planes.view(-1, 3, self.channels, self.plane, self.plane), "ws": ws}

    def render(self, scene, cameras, *, upto="image", draws=None):
        planes, cameras = scene["planes"], cameras.to(scene["planes"])
        jitter = None if draws is None else draws.uniform("jitter", 1, self.raw_size**2, self.samples)
        colour, depth, opacity = self._march(planes, cameras, jitter)
        raw = torch.tanh(colour)
        if upto == "raw":
            return Render(raw, depth, opacity)
        style = 1 + self.modulate(scene["ws"][:, -1])
        large = fit(raw, self.image_size) * style[:, None, :, None, None]
        image = torch.tanh(self.superres(large.flatten(0, 1)).unflatten(0, raw.shape[:2]))
        return Render(raw, depth, opacity, image)

    def _march(self, planes: Tensor, cameras, jitter):
        size = self.raw_size
        s, v = cameras.cam2world.shape[:2]
        at = (torch.arange(size).to(planes) + 0.5) / size
        pixel = torch.stack([at.expand(size, size), at[:, None].expand(size, size), torch.ones(size, size).to(at)], -1)
        inverse = torch.linalg.inv(cameras.intrinsics) @ pixel.view(-1, 3).T
        ray = F.normalize((cameras.cam2world[..., :3, :3] @ inverse).transpose(-1, -2), dim=-1)
        step = 2.0 / self.samples
        t = 1.7 + step * (torch.arange(self.samples).to(planes) + (0.5 if jitter is None else jitter.to(planes)))
        t = t.expand(s, v, size * size, self.samples)
        points = cameras.cam2world[..., None, None, :3, 3] + ray[..., None, :] * t[..., None]
        density, colour = (x.view(*points.shape[:-1], -1) for x in self._look_up(planes, points.flatten(1, 2)))
        alpha = 1 - torch.exp(-density * step)
        through = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1, :]), 1 - alpha[..., :-1, :]], -2), -2)
        weight = alpha * through
        as_picture = lambda x: x.transpose(-1, -2).unflatten(-1, (size, size))  # noqa: E731
        depth = (weight * t[..., None]).sum(-2) + (1 - weight.sum(-2)) * 3.7
        return as_picture((weight * colour).sum(-2)), as_picture(depth), as_picture(weight.sum(-2))

    def _look_up(self, planes: Tensor, points: Tensor):
        """Density (S, n, m, 1) and colours (S, n, m, 3) at points (S, n, m, 3)."""
        points = 2 * points
        grids = torch.stack([points[..., [0, 1]], points[..., [0, 2]], points[..., [2, 1]]], 1)
        sampled = F.grid_sample(planes.flatten(0, 1), grids.flatten(0, 1), align_corners=False)
        sampled = sampled.unflatten(0, (len(points), 3)).sum(1)
        density, colour = self.decoder(sampled.movedim(1, -1)).split([1, 3], -1)
        return F.softplus(density), colour

    def trainable(self, group="default"):
        groups = {"default": ("layers", "decoder", "modulate", "superres"), "all": ("",)}
        if group not in groups:
            raise UnknownNameError("training group", group, groups)
        return {n: p for n, p in self.named_parameters() if n.startswith(groups[group])}


def toy(seed=0, dtype=torch.float64, **options) -> ToyTriplane:
    torch.manual_seed(seed)
    return ToyTriplane(**options).to(dtype)


def single_view_method(scorer, views=1, stage="image", **changes) -> Method:
    """One LD term for each of `views` views."""
    terms = {}
    for i in range(views):
        recipe = Denoising(scorer, Single(View(f"v{i}", AROUND)), {"prompt": "a", "empty": ""}, pick([300]), stage)
        terms[f"v{i}"] = Weighted(1.0, ScoreTerm(recipe, LDLoss(scorer, **changes)))
    return Method(terms)


def load_toy(weights=None, device="cpu") -> ToyTriplane:
    """The toy as a plugin would offer it."""
    return toy(seed=1, dtype=torch.float32).to(device)


class SlowDecoderToy(ToyTriplane):
    """The toy with a decoder that learns at a tenth of the learning rate."""

    def rate(self, name):
        return 0.1 if name.startswith("decoder") else 1.0


class PhotoToy(ToyTriplane, FromPhotos, Field):
    """The toy whose subjects are photographs: their colours, shrunk to few numbers, are the codes."""

    box_side, surface_density = 1.0, 0.7

    def codes_of_photos(self, paths):
        num_ws, width = self.code_shape
        assert num_ws == 3  # a number for each colour
        return torch.stack([self._read(path, width) for path in paths]).to(self.decoder.weight)

    @staticmethod
    def _read(path, width):
        try:
            with Image.open(path) as picture:
                small = picture.convert("RGB").resize((width, 1), Image.Resampling.BOX)
        except OSError as error:
            raise ConfigError(f"{path} is no picture that can be read.") from error
        return torch.tensor(list(small.tobytes())).view(width, 3).T / 127.5 - 1

    def query(self, scene, points):
        density, colours = self._look_up(scene["planes"], points[:, :, None])
        return density[:, :, 0, 0], torch.tanh(colours[:, :, 0])


def load_photo_toy(weights=None, device="cpu", *, subjects: Sequence[str] = ()) -> PhotoToy:
    """The toy that reads photographs, as a plugin would offer it."""
    if any(not Path(place).exists() for place in subjects):
        raise ConfigError(f"There are no subjects at {subjects}.")
    torch.manual_seed(1)
    return PhotoToy().to(device)


class AnySizeToy(ToyTriplane, AnySize):
    """The toy with the capability of a raw picture at any size."""

    def render_raw(self, scene, cameras, size, *, draws=None):
        own, self.raw_size = self.raw_size, size
        try:
            return self.render(scene, cameras, upto="raw", draws=draws)
        finally:
            self.raw_size = own
