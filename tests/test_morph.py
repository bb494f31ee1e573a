"""A sweep of strengths, and the way from style to style: the sheet and the video show exactly those mixtures."""

import sys
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from distill3d import morph as module
from distill3d.cli.morph import strengths_of
from distill3d.errors import ConfigError, MissingExtraError, RunError
from distill3d.models import load, load_palette
from distill3d.morph import Course, MorphOptions, Shot, _look, _yaws, morph
from distill3d.report.pictures import contact_sheet
from distill3d.report.video import save_video
from distill3d.showcase import look, turntable_yaws
from tests.varied_runs import two_runs

SMALL = {"seeds": (0, 1), "frames": 3, "columns": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with two_runs(tmp_path_factory.mktemp("runs")) as both:
        yield {run.name: str(run) for run in both}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def files(folder):
    return {path.name for path in folder.iterdir()}


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def seen(stylised, seeds=(0, 1), yaw=0.0):
    """(S, 3, H, W) as a morph keeps it."""
    return look(stylised, seeds, [yaw])[:, 0].half()


def test_the_sheet_of_a_sweep_has_subjects_down_and_strengths_across(runs, out):
    made = morph([runs["one"]], out, options=MorphOptions(strengths=(0, 1), **SMALL))
    assert files(out) == {"sheet.png", "morph.webp"} and made.sheet == out / "sheet.png"
    stylised = load(runs["one"])
    columns = [seen(stylised.blend({"one": amount})) for amount in (0.0, 0.5, 1.0)]
    expected = contact_sheet(torch.stack(columns, 1), ["seed 0", "seed 1"], ["0", "0.5", "1"])
    np.testing.assert_array_equal(pixels(made.sheet), np.asarray(expected))
    assert torch.equal(columns[0], seen(stylised.original)) and torch.equal(columns[2], seen(stylised))
    assert not torch.equal(columns[0], columns[2])


def test_the_sheet_of_two_styles_goes_from_all_of_one_to_all_of_the_other(runs, out):
    made = morph([runs["one"], runs["two"]], out, options=MorphOptions(**SMALL))
    mixed = load(runs["one"]).blend({runs["two"]: 0.0})
    columns = [seen(mixed.blend({"one": 1 - t, "two": t})) for t in (0, 0.5, 1)]
    expected = contact_sheet(torch.stack(columns, 1), ["seed 0", "seed 1"], ["one", "0.50 + 0.50", "two"])
    np.testing.assert_array_equal(pixels(made.sheet), np.asarray(expected))
    assert torch.equal(columns[0], seen(load(runs["one"]))) and torch.equal(columns[2], seen(load(runs["two"])))


def test_the_video_goes_there_and_back_and_loops(runs, out):
    made = morph([runs["one"]], out, options=MorphOptions(strengths=(0, 1.5), **SMALL))
    with Image.open(made.video) as video:
        assert video.n_frames == 2 * SMALL["frames"]
        assert video.info["loop"] == 0
        frames = []
        for i in range(video.n_frames):
            video.seek(i)
            frames.append(np.asarray(video.convert("RGB")).astype(int))
    for i in (1, 2):  # the way back is the way there
        assert abs(frames[i] - frames[-i]).mean() < 2  # a lossy format
    assert abs(frames[0] - frames[3]).mean() > 5 * abs(frames[1] - frames[-1]).mean()


def test_every_mixture_is_made_once_and_one_at_a_time(runs, out, monkeypatch):
    from tests.toys import ToyTriplane

    made, mixtures, scene = [], weakref.WeakSet(), ToyTriplane.scene

    def noted(self, codes):
        made.append((tuple(self.amounts.values()), float(codes.flatten()[0])))
        mixtures.add(self)
        assert len(mixtures) == 1
        return scene(self, codes)

    monkeypatch.setattr(ToyTriplane, "scene", noted)
    morph([runs["one"], runs["two"]], out, options=MorphOptions(turn=True, **SMALL))
    assert len(made) == len(set(made)) == 2 * 5  # subjects, by mixtures: two ends, half way, and 2 frames between


def test_a_course_is_at_its_stops_exactly_and_straight_between_them():
    course = Course.along(["a", "b", "c"])
    assert [course.at(p) for p in (0, 1, 2, 3)] == [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)]
    assert course.at(1.25) == (0, 0.75, 0.25)
    assert course.at(2.9) == (0.9, 0, 0.1)
    assert [course.label(p) for p in (0, 1.25, 2, 2.9, 3)] == ["a", "0.75 + 0.25", "c", "0.10 + 0.90", "a"]
    sweep = Course.of_strengths((0, 1.5))
    assert [sweep.at(p) for p in sweep.columns(7)] == [(0,), (0.25,), (0.5,), (0.75,), (1,), (1.25,), (1.5,)]


@pytest.mark.parametrize("stops", [2, 3, 4])
@pytest.mark.parametrize("count", [2, 5, 7])
def test_every_style_has_a_column_of_its_own_and_the_loop_closes(stops, count):
    course = Course.along([str(i) for i in range(stops)])
    places = course.columns(count)
    assert len(places) >= count
    assert {course.label(p) for p in places} >= set(course.names)
    assert course.at(places[-1]) == course.stops[1 if stops == 2 else 0]
    frames = [course.at(p) for p in course.frames(6)]
    assert len(frames) == 6 * stops and [frames[6 * i] for i in range(stops)] == list(course.stops)
    steps = [np.abs(np.subtract(a, b)).max() for a, b in zip(frames, [*frames[1:], frames[0]])]
    assert max(steps) < 0.3  # nowhere a jump, nor from the last to the first


