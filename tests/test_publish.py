"""A run becomes a style pack: exact or with a stated error, with pictures and a card, without places of this disk."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d import publish
from distill3d.errors import ConfigError, RunError
from distill3d.files import sha256
from distill3d.models import load
from distill3d.packs.config import ADAPTER, CARD, CONFIG, FILES, SHEET, TURNTABLE
from distill3d.packs.pack import open_pack
from distill3d.publish import TRIED_SEEDS, TRIED_YAWS, PackOptions, make_pack, preview_card
from distill3d.runs import fingerprint, load_backbone
from distill3d.showcase import look
from tests.photo_runs import a_photo, a_run

pytestmark = pytest.mark.usefixtures("photo_toys")


@pytest.fixture(scope="module")
def run(tmp_path_factory, photo_toys):
    return a_run(tmp_path_factory.mktemp("runs") / "mine", options={"guidance_scale": 5.0}, seed=3)


@pytest.fixture(scope="module")
def pack(run):
    return make_pack(run, run.parent / "pack", repo_id="somebody/zombie")


def weights(renderer):
    return {name: p.detach() for name, p in renderer.named_parameters()}


def worst_picture(one, other):
    one, other = (look(renderer, TRIED_SEEDS, TRIED_YAWS) for renderer in (one, other))
    return (one - other).square().mean((-3, -2, -1)).sqrt().max().item()


def test_a_pack_is_exactly_its_files(pack):
    assert {path.name for path in pack.folder.iterdir()} == set(FILES)


def test_what_a_pack_says_is_what_the_run_was(run, pack):
    content, config = pack.content, json.loads((run / CONFIG).read_text())
    assert (content.style, content.prompt) == ("zombie", "Portrait of a zombie")
    assert (content.backbone, content.train, content.method, content.step) == ("photo-toy", "default", "ld", 2)
    assert content.base.sha256 == fingerprint(load_backbone(load_config(run)))
    assert content.settings == config
    assert content.settings["options"] == {"guidance_scale": 5.0} and content.settings["seed"] == 3
    assert content.versions == json.loads((run / "versions.json").read_text())
    assert {part.role for part in content.parts} >= {"backbone", "scorer"}
    assert content.photos
    assert content.metrics is None


def load_config(run):
    from distill3d.runs import read_config

    return read_config(run)


def test_a_full_pack_is_the_run_bit_for_bit(run, pack):
    theirs, mine = load(run), load(pack.folder)
    assert all(torch.equal(weights(theirs)[name], p) for name, p in weights(mine).items())
    assert torch.equal(*(look(renderer, [0, 7], [-20.0, 10.0]) for renderer in (theirs, mine)))
    assert (pack.content.adapter.weights_error, pack.content.adapter.pictures_error) == (0.0, 0.0)
    assert (pack.folder / TURNTABLE).read_bytes() == (run / TURNTABLE).read_bytes()


def test_the_sheet_of_a_pack_is_the_runs_and_small(run, pack):
    with Image.open(run / "sheet.png") as theirs, Image.open(pack.folder / SHEET) as mine:
        assert mine.size == theirs.size
        there, here = (np.asarray(picture.convert("RGB")).astype(float) for picture in (theirs, mine))
    assert abs(there - here).mean() < 4
    assert (pack.folder / SHEET).stat().st_size < (run / "sheet.png").stat().st_size


@pytest.mark.parametrize("form", ["half", "low-rank"])
def test_a_smaller_pack_is_within_the_error_that_it_states(run, pack, form, tmp_path):
    small = make_pack(run, tmp_path / "small", repo_id="somebody/zombie", options=PackOptions(format=form))
    stated = small.content.adapter
    assert stated.size == (small.folder / ADAPTER).stat().st_size < pack.content.adapter.size
    loaded, exact, base = load(small.folder), load(run), load(run).original
    assert worst_picture(loaded, exact) == pytest.approx(stated.pictures_error, rel=1e-6, abs=1e-9)
    far = sum((weights(exact)[name] - p).square().sum() for name, p in weights(base).items()).sqrt()
    off = sum((weights(exact)[name] - p).square().sum() for name, p in weights(loaded).items()).sqrt()
    assert (off / far).item() == pytest.approx(stated.weights_error, rel=1e-3)
    assert 0 < stated.weights_error < 0.5
    assert stated.pictures_error < worst_picture(exact, base), "it is no nearer to the run than the original is"


def test_places_on_this_disk_are_left_out(run, tmp_path):
    photo = a_photo(tmp_path / "me.png")
    other = a_run(tmp_path / "of-me", backbone_options={"subjects": (str(photo),)})
    pack = make_pack(other, tmp_path / "pack", repo_id="somebody/me")
    for name in (CONFIG, CARD):
        assert str(tmp_path) not in (pack.folder / name).read_text()
    assert "subjects" not in pack.content.backbone_options


def test_photographs_that_somebody_gave_are_not_shown_unless_asked_for(run, tmp_path):
    photo = a_photo(tmp_path / "me.png")
    other = a_run(tmp_path / "of-me", backbone_options={"subjects": (str(photo),)})
    pack = make_pack(other, tmp_path / "pack", repo_id="somebody/me")
    assert not {SHEET, TURNTABLE} & {path.name for path in pack.folder.iterdir()}
    assert "sheet.webp" not in (pack.folder / CARD).read_text()
    shown = make_pack(other, tmp_path / "shown", repo_id="somebody/me", options=PackOptions(pictures=True))
    assert {SHEET, TURNTABLE} <= {path.name for path in shown.folder.iterdir()}


def test_an_evaluation_is_on_the_card(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "evaluation").mkdir()
    rows = {"mine": {"style_accuracy": 0.93, "psnr": None}, "ceiling": {"style_accuracy": 1.0}}
    made_with = {"weights_sha256": sha256(copy / "weights.safetensors")}
    found = {"subjects": 64, "rows": rows, "made_with": made_with}
    (copy / "evaluation" / "evaluation.json").write_text(json.dumps(found))
    content = make_pack(copy, tmp_path / "pack", repo_id="somebody/zombie").content  # its folder has another name now
    assert content.metrics.values == {"style_accuracy": 0.93}
    assert content.metrics.protocol.endswith("on 64 of its subjects that no run trains on")
    options = PackOptions(format="half", pictures=False)
    small = make_pack(copy, tmp_path / "small", repo_id="somebody/zombie", options=options).content
    assert small.metrics.protocol.endswith("of the run itself, of which this pack has the half form")
    made_with["weights_sha256"] = "0" * 64  # the run was resumed after it was measured
    (copy / "evaluation" / "evaluation.json").write_text(json.dumps(found))
    assert make_pack(copy, tmp_path / "pack", repo_id="somebody/zombie").content.metrics is None


def test_the_preview_is_the_card_of_the_pack(run, pack):
    assert str(preview_card(run, repo_id="somebody/zombie")) == (pack.folder / CARD).read_text()


def test_nothing_but_an_older_pack_is_replaced(run, tmp_path, monkeypatch):
    copy = shutil.copytree(run, tmp_path / "run")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").touch()
    monkeypatch.chdir(tmp_path / "work")
    for out in (copy, tmp_path / "work", tmp_path, tmp_path / "work" / "thesis.tex", Path(".")):
        with pytest.raises(RunError, match="Choose another place with --out"):
            make_pack(copy, out, repo_id="somebody/zombie")
    assert (tmp_path / "work" / "thesis.tex").is_file()
    assert (copy / "checkpoints").is_dir()


def test_a_damaged_sheet_is_drawn_again(run, pack, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "sheet.png").write_bytes(b"no picture")
    again = make_pack(copy, tmp_path / "pack", repo_id="somebody/zombie")
    assert (again.folder / SHEET).read_bytes() == (pack.folder / SHEET).read_bytes()


def test_a_run_whose_subjects_are_gone_can_still_be_packed_exactly(tmp_path):
    photo = a_photo(tmp_path / "me.png")
    other = a_run(tmp_path / "of-me", backbone_options={"subjects": (str(photo),)})
    photo.unlink()
    assert make_pack(other, tmp_path / "pack", repo_id="somebody/me").content.adapter.format == "full"
    with pytest.raises(ConfigError, match="There are no subjects"):
        make_pack(other, tmp_path / "shown", repo_id="somebody/me", options=PackOptions(pictures=True))


def test_a_pack_that_cannot_be_finished_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "card_of", full)
    with pytest.raises(RunError, match="The disk is full"):
        make_pack(run, tmp_path / "pack", repo_id="somebody/zombie")
    assert list(tmp_path.iterdir()) == []


def test_an_older_pack_is_replaced(run, tmp_path):
    make_pack(run, tmp_path / "pack", repo_id="somebody/zombie")
    small = make_pack(run, tmp_path / "pack", repo_id="a/b", options=PackOptions(format="half", pictures=False))
    assert {path.name for path in small.folder.iterdir()} == {CONFIG, ADAPTER, CARD}
    assert open_pack(tmp_path / "pack").content.adapter.format == "half"


def test_a_format_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="format is one of full, half, low-rank, got 'int8'"):
        PackOptions(format="int8")


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="is no run folder"):
        make_pack(tmp_path, tmp_path / "pack", repo_id="a/b")
