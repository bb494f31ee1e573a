"""The contract: good toys keep it, and every toy that breaks one promise is told which."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from distill3d.cameras import Cameras
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError, UnknownNameError
from distill3d.renderer import Folding, FromPhotos, Parted, Render, Renderer
from distill3d.schedule import Schedule
from distill3d.scorer import Scorer
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.testing import ContractError, check_renderer, check_scorer
from distill3d.tiny.generator import WEIGHTS, TinyTriplane, load_tiny
from distill3d.volume import pixel_rays

PROMPTS = ("red", "blue")


class Ball(Renderer):
    """A coloured ball with EG3D's skeleton: a frozen mapping, a scene of two tensors, a super-resolution."""

    code_shape, raw_size, image_size = (4,), 16, 32

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.mapping, self.paint, self.swell = nn.Linear(4, 4), nn.Linear(4, 12), nn.Linear(4, 1)
        self.modulate, self.superres = nn.Linear(4, 3), nn.Conv2d(3, 3, 3, padding=1)
        self.register_buffer("calls", torch.zeros(()))
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.4, generator=draw)

    def sample_codes(self, draws):
        return draws.normal("codes", 4).to(self.paint.weight)

    def scene(self, codes):
        w = self.mapping(codes)
        radius = 0.18 + 0.08 * torch.sigmoid(self.swell(w))
        return {"paint": self.paint(w).view(-1, 3, 4), "radius": radius, "w": w}

    def render(self, scene, cameras, *, upto="image", draws=None):
        self.check(scene, cameras)
        cameras = cameras.to(scene["radius"])
        origin, direction = pixel_rays(cameras, self.raw_size, self.raw_size)
        middle = -(origin * direction).sum(-1, keepdim=True)
        offset = (origin + middle * direction).square().sum(-1, keepdim=True)
        inside = scene["radius"].view(-1, 1, 1, 1) ** 2 - offset
        if draws is not None:
            jitter = draws.uniform("jitter", 1, self.raw_size**2, 1)
            inside = inside + 0.002 * jitter.to(inside)
        opacity = torch.sigmoid(inside / 0.002)
        depth = middle - inside.clamp(min=1e-6).sqrt()
        normal = F.normalize(origin + depth * direction, dim=-1)
        paint = scene["paint"][:, None]
        colour = torch.tanh(normal @ paint[..., :3].transpose(-1, -2) + paint[..., None, :, 3])
        values = torch.cat([opacity * colour, depth, opacity], -1).transpose(-1, -2)
        values = values.unflatten(-1, (self.raw_size, self.raw_size))
        raw, depth, opacity = values.split([3, 1, 1], 2)
        return Render(raw, depth, opacity, self.enlarge(raw, scene) if upto == "image" else None)

    def check(self, scene, cameras):
        if len(scene["radius"]) != len(cameras.cam2world):
            raise ShapeError("The scene and the cameras disagree on the number of subjects.")

    def enlarge(self, raw, scene):
        large = F.interpolate(raw.flatten(0, 1), scale_factor=2, mode="bilinear").unflatten(0, raw.shape[:2])
        styled = large * (1 + self.modulate(scene["w"]))[:, None, :, None, None]
        return torch.tanh(self.superres(styled.flatten(0, 1))).unflatten(0, raw.shape[:2])

    def trainable(self, group="default"):
        if group != "default":
            raise UnknownNameError("training group", group, ["default"])
        return {name: p for name, p in self.named_parameters() if not name.startswith("mapping")}


class PhotoBall(Ball, FromPhotos):
    """A ball of a picture's mean colour and opacity."""

    def codes_of_photos(self, paths):
        return torch.stack([self.read(path) for path in paths])

    def read(self, path):
        try:
            mean = Image.open(path).convert("RGBA").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        except OSError as error:
            raise ConfigError(f"{path} is no picture.") from error
        return torch.tensor(mean).to(self.paint.weight) / 127.5 - 1


