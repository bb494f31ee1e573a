"""A photograph becomes a folder with a sheet, a turntable, a mesh and a page, or nothing at all."""

import json
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from distill3d import stylize as module
from distill3d.errors import ConfigError, MissingExtraError, RunError
from distill3d.models import load
from distill3d.report.pictures import to_uint8
from distill3d.showcase import look_round, turntable_yaws
from distill3d.stylize import StylizeOptions, _given, stylize
from tests.photo_runs import a_photo, a_run

SMALL = StylizeOptions(frames=4, resolution=12)
WHOLE = {"photo.png", "sheet.png", "turntable.webp", "head.glb", "stylize.json", "index.html"}


pytestmark = pytest.mark.usefixtures("photo_toys")


@pytest.fixture(scope="module")
def run(tmp_path_factory, photo_toys):
    return a_run(tmp_path_factory.mktemp("runs") / "mine")


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return a_photo(tmp_path / "My Aunt.png")


def files(folder):
    return {path.name for path in folder.iterdir()}


def test_everything_is_written_into_a_folder_named_after_photo_and_style(run, photo, tmp_path):
    made = stylize(photo, str(run), options=SMALL)
    assert made.folder.resolve() == tmp_path / "stylised" / "my-aunt-zombie"
    assert made.no_mesh is None
    assert files(made.folder) == WHOLE
    with Image.open(made.folder / "photo.png") as shown, Image.open(photo) as given:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(given))
    assert len(trimesh.load(made.folder / "head.glb", force="mesh").faces) > 0
    record = json.loads((made.folder / "stylize.json").read_text())
    assert (record["photo"], record["run"], record["style"]) == ("My Aunt.png", "mine", "zombie")
    assert record["settings"] == {"original": True, "frames": 4, "resolution": 12, "mesh": True}
    assert files(tmp_path / "stylised") == {"my-aunt-zombie"}, "temporary files are left"


def test_the_turntable_is_the_photographs_subject_before_above_after(run, photo):
    made = stylize(photo, str(run), options=SMALL)
    stylised = load(run)
    original = stylised.original
    codes = original.codes_of_photos([photo])
    yaws = turntable_yaws(original.defaults.around, 4)
    rows = [look_round(r, r.scene(codes), yaws) for r in (original, stylised)]
    assert not torch.allclose(*rows)
    with Image.open(made.folder / "turntable.webp") as turn:
        assert turn.n_frames == 4
        for frame, pair in enumerate(zip(*rows)):
            turn.seek(frame)
            seen = np.asarray(turn.convert("RGB").resize((16, 32), Image.Resampling.BOX)).astype(int)
            expected = np.concatenate([to_uint8(picture) for picture in pair]).astype(int)
            assert abs(seen - expected).mean() < 12  # a lossy format of an enlarged picture


def test_another_photograph_is_another_subject(run, photo, tmp_path):
    pictures = []
    for seed in (0, 1):
        made = stylize(a_photo(tmp_path / f"{seed}.png", seed), str(run), options=SMALL)
        pictures.append((made.folder / "sheet.png").read_bytes())
    assert pictures[0] != pictures[1]


def test_scenes_are_made_once_for_each_renderer(run, photo, monkeypatch):
    from tests.toys import PhotoToy

    scene, made = PhotoToy.scene, []
    monkeypatch.setattr(PhotoToy, "scene", lambda self, codes: made.append(id(self)) or scene(self, codes))
    stylize(photo, str(run), options=SMALL)
    assert len(made) == len(set(made)) == 2
    made.clear()
    stylize(photo, str(run), options=StylizeOptions(frames=2, mesh=False, original=False))
    assert len(made) == 1


def test_without_the_original_there_is_one_row(run, photo):
    both = stylize(photo, str(run), options=SMALL).folder
    one = stylize(photo, str(run), options=StylizeOptions(frames=4, original=False, mesh=False)).folder
    assert one.name == "my-aunt-zombie-2"  # the first one stays
    assert files(one) == WHOLE - {"head.glb"}
    heights = {name: [Image.open(f / name).height for f in (one, both)] for name in ("turntable.webp", "sheet.png")}
    assert heights["turntable.webp"][1] == 2 * heights["turntable.webp"][0]
    assert heights["sheet.png"][1] > 1.5 * heights["sheet.png"][0]
    assert "head.glb" not in (one / "index.html").read_text()


