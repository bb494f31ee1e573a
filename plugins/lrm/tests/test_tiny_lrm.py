"""The embedded reconstruction model as it is shipped: whom it knows, how near the truth it comes, what it serves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import distill3d_lrm
from distill3d.cameras import orbit
from distill3d.config import DistillConfig
from distill3d.draws import Draws
from distill3d.errors import WeightsError
from distill3d.evaluate import evaluate_run
from distill3d.evaluation import psnr
from distill3d.files import sha256
from distill3d.licences import parts_of_run
from distill3d.models import load
from distill3d.recipe import distill
from distill3d.renderer import FromPhotos
from distill3d.runs import load_backbone
from distill3d.showcase import PREVIEW_SEEDS, SHEET_SEEDS, TURNTABLE_SEEDS, Showcase
from distill3d.stylize import StylizeOptions, stylize
from distill3d.testing import check_renderer
from distill3d.tiny.evaluation import SUBJECTS, Setting, has_truth
from distill3d.tiny.evaluation import setting as setting_module
from distill3d.tiny.generator import WEIGHTS as GENERATOR
from distill3d.tiny.generator import load_tiny
from distill3d.tiny.subjects import WorldSubjects
from distill3d.tiny.world import identity_from_codes, render_heads, style_rows
from distill3d_lrm import world_heads
from distill3d_lrm.tiny import METADATA, TINY, WEIGHTS, load_tiny_lrm, read_model, save_model
from distill3d_lrm.train.loop import read_phases
from distill3d_lrm.train.portraits import COUNT, atlas
from distill3d_lrm.train.portraits import code as portrait_code
from distill3d_lrm.triposr import TripoSR
from distill3d_lrm.world_heads import PORTRAITS, SIZE, portrait, stored_portraits

HEADS = SUBJECTS[:3]  # nobody here was trained on
EXAMPLES = Path(distill3d_lrm.__file__).parents[3] / "examples" / "heads"
SMALL = replace(TINY, vit=replace(TINY.vit, num_hidden_layers=1), channels=32, heads=2, layers=1, neurons=8)


@pytest.fixture(autouse=True)
def quick():
    """Gradients of what is hidden count as 0, as in a run: they are several times faster then."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def shipped():
    return load_tiny_lrm()


@pytest.fixture(scope="module")
def codes(shipped):
    """(3, 3, 64, 64)."""
    return shipped.codes_of_seeds(HEADS)


# Whom it knows.


def test_a_seed_names_the_head_that_it_names_for_the_embedded_generator(shipped):
    seeds = (0, 7, 1000)
    assert torch.equal(shipped.world_codes(seeds), load_tiny().codes_of_seeds(seeds))
    assert shipped.world_codes(seeds).shape == (3, 32)


def test_a_cut_out_picture_of_a_head_gives_the_code_of_its_seed(shipped, codes, tmp_path):
    Image.fromarray(portrait(shipped.world_codes(HEADS[1:2])[0])).save(tmp_path / "head.png")
    assert isinstance(shipped, FromPhotos)
    assert torch.equal(shipped.codes_of_photos([tmp_path / "head.png"]), codes[1:2])
    assert torch.equal(shipped.codes_of_seeds([HEADS[2], HEADS[1]]), codes[[2, 1]])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_example_pictures_are_of_the_seeds_in_their_names(number, shipped, codes):
    """They are twice as large, so not the same to the bit; another head is far away."""
    found = shipped.codes_of_photos([EXAMPLES / f"held_out_{HEADS[number]}.png"])
    away = (found - codes).abs().mean((1, 2, 3))
    assert away.argmin() == number
    assert away[number] < 0.01 and 3 * away[number] < away[[n for n in range(3) if n != number]].min()


def test_the_true_pictures_of_its_subjects_are_known_but_not_of_photos(shipped, tmp_path):
    Image.fromarray(stored_portraits()[0]).save(tmp_path / "0.png")
    of_photos = load_tiny_lrm(subjects=[str(tmp_path)])
    assert has_truth(shipped, "zombie") and not has_truth(shipped, "a marble bust")
    assert not has_truth(of_photos, "zombie") and not isinstance(of_photos, WorldSubjects)
    assert torch.equal(of_photos.codes_of_seeds([1000]), shipped.subjects._portraits[:1])
    setting = Setting.of(HEADS)
    identity = setting.identity(shipped)
    assert torch.equal(identity, setting.identity(load_tiny()))
    assert len(identity) == len(identity.unique(dim=0)) == 3