class MixedBall(Ball, Parted, Folding):
    """A ball whose paint is trained as a change of rank 1, added when it is asked for, and whose parts are known."""

    def __init__(self):
        super().__init__()
        self.factors = None

    def trainable(self, group="default"):
        super().trainable(group)
        if self.factors is None:
            self.factors = nn.ParameterList([torch.zeros(12, 1), torch.ones(1, 4)])
        return {
            "swell.weight": self.swell.weight,
            **{f"factors.{i}": parameter for i, parameter in enumerate(self.factors)},
        }

    def scene(self, codes):
        scene = super().scene(codes)
        if self.factors is None:
            return scene
        up, down = self.factors
        return {**scene, "paint": scene["paint"] + F.linear(scene["w"], up @ down).view(-1, 3, 4)}

    def part_of(self, name):
        return "geometry" if name.startswith("swell") else "texture"

    def folded(self, tensors):
        others = {name: value for name, value in tensors.items() if not name.startswith("factors")}
        return {**others, "paint.weight": self.paint.weight.detach() + tensors["factors.0"] @ tensors["factors.1"]}


def ignoring_factors(self, tensors):
    return {**MixedBall.folded(self, tensors), "paint.weight": self.paint.weight.detach()}


BROKEN_PARTS = {
    "a third part": ({"part_of": lambda self, name: "hair"}, r"part_of\('swell.weight'\): expected 'geometry' or"),
    "no part": ({"part_of": lambda self, name: None}, r"part_of\('swell.weight'\): expected 'geometry' or"),
    "no tensors": ({"folded": lambda self, tensors: {}}, r"folded\(trainable\(\)\): expected at least one"),
    "a change already": (
        {"folded": lambda self, tensors: {n: v * 1.1 for n, v in MixedBall.folded(self, tensors).items()}},
        "expected the weight as it is, bit for bit",
    ),
    "factors left out": ({"folded": ignoring_factors}, "expected changed weights, got the same for paint.weight"),
    "another name each time": (
        {"folded": lambda self, t: {f"{n}{float(v.sum())}": v for n, v in MixedBall.folded(self, t).items()}},
        "expected the same names",
    ),
}


def refuse_all(self, path):
    raise ConfigError("Too small.")


BROKEN_PHOTOS = {
    "a row for each": ({"codes_of_photos": lambda self, paths: self.read(paths[0])}, "shape"),
    "asked again": ({"codes_of_photos": lambda self, paths: torch.randn(len(paths), 4)}, "asked again"),
    "alone": (
        {"codes_of_photos": lambda self, paths: torch.stack(c := [self.read(p) for p in paths]) + len(c)},
        "second picture's alone",
    ),
    "unread": ({"read": lambda self, path: self.paint.weight[0] + ord(path.name[0])}, "a missing file"),
    "one for all": (
        {"codes_of_photos": lambda self, paths: torch.stack([PhotoBall.read(self, p) for p in paths]) * 0},
        "different subjects",
    ),
    "another error": ({"read": lambda self, path: torch.tensor(Image.open(path).getpixel((30, 48))) / 255}, "NotFound"),
}


class Changed(Ball):
    """A ball whose pictures are changed after rendering."""

    def render(self, scene, cameras, *, upto="image", draws=None):
        return self.change(super().render(scene, cameras, upto=upto, draws=draws), upto)


class Looking(Ball):
    """A ball that understands its cameras in its own way."""

    def render(self, scene, cameras, *, upto="image", draws=None):
        return super().render(scene, self.understand(cameras), upto=upto, draws=draws)


def with_pose(*diagonal):
    def understand(self, cameras):
        flip = torch.diag(cameras.cam2world.new_tensor(diagonal))
        return Cameras(flip @ cameras.cam2world @ flip, cameras.intrinsics)

    return understand


def without_lens(self, cameras):
    lens = torch.tensor([[4.2647, 0, 0.5], [0, 4.2647, 0.5], [0, 0, 1]])
    return Cameras(cameras.cam2world, lens.to(cameras.intrinsics).expand_as(cameras.intrinsics))


def without_focal(self, cameras):
    lens = cameras.intrinsics.clone()
    lens[..., 0, 0] = lens[..., 1, 1] = 4.2647
    return Cameras(cameras.cam2world, lens)


def without_pose(self, cameras):
    front = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]]).to(cameras.cam2world)
    return Cameras(front.expand_as(cameras.cam2world), cameras.intrinsics)


def from_one_distance(self, cameras):
    pose = cameras.cam2world.clone()
    pose[..., :3, 3] = 2.7 * F.normalize(pose[..., :3, 3], dim=-1)
    return Cameras(pose, cameras.intrinsics)