def test_the_page_links_only_to_files_beside_it_and_escapes_names(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo = a_photo(tmp_path / "<b>&amp; 1.png")
    made = stylize(photo, str(run), options=SMALL)
    page = made.page.read_text(encoding="utf-8")
    links = re.findall(r"""(?:src|href)="([^"]*)\"""", page)
    assert {unquote(link) for link in links} == {"photo.png", "sheet.png", "turntable.webp", "head.glb"}
    assert "<b>" not in page
    assert "&lt;b&gt;&amp;amp; 1.png" in page
    assert "None" not in page


def test_views_stay_within_the_backbones_own_range(run, photo, monkeypatch):
    from dataclasses import replace

    from distill3d.cameras import CameraPrior
    from tests.toys import PhotoToy

    render, seen = PhotoToy.render, []

    def noted(self, scene, cameras, **options):
        seen.append(float(torch.rad2deg(cameras.yaw())))
        return render(self, scene, cameras, **options)

    monkeypatch.setattr(PhotoToy, "render", noted)
    narrow = property(
        lambda self: replace(self.__dict__["own"], around=CameraPrior(yaw=20)),
        lambda self, value: self.__dict__.update(own=value),
    )
    monkeypatch.setattr(PhotoToy, "defaults", narrow)
    stylize(photo, str(run), options=SMALL)
    assert len(seen) == 2 * (5 + 4)
    assert max(map(abs, seen)) == pytest.approx(20, abs=1e-3)


def test_a_run_whose_own_subjects_are_gone_still_reads_a_photograph(photo, tmp_path):
    (tmp_path / "old.png").write_bytes(photo.read_bytes())
    run = a_run(tmp_path / "run", backbone_options={"subjects": (str(tmp_path / "old.png"),)})
    (tmp_path / "old.png").unlink()
    assert stylize(photo, str(run), options=SMALL).page.exists()


def test_a_backbone_that_draws_its_subjects_is_refused(photo, tmp_path):
    run = a_run(tmp_path / "run", "toy")
    with pytest.raises(ConfigError, match=r"Backbone 'toy' draws its subjects itself; .* as triposr or openlrm"):
        stylize(photo, str(run), options=SMALL)
    assert not (tmp_path / "stylised").exists()


def test_what_is_no_picture_is_refused_and_leaves_nothing(run, photo, tmp_path):
    with pytest.raises(ConfigError, match=r"There is no picture .*none\.png"):
        stylize(tmp_path / "none.png", str(run), options=SMALL)
    with pytest.raises(ConfigError, match="There is no picture"):
        stylize(tmp_path / ("long" * 100), str(run), options=SMALL)
    photo.write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="no picture that can be read"):
        stylize(photo, str(run), options=SMALL)
    assert files(tmp_path) == {photo.name}


def test_a_kill_while_writing_leaves_nothing_half_written(run, photo, tmp_path, monkeypatch):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_page", killed)
    for out in (None, tmp_path / "mine"):
        with pytest.raises(KeyboardInterrupt):
            stylize(photo, str(run), out, options=SMALL)
        assert files(tmp_path) == {photo.name}


def test_a_folder_with_something_in_it_is_not_touched(run, photo, tmp_path):
    before = photo.read_bytes()
    with pytest.raises(RunError, match="is not empty"):
        stylize(photo, str(run), tmp_path, options=SMALL)
    assert files(tmp_path) == {photo.name} and photo.read_bytes() == before
    (tmp_path / "empty").mkdir()
    assert stylize(photo, str(run), tmp_path / "empty", options=SMALL).folder == tmp_path / "empty"
    assert files(tmp_path / "empty") == WHOLE


def test_a_failure_takes_away_what_it_made_and_nothing_else(run, photo, tmp_path):
    photo.write_bytes(b"no picture")
    mine = tmp_path / "mine"
    for folder in (mine, tmp_path / "stylised"):
        folder.mkdir()
    for out in (None, mine, mine / "deep" / "down", tmp_path / "new" / "down"):
        with pytest.raises(ConfigError):
            stylize(photo, str(run), out, options=SMALL)
        assert files(tmp_path) == {photo.name, "mine", "stylised"} and not files(mine)


def test_the_folder_that_one_is_in_is_not_replaced(run, photo, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for out in (Path("."), here):
        with pytest.raises(RunError, match="is where you are"):
            stylize(photo, str(run), out, options=SMALL)
    assert not files(here)


def test_a_place_that_cannot_be_written_is_known_before_the_work(run, photo, monkeypatch):
    from tests.toys import PhotoToy

    monkeypatch.setattr(PhotoToy, "codes_of_photos", lambda self, paths: pytest.fail("the photograph was read"))
    with pytest.raises(RunError, match="Cannot write"):
        stylize(photo, str(run), photo / "mine", options=SMALL)


def test_without_the_extra_the_rest_is_written_and_the_reason_given(run, photo, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.measure", None)
    made = stylize(photo, str(run), options=SMALL)
    assert files(made.folder) == WHOLE - {"head.glb"}
    assert "pip install 'distill3d[mesh]'" in made.no_mesh
    with pytest.raises(MissingExtraError):
        stylize(photo, str(run), options=StylizeOptions(frames=2, mesh=True))


def test_options_that_make_no_sense_are_refused():
    for options in ({"frames": 1}, {"resolution": 7}):
        with pytest.raises(ConfigError, match="at least 2 frames"):
            StylizeOptions(**options)


def test_the_photograph_on_the_page_is_upright_and_without_what_a_camera_noted(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.zeros((30, 60, 3), np.uint8)
    pixels[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "a camera"  # turned by a quarter; its maker
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    made = stylize(tmp_path / "turned.jpg", str(run), options=StylizeOptions(frames=2, mesh=False))
    with Image.open(made.folder / "photo.png") as shown:
        assert shown.size == (30, 60)
        assert not shown.getexif()
        assert np.asarray(shown)[5, 15].min() > 200 > 50 > np.asarray(shown)[55, 15].max()


def test_sixteen_bits_are_scaled_on_the_page(tmp_path):
    Image.fromarray(np.full((4, 4), 32896, np.uint16)).save(tmp_path / "deep.png")
    assert np.unique(np.asarray(_given(tmp_path / "deep.png"))).tolist() == [128]