# The portraits that come with it.


def test_a_stored_portrait_is_what_its_code_is_rendered_to():
    stored, again = stored_portraits()[37].astype(int), portrait(portrait_code(37)).astype(int)
    # A ray that grazes the head may miss it on another machine.
    assert (np.abs(stored - again) > 1).any(-1).mean() < 0.005


def test_portraits_are_different_heads_cut_out():
    stored = stored_portraits()
    assert len(stored) == COUNT == 128
    assert {one.shape for one in stored} == {(SIZE, SIZE, 4)} and SIZE == 64
    assert len({one.tobytes() for one in stored}) == COUNT
    assert all(one[0, 0, 3] == 0 and one[32, 32, 3] == 255 for one in stored)
    again = atlas(stored)
    assert np.array_equal(again, np.array(Image.open(PORTRAITS)))


def test_nobody_whom_a_run_trains_on_is_judged_or_shown(shipped):
    """By their codes, 32 normal numbers each: none is another's neighbour."""
    trained = torch.stack([portrait_code(number) for number in range(COUNT)])
    others = (*SUBJECTS, *PREVIEW_SEEDS, *SHEET_SEEDS, *TURNTABLE_SEEDS)
    assert torch.cdist(trained, shipped.world_codes(others)).min() > 1
    assert torch.pdist(trained).min() > 1


def test_draws_choose_among_the_portraits_evenly(shipped):
    drawn = torch.cat([shipped.sample_codes(Draws(0, step, (0, 1))) for step in range(128)])
    places = [(shipped.subjects._portraits == one).flatten(1).all(1).nonzero().tolist() for one in drawn]
    assert all(len(found) == 1 for found in places)
    assert len({found[0][0] for found in places}) > 90  # of 128, in 256 draws
    assert torch.equal(shipped.sample_codes(Draws(0, 5, (0, 1))), drawn[10:12])


# How near the truth it comes.


def test_heads_that_it_never_saw_are_reconstructed_from_one_picture(shipped, codes):
    """From three cameras, one each, against the procedural truth, and against who says the same of everybody."""
    yaw = torch.tensor([[-0.5], [0.3], [1.2]])
    seen = orbit(yaw, 0.3 * yaw)
    identity = identity_from_codes(shipped.world_codes(HEADS))
    rgb, depth, mask = render_heads(identity, style_rows(["photo"]).expand(3, -1), seen, 64, samples=2)
    with torch.no_grad():
        found = shipped.render(shipped.scene(codes), seen, upto="raw")
        crowd = shipped.scene(shipped.subjects._portraits[:12])["planes"].mean(0, keepdim=True)
        mean = shipped.render({"planes": crowd.expand(3, -1, -1, -1, -1)}, seen, upto="raw")
    ours, theirs = (psnr(one.raw[:, 0], 2 * rgb[:, 0] - 1) for one in (found, mean))
    print(f"PSNR {ours.tolist()}, mean head {theirs.tolist()}")
    assert ours.mean() > 19
    assert ours.mean() > theirs.mean() + 3 and (ours > theirs + 1).all()
    solid = mask > 0.95
    assert ((found.opacity > 0.5) == (mask > 0.5)).float().mean() > 0.96
    assert (found.opacity - mask).abs().mean() < 0.035 < (mean.opacity - mask).abs().mean()
    assert (found.depth - depth).abs()[solid].median() < 0.03  # the head is 0.6 high


def test_its_pictures_are_what_the_backbone_promises(shipped):
    """Every check applies; its pictures are made smaller for it."""
    of = load_tiny_lrm()
    of.raw_size, of.image_size = 24, 48
    report = check_renderer(of)
    assert "0 skipped" in str(report) and type(of) is type(shipped)


@pytest.mark.slow
def test_its_pictures_are_what_the_backbone_promises_at_full_size():
    assert "0 skipped" in str(check_renderer(load_tiny_lrm()))


# Its files.