class ByBatch(Ball):
    def sample_codes(self, draws):
        generator = torch.Generator().manual_seed(draws.seed)
        return torch.randn(len(draws.subjects), 4, generator=generator)


class OnlyOne(Ball):
    def sample_codes(self, draws):
        return torch.ones(len(draws.subjects), 4)


class WithCallCount(Ball):
    def scene(self, codes):
        self.calls += 1
        return super().scene(codes)


class TrainedBeforeScene(Ball):
    def sample_codes(self, draws):
        return self.swell(draws.normal("codes", 4)).expand(-1, 4)

    def codes_of_seeds(self, seeds):
        return torch.cat([self.sample_codes(Draws(seed, 0, (0,))) for seed in seeds])


class SeedsByPlace(Ball):
    def codes_of_seeds(self, seeds):
        return self.sample_codes(Draws(0, 0, tuple(range(len(seeds)))))


class SharedEntry(Ball):
    def scene(self, codes):
        return {**super().scene(codes), "table": self.paint.weight[:1]}


class Leaking(Ball):
    def scene(self, codes):
        return super().scene(codes - codes.mean(0))


class NormalisedOverViews(Changed):
    def change(self, pictures, upto):
        return replace(pictures, raw=pictures.raw - pictures.raw.mean(1, keepdim=True))


class Unseeded(Changed):
    def change(self, pictures, upto):
        return replace(pictures, raw=pictures.raw + 0.01 * torch.rand_like(pictures.raw))


class Broadcasting(Ball):
    def check(self, scene, cameras):
        pass


class WithDeadWeight(Ball):
    def __init__(self):
        super().__init__()
        self.forgotten = nn.Parameter(torch.ones(3))


class WithHiddenLeaf(Ball):
    def __init__(self):
        super().__init__()
        self.hidden = [torch.ones((), requires_grad=True)]

    def scene(self, codes):
        scene = super().scene(codes)
        return {**scene, "paint": scene["paint"] * self.hidden[0]}

    def __deepcopy__(self, memo):
        raise NotImplementedError


class ReadsItsOwnNotes(Ball):
    def scene(self, codes):
        scene = super().scene(codes)
        self.__dict__["note"] = scene["paint"].tanh()
        return scene

    def enlarge(self, raw, scene):
        return super().enlarge(raw, scene) + 0.1 * self.note.mean() * self.note.mean()


class BoundToItself(Ball):
    def __init__(self):
        super().__init__()
        paint, swell, modulate, superres = self.paint, self.swell, self.modulate, self.superres
        self.scene_of = lambda w: {
            "paint": paint(w).view(-1, 3, 4),
            "radius": 0.18 + 0.08 * torch.sigmoid(swell(w)),
            "w": w,
        }
        self.large_of = lambda x, w: torch.tanh(superres(x * (1 + modulate(w))[:, :, None, None]))

    def scene(self, codes):
        return self.scene_of(self.mapping(codes))

    def enlarge(self, raw, scene):
        large = F.interpolate(raw.flatten(0, 1), scale_factor=2)
        w = scene["w"].repeat_interleave(raw.shape[1], 0)
        return self.large_of(large, w).unflatten(0, raw.shape[:2])


class SlopeOfZero(Changed):
    def change(self, pictures, upto):
        return replace(pictures, raw=pictures.raw + (0 * pictures.raw.sum()).sqrt())


class WithAnyGroup(Ball):
    def trainable(self, group="default"):
        return super().trainable()


class WithOtherNames(Ball):
    def trainable(self, group="default"):
        return {f"module.{name}": p for name, p in super().trainable(group).items()}


def changing(base, **methods):
    """A toy with these methods or attributes replaced."""
    return type("Broken", (base,), methods)


def painted(**how):
    def change(self, pictures, upto):
        changed = {name: f(getattr(pictures, name)) for name, f in how.items() if getattr(pictures, name) is not None}
        return replace(pictures, **changed)

    return changing(Changed, change=change)


class BrokenField(TinyTriplane):
    """The embedded generator, whose field is asked at points that are changed first, or whose density is changed."""

    def change(self, points):
        return points

    def densities(self, density):
        return density

    def query(self, scene, points):
        density, colours = super().query(scene, self.change(points))
        return self.densities(density), colours


def field(**changes):
    """A loader of the embedded generator with a broken field."""

    def load():
        renderer = load_tiny()
        renderer.__class__ = type("Changed", (BrokenField,), {k: staticmethod(v) for k, v in changes.items()})
        return renderer

    return load


