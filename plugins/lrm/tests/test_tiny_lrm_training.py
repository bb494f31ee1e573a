"""Training of the embedded reconstruction model: where it starts, what moves, and that a stop leaves no trace."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file

from distill3d.cameras import orbit
from distill3d.errors import ConfigError, DivergedError
from distill3d.files import sha256
from distill3d.tiny.generator import load_tiny
from distill3d.tiny.train.generator_losses import Photos
from distill3d.tiny.world import identity_from_codes, render_heads, style_rows
from distill3d.volume import XY_XZ_YZ, XY_XZ_ZY, sample_planes
from distill3d_lrm.tiny import PREPARATION, TINY, WEIGHTS, load_tiny_lrm, read_model
from distill3d_lrm.train import __main__ as command
from distill3d_lrm.train import loop
from distill3d_lrm.train.data import inputs, most_frontal, own_order, teacher_planes
from distill3d_lrm.train.loop import Phase, Training, read_phases
from distill3d_lrm.train.losses import World, render_loss
from distill3d_lrm.train.sheet import held_out_psnr
from distill3d_lrm.train.start import start_from
from distill3d_lrm.triposr import TripoSR
from distill3d_lrm.world_heads import portrait

SMALL = replace(
    TINY,
    vit=replace(TINY.vit, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32),
    channels=32,
    heads=2,
    layers=1,
    neurons=8,
    samples=4,
)
PHASES = "decoder=2,planes=2,render=2"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small model, and gradients of what is hidden count as 0, as in training."""
    monkeypatch.setattr(loop, "TINY", SMALL)
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def work(tmp_path):
    """data/photo.safetensors of eight heads whose pictures are noise."""
    g = torch.Generator().manual_seed(0)
    shape = (8, 2, 1, 64, 64)
    tensors = {
        "z": torch.randn(8, 32, generator=g),
        "rgb": torch.randint(256, (8, 2, 3, 64, 64), generator=g, dtype=torch.uint8),
        "yaw": 0.4 * torch.randn(8, 2, generator=g),
        "pitch": torch.zeros(8, 2),
        "depth": (2.5 + 0.2 * torch.rand(shape, generator=g)).half(),
        "mask": 255 * torch.randint(2, shape, generator=g, dtype=torch.uint8),
    }
    (tmp_path / "data").mkdir()
    save_file(tensors, tmp_path / "data" / "photo.safetensors")
    return tmp_path


@pytest.fixture(scope="module")
def true_photos():
    """Two heads of the procedural world, from the front and from aside."""
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(7))
    yaw, pitch = torch.tensor([[0.0, 0.6]]).expand(2, -1), torch.tensor([[0.0, 0.2]]).expand(2, -1)
    styles = style_rows(["photo"]).expand(2, -1)
    rgb, depth, mask = render_heads(identity_from_codes(z), styles, orbit(yaw, pitch), 64, samples=2)
    levels = [(255 * x + 0.5).to(torch.uint8) for x in (rgb, mask)]
    return Photos(z, levels[0], yaw, pitch, depth.half(), levels[1])


def begun(work, phases=PHASES, more=(), seed=1):
    return Training.begin_or_resume(work, seed, read_phases(phases), more)