def test_the_weights_are_the_ones_whose_making_is_written_down():
    noted = json.loads(WEIGHTS.with_suffix(".provenance.json").read_text())
    assert noted["sha256"] == sha256(WEIGHTS)
    assert noted["script"] == "python -m distill3d_lrm.train"
    assert noted["steps"] == sum(phase.steps for phase in read_phases(noted["phases"]))
    assert noted["parameters"] == sum(p.numel() for p in read_model(WEIGHTS).parameters())
    assert noted["held_out_psnr"] > 19


def test_all_that_is_shipped_is_small_and_no_pickle():
    files = [path for path in WEIGHTS.parent.iterdir() if path.is_file() and not path.name.startswith(".")]
    assert sum(path.stat().st_size for path in files) <= 6e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".png"}


def test_the_sizes_in_the_file_are_those_in_the_code():
    assert read_model(WEIGHTS).config == TINY


def test_the_embedded_weights_have_a_name_that_brings_them_back_and_others_have_none(shipped, tmp_path):
    assert shipped.weights_name == "embedded"
    again = load_tiny_lrm("embedded")
    assert again.weights_name == "embedded"
    assert all(torch.equal(value, shipped.state_dict()[name]) for name, value in again.state_dict().items())
    assert load_tiny_lrm(subjects=[str(EXAMPLES)]).weights_name == "embedded"
    save_model(shipped.model, tmp_path / "mine.safetensors")
    assert load_tiny_lrm(str(tmp_path / "mine.safetensors")).weights_name == ""