BROKEN_FIELDS = {
    "points flipped": (field(change=lambda points: points * torch.tensor([1.0, -1.0, 1.0])), "query along the rays"),
    "points in another unit": (field(change=lambda points: 2 * points), "query along the rays"),
    "points moved": (field(change=lambda points: points + 0.1), "query along the rays"),
    "fog": (field(densities=lambda density: density + 8), "query along the rays"),
    "a raw density": (field(densities=lambda density: density - 1), "densities of at least 0"),
    "densities with a channel": (field(densities=lambda density: density[..., None]), r"query\(\)\[0\]"),
}


@pytest.mark.parametrize("name", BROKEN_FIELDS)
def test_each_broken_field_is_caught(name):
    load, said = BROKEN_FIELDS[name]
    with pytest.raises(ContractError, match=said):
        check_renderer(load())


BROKEN_RENDERERS = {
    "no declared code_shape": (changing(Ball, code_shape=4), "code_shape: expected a tuple"),
    "image smaller than raw": (changing(Ball, image_size=8), "image_size: expected at least raw_size"),
    "codes of another shape": (changing(Ball, code_shape=(5,)), r"sample_codes: expected shape \(2, 5\)"),
    "codes drawn by batch": (ByBatch, "sample_codes with its subjects permuted"),
    "one subject only": (OnlyOne, "sample_codes: expected different subjects"),
    "trained before the scene": (TrainedBeforeScene, "sample_codes: expected codes without a graph"),
    "seeds by place": (SeedsByPlace, r"codes_of_seeds\(\[3, 5\]\)\[1\]"),
    "a scene entry without subjects": (SharedEntry, r"scene\['table'\]: expected first dimension 2, got 1"),
    "subjects that leak": (Leaking, r"scene\['paint'\] of one subject alone"),
    "views that leak": (NormalisedOverViews, r"render\(\).raw of camera 0 alone"),
    "colours to 255": (painted(image=lambda x: 127.5 * (x + 1)), r"render\(\).image: expected colours in \[-1, 1\]"),
    "colours to 1": (painted(image=lambda x: (x + 1) / 2), r"looks like \[0, 1\]"),
    "opacity above 1": (painted(opacity=lambda x: 1.2 * x), r"render\(\).opacity: expected values in \[0, 1\]"),
    "depth behind": (painted(depth=lambda x: x - 3), r"render\(\).depth: expected distances above 0"),
    "a NaN": (painted(raw=lambda x: x / 0), r"render\(\).raw: expected finite numbers"),
    "another dtype": (painted(image=lambda x: x.double()), "image: expected torch.float32, got torch.float64"),
    "another size": (painted(depth=lambda x: x[..., :8]), r"render\(\).depth: expected shape \(2, 2, 1, 16, 16\)"),
    "an image at raw": (
        changing(Changed, change=lambda self, p, upto: replace(p, image=p.raw.repeat(1, 1, 1, 2, 2))),
        r'render\(upto="raw"\).image: expected None',
    ),
    "unkeyed noise": (Unseeded, r"render\(\).raw with draws=None: expected the same twice"),
    "cameras broadcast": (Broadcasting, "expected distill3d.errors.ShapeError, got a picture"),
    "yaw backwards": (changing(Looking, understand=with_pose(-1.0, 1, 1, 1)), "what yaw -0.3 would show"),
    "pitch backwards": (changing(Looking, understand=with_pose(1.0, -1, 1, 1)), "what pitch -0.3 would show"),
    "no pose": (changing(Looking, understand=without_pose), r"The picture from yaw \+0.3: expected another one"),
    "no lens": (changing(Looking, understand=without_lens), "did not move by that much"),
    "no focal length": (changing(Looking, understand=without_focal), "3 times the focal length"),
    "no distance": (changing(Looking, understand=from_one_distance), "The opacity's area from 1.2 times"),
    "a flipped picture": (painted(**dict.fromkeys(("raw", "depth", "opacity"), lambda x: x.flip(-1))), "moved left"),
    "an upturned picture": (painted(**dict.fromkeys(("raw", "depth", "opacity"), lambda x: x.flip(-2))), "moved up"),
    "depth in other units": (painted(depth=lambda x: 3 * x), "The depth of the subject"),
    "a counting buffer": (WithCallCount, "Weights and buffers after scene and render: expected unchanged.*calls"),
    "a dead weight": (WithDeadWeight, "a gradient for every tensor, got none for forgotten"),
    "a NaN gradient": (SlopeOfZero, r"gradients of trainable\(\"default\"\): expected finite"),
    "a hidden leaf": (WithHiddenLeaf, "with every parameter frozen: expected no graph"),
    "a side way to the scene": (ReadsItsOwnNotes, "reads no graph but"),
    "a copy bound to the original": (BoundToItself, "a copy whose trained weights changed"),
    "any group": (WithAnyGroup, r'trainable\("no such group"\): expected distill3d.errors.UnknownNameError'),
    "no text as a name": (changing(Ball, weights_name=None), "weights_name: expected text"),
    "names not of the state": (WithOtherNames, r"trainable\(\)\['module.paint.weight'\]"),
}