def bits(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


# Where it starts.


def test_the_generator_s_planes_are_read_at_the_same_canonical_points():
    """Plane by plane: its xy, xz, zy come out as the last, the first and the second."""
    planes, points = torch.randn(2, 3, 4, 16, 16), 0.72 * (torch.rand(2, 50, 3) - 0.5)
    theirs = sample_planes(planes, points, XY_XZ_ZY, 0.72)
    ours = sample_planes(own_order(planes), points @ torch.tensor(TripoSR.to_own).T, XY_XZ_YZ, 0.72)
    torch.testing.assert_close(ours, theirs[:, [1, 2, 0]])


def test_it_starts_as_the_mean_head_whatever_the_picture():
    """The mean of the given planes, as far as the largest principal components of all patches go."""
    model = TripoSR(replace(SMALL, channels=8, groups=4, plane_size=4, upsample=2, plane_channels=4))
    planes = torch.randn(6, 3, 4, 8, 8) * torch.linspace(0.1, 2, 8) + 1
    start_from(model, planes)
    with torch.no_grad():
        found = model.planes(model.tokens(torch.rand(2, 3, 64, 64)))
    torch.testing.assert_close(found[0], found[1])

    def patches(x):  # (N, 3, 4, 8, 8) to (N * 48, 16)
        return torch.nn.functional.unfold(x.flatten(0, 1), 2, stride=2).transpose(1, 2).flatten(0, 1)

    basis = torch.linalg.svd(patches(planes), full_matrices=False)[2][:8]  # as many as there are channels, of 16
    mean = patches(planes.mean(0, keepdim=True))
    torch.testing.assert_close(patches(found[:1]), mean @ basis.T @ basis, atol=1e-4, rtol=1e-4)
    assert (mean - mean @ basis.T @ basis).norm() > 0.01 * mean.norm()  # what it is compared with is not all of it


def test_a_new_run_shows_the_mean_of_the_generator_s_heads(work):
    training = begun(work)
    photos, spread = training.world.photos, training.world.spread
    with torch.no_grad():
        found = training.model.planes(training.model.tokens(torch.rand(1, 3, 64, 64)))[0]
    planes = teacher_planes(training.world.teacher, photos.z) / spread
    torch.testing.assert_close(planes.square().mean((0, 3, 4)), torch.ones(3, 12))
    mean = planes.mean(0)
    assert (found - mean).square().mean() < 0.2 * mean.square().mean()


# What it is shown.


def test_it_is_trained_on_what_a_user_s_picture_becomes(true_photos):
    shown = most_frontal(true_photos, torch.tensor([1]))[0]
    read = PREPARATION(portrait(true_photos.z[1]))
    assert (shown - read).abs().max() <= 2.5 / 255  # two roundings to whole levels


def test_heads_are_shown_from_the_front_as_far_as_there_is_such_a_view():
    grey = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1, 1).expand(2, -1, 3, 4, 4)
    yaw = torch.tensor([[0.3, 2.5, -0.5], [-3.0, 1.2, 2.0]])
    photos = Photos(torch.zeros(2, 32), grey, yaw, 0 * yaw, torch.ones(2, 3, 1, 4, 4), 255 + 0 * grey[:, :, :1])
    g = torch.Generator().manual_seed(0)
    seen = torch.stack([255 * inputs(photos, torch.tensor([0, 1]), g)[:, 0, 0, 0] for _ in range(40)]).round()
    assert set(seen[:, 0].tolist()) == {10, 30}
    assert set(seen[:, 1].tolist()) == {20}
    assert (255 * most_frontal(photos, torch.tensor([0, 1]))[:, 0, 0, 0]).round().tolist() == [10, 20]


def test_patches_are_compared_with_the_pixels_that_they_are_of(true_photos):
    """The shipped model is near the truth of heads it has not seen; on other pixels, or turned, it could not be."""
    model, teacher = read_model(WEIGHTS), load_tiny()
    world = World(true_photos, teacher, torch.ones(3, 12, 1, 1))
    with torch.no_grad():
        _, logged = render_loss(model, world, torch.Generator().manual_seed(0))
        shuffled = replace(true_photos, yaw=-true_photos.yaw)
        _, wrong = render_loss(model, replace(world, photos=shuffled), torch.Generator().manual_seed(0))
    assert logged["psnr"] > 16.5  # patches lie where the detail is
    assert logged["psnr"] > wrong["psnr"] + 1
    assert logged["mask"] < 0.05 and logged["depth"] < 0.05
    assert held_out_psnr(model, true_photos, 99) > 18.5


# What moves.


def test_a_phase_moves_its_own_part_alone(work):
    training = begun(work, "decoder=1,planes=1,render=1")
    states = [bits(training.model)]
    for _ in range(3):
        training.step()
        states.append(bits(training.model))
    first, second, third = (moved(one, next_) for one, next_ in pairwise(states))
    assert first and all(name.startswith("decoder.") for name in first)
    # Of what moved before, the next phase begins from the mean.
    others = {name.split(".")[0] for name in second if not name.startswith("decoder.")}
    assert others == {"image_tokenizer", "tokenizer", "backbone", "post_processor"}
    assert third >= first and "post_processor.upsample.weight" in third
    assert not any(".pooler." in name for name in first | second | third)