def test_weights_are_stored_in_half_precision_and_saved_again_as_they_were(tmp_path):
    model, first, second = TripoSR(SMALL), tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_model(model, first)
    assert {tensor.dtype for tensor in load_file(first).values()} == {torch.float16}
    again = read_model(first)
    assert again.config == SMALL
    assert all(
        torch.equal(value, model.state_dict()[name].half().float()) for name, value in again.state_dict().items()
    )
    save_model(again, second)
    assert first.read_bytes() == second.read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("missing", "There is no weight file"),
        ("cut short", "is damaged"),
        ("no safetensors", "is damaged"),
        ("odd sizes", "is damaged"),
        ("sizes left out", "is damaged"),
        ("a tensor too few", "lacks 1 tensors"),
        ("the generator's", "holds no embedded reconstruction model"),
        ("a folder", "There is no weight file"),
    ],
)
def test_a_file_that_is_no_such_model_is_named(damage, said, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(TripoSR(SMALL), path)
    tensors, whole = load_file(path), path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if damage == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "no safetensors":
        path.write_bytes(b"PK\x03\x04 something else altogether")
    elif damage == "odd sizes":
        save_file(tensors, path, {METADATA: json.dumps({**json.loads(metadata[METADATA]), "colour": "blue"})})
    elif damage == "sizes left out":
        save_file(tensors, path, {METADATA: "[]"})
    elif damage == "a tensor too few":
        save_file(dict(list(tensors.items())[1:]), path, metadata)
    elif damage == "the generator's":
        shutil.copyfile(GENERATOR, path)
    else:
        path.unlink()
    if damage == "a folder":
        path.mkdir()
    with pytest.raises(WeightsError, match=rf"model\.safetensors.*{said}|{said}.*model\.safetensors"):
        load_tiny_lrm(str(path))


@pytest.mark.parametrize("left", [None, 0, 5000, 300_000])
def test_portraits_that_are_missing_or_damaged_are_named(left, shipped, tmp_path, monkeypatch):
    """Cut off after so many bytes; a package without them still reads pictures."""
    monkeypatch.setattr(world_heads, "PORTRAITS", tmp_path / "portraits.png")
    if left is not None:
        (tmp_path / "portraits.png").write_bytes(PORTRAITS.read_bytes()[:left])
    of = load_tiny_lrm()
    with pytest.raises(WeightsError, match=r"portraits\.png are missing or damaged. Reinstall distill3d-lrm"):
        of.sample_codes(Draws(0, 0, (0,)))
    assert of.codes_of_photos([EXAMPLES / "held_out_1000.png"]).shape == (1, *shipped.code_shape)


# What it serves: a run on it, and what a user makes of that.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps of zombie with the embedded scorer; nothing is drawn for people meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill3d.recipe.write_report", lambda folder: None)
        for picture in ("preview", "sheet", "turntable"):
            patch.setattr(Showcase, picture, lambda *given: None)
        config = DistillConfig(style="zombie", backbone="tiny-lrm", steps=2, lr=2e-2)
        return distill(config, tmp_path_factory.mktemp("tiny-lrm") / "run")


def test_a_run_trains_and_comes_back(run, codes):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and not any(line["skipped"] for line in lines)
    assert parts_of_run(run)[0].licence == "Apache-2.0"
    stylised = load(run)
    original = stylised.original
    assert has_truth(original, "zombie") and has_truth(stylised, "zombie")
    zero = torch.zeros(1, 1)
    with torch.no_grad():
        before, after = (
            of.render(of.scene(codes[:1]), orbit(zero, zero), upto="raw").raw for of in (original, stylised)
        )
        fresh = load_backbone(DistillConfig(style="zombie", backbone="tiny-lrm"))
        assert torch.equal(fresh.render(fresh.scene(codes[:1]), orbit(zero, zero), upto="raw").raw, before)
    assert (before - after).abs().mean() > 1e-4


@torch.no_grad()
def test_a_run_of_low_rank_changes_is_mixed_in_any_amount_and_by_parts(run, codes):
    stylised = load(run)
    (own,) = stylised.amounts

    def shown(amount):
        of = stylised.blend({own: amount})
        assert isinstance(of, WorldSubjects)
        return of.render(of.scene(codes[:1]), orbit(torch.zeros(1, 1), torch.zeros(1, 1)), upto="raw")

    whole, nothing, original = shown(1.0), shown(0.0), stylised.original
    before = original.render(original.scene(codes[:1]), orbit(torch.zeros(1, 1), torch.zeros(1, 1)), upto="raw")
    assert torch.equal(nothing.raw, before.raw)
    by_parts = shown({"geometry": 1.0, "texture": 1.0})
    torch.testing.assert_close(by_parts.raw, whole.raw, atol=2e-5, rtol=0)  # whole weights instead of factors
    half = (shown(0.5).raw - before.raw).abs().mean() / (whole.raw - before.raw).abs().mean()
    assert 0.3 < half < 0.7
    colours = shown({"texture": 1.0})
    assert not torch.equal(colours.raw, before.raw)
    assert (colours.depth - before.depth).abs().mean() < 0.5 * (whole.depth - before.depth).abs().mean()


def test_a_picture_becomes_a_sheet_a_turntable_a_mesh_and_a_page(run, tmp_path):
    options = StylizeOptions(frames=2, resolution=32, mesh=True)
    made = stylize(EXAMPLES / "held_out_1000.png", str(run), tmp_path / "out", options=options)
    assert made.no_mesh is None
    assert {"sheet.png", "turntable.webp", "head.glb", "index.html", "stylize.json", "photo.png"} == {
        path.name for path in made.folder.iterdir()
    }
    assert made.page == made.folder / "index.html" and "head.glb" in made.page.read_text()
    assert (made.folder / "head.glb").read_bytes()[:4] == b"glTF"
    assert Image.open(made.folder / "turntable.webp").n_frames == 2
    assert np.array(Image.open(made.folder / "sheet.png")).std() > 20
    record = json.loads((made.folder / "stylize.json").read_text())
    assert (record["backbone"], record["style"], record["photo"]) == ("tiny-lrm", "zombie", "held_out_1000.png")


@pytest.mark.slow
def test_a_run_is_measured_against_the_truth(run, tmp_path, monkeypatch):
    """By three subjects who share one camera, so that they can be compared."""
    monkeypatch.setattr(setting_module, "YAWS", (0.2,))
    monkeypatch.setattr(setting_module, "PITCHES", (-0.1,))
    report = evaluate_run(run, cache=tmp_path / "truth", seeds=HEADS)
    assert report.paired is not None
    rows = report.paired.rows
    assert rows["ceiling"].psnr > rows["run"].psnr
    assert rows["untouched"].psnr_gain == 0 != rows["run"].psnr_gain
    assert 0 <= rows["run"].retrieval_top1 <= 1 and -1 <= rows["run"].rsa_truth <= 1
    assert len(list((tmp_path / "truth").iterdir())) == 4
    assert {path.name for path in report.folder.iterdir()} == {"evaluation.json", "table.md", "sheet.png"}