def test_a_good_backbone_keeps_every_promise_in_both_precisions():
    for renderer in (Ball(), Ball().double()):
        report = check_renderer(renderer)
        assert len(report.checks) == 21
        assert not report.skipped


@pytest.mark.parametrize("name", BROKEN_RENDERERS)
def test_a_broken_backbone_is_told_what_is_broken(name):
    broken, message = BROKEN_RENDERERS[name]
    with pytest.raises(ContractError, match=message) as caught:
        check_renderer(broken())
    assert str(caught.value).startswith(f"{broken.__name__}: ")
    assert "expected" in str(caught.value)


def test_a_backbone_that_reads_photographs_keeps_the_promise_of_that():
    report = check_renderer(PhotoBall())
    assert len(report.checks) == 22
    assert not report.skipped


@pytest.mark.parametrize("name", BROKEN_PHOTOS)
def test_each_broken_reader_of_photographs_is_caught(name):
    changes, said = BROKEN_PHOTOS[name]
    with pytest.raises(ContractError, match=said):
        check_renderer(type("Broken", (PhotoBall,), changes)())


def test_a_backbone_that_tells_parts_and_folds_changes_keeps_the_promises_of_that():
    renderer = MixedBall()
    for _ in range(2):  # the second time its group was added before
        report = check_renderer(renderer)
        assert len(report.checks) == 23
        assert not report.skipped


@pytest.mark.parametrize("name", BROKEN_PARTS)
def test_each_broken_word_on_weights_is_caught(name):
    changes, said = BROKEN_PARTS[name]
    with pytest.raises(ContractError, match=said):
        check_renderer(type("Broken", (MixedBall,), changes)())


def test_a_reader_that_refuses_the_made_up_picture_is_not_judged_by_it():
    report = check_renderer(type("Choosy", (PhotoBall,), {"read": refuse_all})())
    assert [check.note for check in report.skipped] == ["it refuses a made-up cut-out: Too small."]


def test_a_backbone_without_outline_skips_only_what_needs_one():
    filled = painted(opacity=torch.ones_like)
    filled.trainable = lambda self, group="default": Ball.trainable(self, group)
    report = check_renderer(filled())
    assert [check.promise[:24] for check in report.skipped] == ["A camera farther away se", "Positive yaw moves the c"]
    assert "fills the picture" in report.skipped[0].note


def test_checking_leaves_the_backbone_as_it_was():
    renderer = Ball()
    renderer.paint.weight.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in renderer.state_dict().items()}
    check_renderer(renderer)
    with pytest.raises(ContractError):
        check_renderer(counting := WithCallCount())
    assert counting.calls == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in renderer.state_dict().items())
    assert [name for name, p in renderer.named_parameters() if not p.requires_grad] == ["paint.weight"]
    assert all(p.grad is None for p in renderer.parameters())


