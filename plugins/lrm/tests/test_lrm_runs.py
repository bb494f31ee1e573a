"""Runs on photographs from end to end: each group, alone, saved, reloaded, continued."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from small import WRITERS, small_openlrm, small_triposr, write_openlrm, write_photos, write_triposr
from typer.testing import CliRunner

from distill3d.cameras import orbit
from distill3d.cli import app
from distill3d.config import DistillConfig
from distill3d.draws import Draws
from distill3d.errors import ConfigError, WeightsError
from distill3d.licences import parts_of_run
from distill3d.models import load
from distill3d.recipe import distill, resume
from distill3d.runs import load_backbone
from distill3d.showcase import Showcase
from distill3d.training.loop import Watch
from distill3d_lrm import subjects

GROUPS = ("default", "decoder", "upsampler", "adapter", "lora", "blocks", "all")
SIZE = 16
PARTS = {  # of the names of what a group may change
    "default": ("decoder.", ".lora_"),
    "decoder": ("decoder.",),
    "upsampler": ("decoder.", "upsample"),
    "adapter": ("adapter.",),
    "lora": (".lora_",),
    "blocks": ("transformer_blocks.2.", "transformer_blocks.1.", "layers.2.", "layers.1."),
    "all": ("",),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def unshown(request, monkeypatch):
    """Nothing is drawn for people but by the command line: that takes longer than the steps."""
    if "command_line" in request.node.name:
        return
    monkeypatch.setattr("distill3d.recipe.write_report", lambda folder: None)
    for picture in ("preview", "sheet", "turntable"):
        monkeypatch.setattr(Showcase, picture, lambda *given: None)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of each kind with few samples, and photos; nobody writes there."""
    folder = tmp_path_factory.mktemp("files")
    write_triposr(folder / "triposr", small_triposr(num_samples_per_ray=12))
    write_openlrm(folder / "openlrm", small_openlrm(rendering_samples_per_ray=12))
    write_photos(folder / "photos")
    return folder


def config(files, kind="triposr", *, photos=None, steps=2, **settings):
    options = {"size": SIZE, "last_blocks": 2, "subjects": (str(photos or files / "photos"),)}
    return DistillConfig(
        style="zombie",
        backbone=kind,
        weights=str(files / kind),
        scorer="gaussian",
        method="sds",
        lr=1e-2,
        steps=steps,
        backbone_options=options,
        **settings,
    )


def pictures(of, seeds=(0, 1)):
    yaw, front = torch.tensor([[0.0, 1.0]]).expand(len(seeds), -1), of.defaults.front
    with torch.no_grad():
        return of.render(of.scene(of.codes_of_seeds(seeds)), orbit(yaw, 0 * yaw, front.radius, front.focal)).image


def bits(of):
    return {name: tensor.clone() for name, tensor in of.state_dict().items()}


def unwrapped(name):
    return name.replace(".base_layer", "")


# Groups.