def test_a_phase_begins_from_the_mean_of_the_last(work):
    training = begun(work, "planes=2,decoder=1")
    training.step()
    training.step()
    mean = bits(training.mean)
    assert moved(mean, bits(training.model))
    training.step()
    assert all(name.startswith("decoder.") for name in moved(mean, bits(training.model)))


def test_the_rate_warms_up_and_ends_where_it_should():
    phase = Phase("planes", 1000, 0.5)
    first, last = loop.RATES["planes"]
    rates = [phase.rate(done) for done in range(1001)]
    assert rates[0] < rates[30] < rates[59] == pytest.approx(0.5 * first, rel=0.01)
    assert rates[-1] == pytest.approx(0.5 * last)
    assert all(a > b for a, b in pairwise(rates[60:]))


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(work, monkeypatch):
    monkeypatch.setitem(loop.LOSSES, "decoder", lambda *given: (torch.tensor(float("nan")), {}))
    with pytest.raises(DivergedError, match="step 0; lower the learning rate"):
        begun(work).step()


# Stopping and going on.


def test_a_run_that_was_stopped_ends_with_the_same_bits(work):
    """Stopped within a phase and between two; also through the optimiser, whose moments are in the file."""
    whole, stopped = begun(work), begun(work)
    for step in range(6):
        whole.step()
        stopped.step()
        if step in (0, 1, 2, 4):
            stopped.save(work / "lrm" / "checkpoint.safetensors")
            stopped = begun(work)
            assert stopped.state.step == step + 1
    (work / "lrm" / "checkpoint.safetensors").unlink()
    for ours, theirs in ((stopped.model, whole.model), (stopped.mean, whole.mean)):
        assert not moved(bits(ours), bits(theirs))


def test_another_seed_is_another_run(work):
    one, other = begun(work, seed=1), begun(work, seed=2)
    assert one.step()["loss"] != other.step()["loss"]


def test_the_command_makes_a_model_that_loads_and_installs_it_where_told(work, monkeypatch, capsys):
    """And a finished run is extended: the phases that are given follow its own."""
    installed = []
    monkeypatch.setattr(command, "install", installed.append)
    made, place = work / "lrm", work / "package" / "tiny_lrm.safetensors"
    command.main(["--work", str(work), "--smoke"])
    noted = json.loads((made / "provenance.json").read_text())
    assert (noted["phases"], noted["steps"]) == ("decoder=2,planes=2,render=2", 6)
    assert noted["sha256"] == sha256(made / "tiny_lrm.safetensors")
    assert noted["held_out_psnr"] > 0
    assert {path.name for path in made.iterdir()} == {
        "checkpoint.safetensors", "provenance.json", "sheet.png", "tiny_lrm.safetensors"
    }  # fmt: skip
    assert installed == []

    command.main(["--work", str(work), "--smoke", "--extend", "decoder=1@0.5", "--install"])
    assert json.loads((made / "provenance.json").read_text())["phases"] == noted["phases"] + ",decoder=1@0.5"
    assert installed == [made]
    assert capsys.readouterr().out.count("held out") == 4

    monkeypatch.undo()
    command.install(made, place)
    assert json.loads(place.with_suffix(".provenance.json").read_text())["sha256"] == sha256(place) != noted["sha256"]
    assert len(list(place.parent.iterdir())) == 2
    assert load_tiny_lrm(str(place)).model.config == SMALL


def test_a_phase_that_cannot_be_read_is_named():
    assert read_phases("planes=9,render=40@0.5,render=7@2") == (
        Phase("planes", 9),
        Phase("render", 40, 0.5),
        Phase("render", 7, 2.0),
    )
    assert [phase.name for phase in read_phases(loop.DEFAULT_PHASES)] == ["decoder", "planes", "render"]
    for text in (
        "planes",
        "field=3",
        "render=0",
        "render=-2",
        "render=4@fast",
        "render=4@1.2.3",
        "render=4@.",
        "planes=2,,render=2",
        "",
    ):
        with pytest.raises(ConfigError, match="A phase is written"):
            read_phases(text)