class Patches(Scorer):
    """Latents are patches; every prompt has a Gaussian around a mean of its own, so the score is exact."""

    image_size, latent_size, latent_channels = 16, 8, 4
    controls = ("depth",)

    def __init__(self):
        super().__init__()
        self.schedule = Schedule.scaled_linear()
        draw = torch.Generator().manual_seed(0)
        self.vae = nn.Conv2d(3, 4, 2, stride=2)
        self.unvae = nn.ConvTranspose2d(4, 3, 2, stride=2)
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.5, generator=draw)
        self.requires_grad_(False)

    def condition(self, prompts, *, controls={}, image=None, cameras=None):  # noqa: B006
        self.check(controls)
        means = [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(sum(map(ord, p)))) for p in prompts]
        depth = sum(F.avg_pool2d(picture.mean(1, keepdim=True), 2) for picture in controls.values())
        return torch.stack(means).to(self.vae.weight) + depth

    def check(self, controls):
        if set(controls) - set(self.controls):
            raise ConfigError(f"No ControlNet for {', '.join(controls)}.")

    def encode(self, images, noise=None):
        mean = self.vae(images)
        return mean if noise is None else mean + 0.1 * noise

    def decode(self, latents):
        return self.unvae(latents)

    def predict_noise(self, noisy, timestep, conditions):
        signal, sigma = self.schedule.signal(timestep).to(noisy), self.schedule.noise(timestep).to(noisy)
        variance = 0.5 * signal**2 + sigma**2
        return {name: sigma * (noisy - signal * mean) / variance for name, mean in conditions.items()}


class Predicting(Patches):
    """A scorer whose predictions are changed."""

    def predict_noise(self, noisy, timestep, conditions):
        found = super().predict_noise(noisy, timestep, conditions)
        return self.change(found, noisy, timestep)


class Trained(Patches):
    def __init__(self):
        super().__init__()
        self.requires_grad_(True)


class WithSchedule(Patches):
    tables = (torch.linspace(0, 1, 10), torch.linspace(1, 0, 10))

    def __init__(self):
        super().__init__()
        self.schedule = Schedule(*(table.double() for table in self.tables))


class OneTimestep(Patches):
    def predict_noise(self, noisy, timestep, conditions):
        return super().predict_noise(noisy, timestep[:1].expand_as(timestep), conditions)


class OnePrompt(Patches):
    def condition(self, prompts, **others):
        return super().condition(["red"] * len(prompts), **others)


class FirstPrompt(Patches):
    def condition(self, prompts, **others):
        return super().condition([prompts[0]] * len(prompts), **others)


class Forgetful(Patches):
    def condition(self, prompts, **others):
        self.asked = getattr(self, "asked", 0) + 0.01
        return super().condition(prompts, **others) + self.asked


class SwappedBranches(Patches):
    def predict_noise(self, noisy, timestep, conditions):
        found = super().predict_noise(noisy, timestep, conditions)
        return dict(zip(found, reversed(found.values())))


class OfTheImage(Patches):
    def encode(self, images, noise=None):
        return self.encoded(super().encode(images, noise), noise)


def predicting(change):
    """A scorer whose dict of predictions is `change(found, noisy, timestep, schedule)`."""
    return changing(Predicting, change=lambda self, found, noisy, t: change(found, noisy, t, self.schedule))


def encoding(encoded):
    return changing(OfTheImage, encoded=lambda self, latents, noise: encoded(latents, noise))


def each(change):
    return predicting(lambda found, noisy, t, s: {name: change(p, noisy, t, s) for name, p in found.items()})


def velocity(prediction, noisy, t, schedule):
    clean = schedule.denoised(noisy, prediction, t)
    return schedule.signal(t).to(noisy) * prediction - schedule.noise(t).to(noisy) * clean