@pytest.mark.parametrize(
    ("kind", "group"), [*[("triposr", group) for group in GROUPS], ("openlrm", "default"), ("openlrm", "adapter")]
)
def test_a_run_changes_its_group_alone_and_comes_back_bit_for_bit(kind, group, files, tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr("distill3d.recipe.publish_weights", _noting(left, monkeypatch))
    folder = distill(config(files, kind, train=None if group == "default" else group), tmp_path / "run")
    stylised = load(folder)
    original = stylised.original
    before, after = bits(original), {unwrapped(name): tensor for name, tensor in bits(stylised).items()}
    fresh = bits(load_backbone(config(files, kind)))
    assert all(torch.equal(before[name], fresh[name]) for name in before)
    new, differ = after.keys() - before.keys(), {n for n in before if not torch.equal(before[n], after[n])}
    assert all(any(part in name for part in PARTS[group]) for name in new | differ)
    assert differ or new
    assert bool(new) == (group in ("default", "lora", "adapter"))
    with safe_open(folder / "weights.safetensors", "pt") as saved:
        assert differ <= {unwrapped(name) for name in saved.keys()}  # noqa: SIM118
        assert new <= {unwrapped(name) for name in saved.keys()}  # noqa: SIM118
    assert not torch.equal(pictures(original), pictures(stylised))
    (trained,) = left
    assert trained.keys() == stylised.state_dict().keys()
    assert all(torch.equal(trained[name], tensor) for name, tensor in bits(stylised).items())
    assert torch.equal(pictures(load(folder)), pictures(stylised))


def _noting(left, monkeypatch):
    """Keeps the weights of the trainer's renderer when a run ends."""
    from distill3d import assembly, recipe

    publish, make = recipe.publish_weights, assembly.Trainer
    made = []
    monkeypatch.setattr(
        assembly, "Trainer", lambda *given, **settings: made.append(make(*given, **settings)) or made[-1]
    )

    def noted(*given):
        left.append(bits(made[-1].renderer))
        return publish(*given)

    return noted


@pytest.mark.parametrize("group", ["default", "adapter", "upsampler"])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(group, files, tmp_path):
    settings = config(files, steps=4, save_every=2, train=group)
    straight = distill(settings, tmp_path / "straight")
    steps = []
    stopping = Watch(on_step=lambda log, seconds: steps.append(log.step), should_stop=lambda: len(steps) == 2)
    stopped = distill(settings, tmp_path / "stopped", watch=stopping)
    assert not torch.equal(*[pictures(load(folder)) for folder in (straight, stopped)])
    resume(stopped)
    one, other = load(straight), load(stopped)
    assert all(torch.equal(bits(one)[name], tensor) for name, tensor in bits(other).items())
    assert torch.equal(pictures(one), pictures(other))


def test_the_command_line_runs_a_group_on_a_folder_of_photos(files, tmp_path):
    group = "lora"
    told = ["--backbone", "triposr", "--weights", files / "triposr", "--subjects", files / "photos"]
    told += ["--style", "zombie", "--scorer", "gaussian", "--steps", 2, "--train", group, "--out", tmp_path / "run"]
    done = CliRunner().invoke(app, ["run", *map(str, told), "--backbone-set", f"size={SIZE}"])
    assert done.exit_code == 0, (done.output, done.exception)
    made = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"report.html", "sheet.png", "turntable.webp", "weights.safetensors", "config.json"} <= made
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["train"] == group
    assert written["backbone_options"]["subjects"] == [str((files / "photos").resolve())]
    assert load(tmp_path / "run").image_size == SIZE


def test_a_run_with_the_tiny_scorer_and_anchors_comes_through(files, tmp_path):
    settings = config(files, steps=2, train="adapter", anchors={"opacity": 1.0, "variation": 0.1, "scene": 1.0})
    folder = distill(DistillConfig(**{**vars(settings), "scorer": "tiny"}), tmp_path / "run")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert not any(line["skipped"] for line in lines)


def test_a_run_writes_the_licence_of_its_weights(files, tmp_path):
    folder = distill(config(files, steps=1, train="decoder"), tmp_path / "run")
    assert parts_of_run(folder)[0].licence == "unknown"


def test_a_run_does_not_load_on_another_checkpoint(files, tmp_path):
    kept = tmp_path / "kept"
    shutil.copytree(files / "triposr", kept / "triposr")
    folder = distill(config(kept, photos=files / "photos", steps=1, train="adapter"), tmp_path / "run")
    other = small_triposr(num_samples_per_ray=12)
    other.decoder.layers[0].bias[0] += 1e-3
    write_triposr(kept / "triposr", other)
    with pytest.raises(WeightsError, match=r"belongs to weights of backbone .* are others"):
        load(folder)


# Subjects.