def test_subjects_that_turn_show_every_stop_from_the_front(runs):
    palette = load_palette([runs["one"], runs["two"]])
    names = list(palette.styles)
    assert names == ["one", "two"]
    yaws = _yaws(palette.original, MorphOptions(turn=True, frames=4))
    turn = turntable_yaws(palette.original.defaults.around, 4)
    assert [yaw for yaw, _ in zip(yaws, range(8))] == turn + turn
    assert turn[0] == 0 and len(set(turn)) == 4
    shots = [Shot((1.0, 0.0), turn[1]), Shot((1.0, 0.0), 0.0), Shot((0.0, 0.5), 10.0)]
    found = _look(palette, (1,), shots, lambda *told: None)
    for shot in shots:
        mixture = palette.mixed(dict(zip(names, shot.amounts)))
        assert torch.equal(found[shot], seen(mixture, (1,), shot.yaw))


def test_progress_is_told_and_ends(runs, out):
    told = []
    morph([runs["one"]], out, options=MorphOptions(**SMALL), progress=lambda *what: told.append(what))
    assert told[0] == ("loading", 0, 1)
    rendering = [what for what in told if what[0] == "rendering"]
    assert [done for _, done, _ in rendering] == list(range(1, rendering[0][2] + 1))
    assert told[-1] == ("writing the video", 1, 1)


@pytest.mark.parametrize("failing", ["_look", "save_picture", "save_video"])
@pytest.mark.parametrize("wrong", [KeyboardInterrupt, OSError])
def test_what_fails_leaves_nothing(runs, out, monkeypatch, failing, wrong):
    def fail(*arguments, **options):
        raise wrong

    monkeypatch.setattr(module, failing, fail)
    for existed in (False, True):
        if existed:
            out.mkdir()
        with pytest.raises((KeyboardInterrupt, RunError)):
            morph([runs["one"]], out, options=MorphOptions(**SMALL))
        assert files(out.parent) == ({"out"} if existed else set())
        assert not existed or not files(out)


def test_a_place_that_is_taken_is_known_before_the_work(runs, out, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_palette", lambda *a, **k: pytest.fail("it was loaded"))
    out.mkdir()
    monkeypatch.chdir(out)
    with pytest.raises(RunError, match="is where you are"):
        morph([runs["one"]], out)
    monkeypatch.chdir(tmp_path)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds other things, as 'mine\.txt'"):
        morph([runs["one"]], out)
    with pytest.raises(RunError, match="is no folder"):
        morph([runs["one"]], out / "mine.txt")
    assert files(out) == {"mine.txt"}


def test_models_that_make_no_way_are_refused(runs, out):
    cases = [
        ([], {}, "Say which style"),
        ([runs["one"], runs["one"]], {}, "are the same style"),
        ([runs["one"], runs["two"]], {"strengths": (0, 1)}, "Strengths are of one model, got 2"),
        ([runs["one"]], {"format": "avi"}, "one of webp, gif, mp4, got 'avi'"),
    ]
    for models, options, sentence in cases:
        with pytest.raises(ConfigError, match=sentence):
            morph(models, out, options=MorphOptions(**options))
    assert not out.exists()


@pytest.mark.parametrize(
    "options",
    [
        {"columns": 1},
        {"frames": 1},
        {"seeds": ()},
        {"fps": 0.0},
        {"yaw": float("nan")},
        {"strengths": (1.0, 1.0)},
        {"strengths": (0.0, float("inf"))},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        MorphOptions(**options)


@pytest.mark.parametrize(("text", "numbers"), [("0-1.5", (0, 1.5)), (".25-1", (0.25, 1)), (None, None)])
def test_strengths_are_read(text, numbers):
    assert strengths_of(text) == numbers


@pytest.mark.parametrize("text", ["", "1", "1-0", "0-2", "a-b", "0-1-2", "-1-1", "nan-1", "0-inf"])
def test_strengths_that_are_none_are_refused(text):
    with pytest.raises(ConfigError, match=r"--strengths takes two numbers from 0 to 1\.5"):
        strengths_of(text)


def test_a_gif_is_one_and_an_mp4_without_its_package_says_what_to_install(runs, out, monkeypatch):
    made = morph([runs["one"]], out, options=MorphOptions(format="gif", **SMALL))
    with Image.open(made.video) as video:
        assert video.format == "GIF" and video.is_animated
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr(module, "load_palette", lambda *a, **k: pytest.fail("it was loaded"))
    with pytest.raises(MissingExtraError, match=r"pip install 'distill3d\[video\]'"):
        morph([runs["one"]], out.with_name("mp4"), options=MorphOptions(format="mp4", **SMALL))


@pytest.mark.parametrize("size", [(16, 16), (17, 33)])
def test_an_mp4_holds_the_frames_with_even_sides(tmp_path, size):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="the extra `video`")
    levels = torch.linspace(-0.8, 0.8, 5)
    frames = levels.view(5, 1, 1, 1, 1).expand(5, 2, 3, *size)
    save_video(frames, tmp_path / "flat.mp4", fps=10)
    reader = ffmpeg.read_frames(str(tmp_path / "flat.mp4"))
    about = next(reader)
    width, height = about["size"]
    assert (height, width) == (size[0] + size[0] % 2, 2 * size[1] + (2 * size[1]) % 2)
    shown = [np.frombuffer(frame, np.uint8).mean() / 127.5 - 1 for frame in reader]
    np.testing.assert_allclose(shown, levels, atol=0.05)
    assert about["fps"] == 10 and files(tmp_path) == {"flat.mp4"}