BROKEN_SCORERS = {
    "no latent_channels": (changing(Patches, latent_channels=None), "latent_channels: expected a positive integer"),
    "sizes that do not divide": (changing(Patches, latent_size=7), "latent_size: expected a divisor"),
    "a schedule backwards": (WithSchedule, "schedule.signals: expected falling"),
    "a schedule of neither kind": (
        changing(WithSchedule, tables=(torch.linspace(1, 0, 10), torch.linspace(0.0, 0.7, 10))),
        r"schedule: expected signal\^2 \+ noise\^2 = 1",
    ),
    "weights that are not frozen": (Trained, "none with requires_grad, got 4 that do, such as vae.weight"),
    "latents of another size": (encoding(lambda x, n: x[..., 1:]), r"encode: expected shape \(2, 4, 8, 8\)"),
    "latents in another dtype": (encoding(lambda x, n: x.double()), "latents of the pictures' dtype torch.float32"),
    "latents normalised over the batch": (encoding(lambda x, n: x - x.mean(0)), "encode of one picture alone"),
    "latents without a graph": (encoding(lambda x, n: x.detach()), "expected latents with a graph"),
    "a posterior that moves": (
        encoding(lambda x, n: x if n is None else x + 0.1),
        "encode with zero noise: expected the latents without noise",
    ),
    "pictures of another size": (
        changing(Patches, decode=lambda self, x: x[:, :3]),
        r"decode: expected shape \(2, 3, 16",
    ),
    "a missing branch": (
        predicting(lambda found, *others: dict([*found.items()][:1])),
        r"expected the branches 'first' and 'second', got \['first'\]",
    ),
    "swapped branches": (SwappedBranches, "predict_noise of one branch alone"),
    "branches that mix": (
        predicting(lambda found, *others: {n: p + 0.1 * sum(found.values()) for n, p in found.items()}),
        "predict_noise of one branch alone",
    ),
    "pictures that mix": (each(lambda p, *others: p - p.mean(0)), "predict_noise of one picture alone"),
    "one timestep for all": (OneTimestep, "predict_noise of picture 1 in a batch of two timesteps"),
    "one prompt for all": (OnePrompt, "for 'red' and 'blue': expected different predictions"),
    "the first prompt for all": (FirstPrompt, "expected each picture's own prompt followed"),
    "a text that drifts": (Forgetful, "one picture alone|equal prompt, conditioned on again"),
    "chance": (each(lambda p, *others: p + 0.01 * torch.randn_like(p)), r"\['first'\] twice"),
    "a graph": (each(lambda p, *others: p.clone().requires_grad_()), "expected predictions without a graph"),
    "any control": (
        changing(Patches, check=lambda self, controls: None),
        "with an unknown control: expected .*ConfigError",
    ),
    "a score": (each(lambda p, x, t, s: -p / s.noise(t).to(p)), r"-1.00 \(the sign is wrong: is it a score"),
    "a velocity": (each(velocity), r"is it a velocity or an x_0"),
    "a denoised picture": (each(lambda p, x, t, s: s.denoised(x, p, t)), r"is it a velocity or an x_0"),
    "ten times the noise": (each(lambda p, *others: 10 * p), "expected about the size of the noise"),
}


def test_a_good_scorer_keeps_every_promise_in_both_precisions():
    for scorer in (Patches(), Patches().double()):
        report = check_scorer(scorer, prompts=PROMPTS)
        assert len(report.checks) == 14
        assert not report.skipped


def test_a_flow_schedule_is_as_good_as_a_variance_preserving_one():
    flow = changing(WithSchedule, tables=(torch.linspace(0.999, 0.001, 99), torch.linspace(0.001, 0.999, 99)))
    assert not check_scorer(flow(), prompts=PROMPTS).skipped


def test_an_encoder_without_a_posterior_is_noted():
    report = check_scorer(
        changing(Patches, encode=lambda self, images, noise=None: self.vae(images))(), prompts=PROMPTS
    )
    assert [check.note for check in report.skipped] == ["noise changes nothing: the encoder has no posterior"]
    assert "skipped" in str(report)


@pytest.mark.parametrize("name", BROKEN_SCORERS)
def test_a_broken_scorer_is_told_what_is_broken(name):
    broken, message = BROKEN_SCORERS[name]
    with pytest.raises(ContractError, match=message) as caught:
        check_scorer(broken(), prompts=PROMPTS)
    assert str(caught.value).startswith(f"{broken.__name__}: ")


def test_what_is_no_renderer_and_no_scorer_is_said_so():
    with pytest.raises(ContractError, match=r"The backbone: expected a distill3d.renderer.Renderer, got Linear"):
        check_renderer(nn.Linear(1, 1))
    with pytest.raises(ContractError, match=r"The scorer: expected a distill3d.scorer.Scorer, got Linear"):
        check_scorer(nn.Linear(1, 1))


@pytest.mark.parametrize("build", [GaussianScorer, GaussianScorer.mixture])
def test_the_closed_form_scorers_keep_the_contract(build):
    assert not check_scorer(build()).skipped


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the embedded generator has no weights yet")
def test_the_embedded_generator_keeps_the_contract():
    assert not check_renderer(load_tiny()).skipped


@pytest.mark.skipif(
    not (WEIGHTS.parent / "diffusion").is_dir(), reason="the embedded diffusion model has no weights yet"
)
def test_the_embedded_diffusion_model_keeps_the_contract():
    from distill3d.scorers import diffusers

    assert not check_scorer(diffusers.load_tiny()).skipped