def test_without_subjects_it_says_how_to_give_them(files, tmp_path):
    for kind in WRITERS:
        without = DistillConfig(style="zombie", backbone=kind, weights=str(files / kind), scorer="gaussian", steps=1)
        with pytest.raises(ConfigError, match="--subjects FOLDER, or --subjects PHOTO"):
            distill(without, tmp_path / kind)
        of = load_backbone(without)
        with pytest.raises(ConfigError, match="Say whose: --subjects FOLDER"):
            of.codes_of_seeds([0])
        with pytest.raises(ConfigError, match="Say whose: --subjects FOLDER"):
            of.sample_codes(Draws(0, 0, (0,)))


def test_photos_may_vanish_after_a_run(files, tmp_path):
    photos = shutil.copytree(files / "photos", tmp_path / "photos")
    folder = distill(config(files, photos=photos, steps=1, train="upsampler"), tmp_path / "run")
    before = load(folder)
    expected = pictures(before)
    shutil.rmtree(photos)
    after = load(folder)
    codes = before.codes_of_seeds([0, 1])  # read already
    yaw, front = torch.tensor([[0.0, 1.0]]).expand(2, -1), after.defaults.front
    with torch.no_grad():
        again = after.render(after.scene(codes), orbit(yaw, 0 * yaw, front.radius, front.focal)).image
    assert torch.equal(again, expected)
    with pytest.raises(ConfigError, match="no photo at"):
        after.codes_of_seeds([0])
    other = after.codes_of_photos([files / "photos" / "1.png"])
    assert torch.equal(other[0], codes[1])


BAD = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "no picture": lambda path: path.write_text("a letter"),
    "empty": lambda path: path.write_bytes(b""),
    "nobody in it": lambda path: Image.new("RGBA", (20, 20), (9, 9, 9, 0)).save(path),
    "a single colour": lambda path: Image.new("RGB", (20, 20), (9, 9, 9)).save(path),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=list(BAD))
def test_a_bad_photo_is_named_before_the_first_step(spoil, files, tmp_path):
    """The last of ten: a run that draws one a step would meet it late, or never."""
    photos = write_photos(tmp_path / "photos", 10)
    spoil(photos / "9.png")
    stepped = []
    with pytest.raises(ConfigError, match=r"9\.png"):
        distill(config(files, photos=photos, train="decoder"), tmp_path / "run", watch=Watch(on_start=stepped.append))
    assert stepped == []


def test_a_photo_that_needs_rembg_is_named_before_the_first_step(files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rembg", None)
    photos = write_photos(tmp_path / "photos", 10)
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "9.png")
    with pytest.raises(ConfigError, match=r"9\.png.*rembg"):
        distill(config(files, photos=photos, train="decoder"), tmp_path / "run")


@pytest.mark.parametrize(("place", "said"), [("nowhere", "no photo at"), ("empty", "holds no picture")])
def test_places_without_photos_are_named(place, said, files, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=said):
        distill(config(files, photos=tmp_path / place), tmp_path / "run")


def test_photos_are_drawn_evenly_and_counted_over_and_over(files):
    of = load_backbone(config(files))
    codes = of.codes_of_seeds([0, 1, 2])
    assert codes.shape == (3, 3, 32, 32)
    assert torch.equal(of.codes_of_seeds([4, 3]), codes[[1, 0]])
    drawn = torch.cat([of.sample_codes(Draws(0, step, (0, 1))) for step in range(30)])
    share = [(drawn == code).flatten(1).all(1).float().mean().item() for code in codes]
    assert sum(share) == pytest.approx(1)
    assert min(share) > 0.15
    assert of.codes_of_photos([files / "photos" / "2.png"]).equal(codes[2:])


def test_a_photo_is_prepared_once_however_often_it_is_drawn(files, monkeypatch):
    prepared, read = [], subjects.read_photo
    monkeypatch.setattr(subjects, "read_photo", lambda path: prepared.append(path.name) or read(path))
    of = load_backbone(config(files))
    assert prepared == []
    for step in range(5):
        of.sample_codes(Draws(0, step, (0, 1)))
    of.codes_of_seeds([0, 1, 2, 3])
    assert sorted(prepared) == ["0.png", "1.png", "2.png"]
