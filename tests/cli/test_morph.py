"""`distill3d morph` as a user meets it."""

import pytest
from PIL import Image

from tests.varied_runs import two_runs

FEW = ("--seeds", "0,3", "--frames", "2", "--columns", "3")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with two_runs(tmp_path_factory.mktemp("here") / "runs") as both:
        yield both


def test_one_style_is_swept_and_several_are_gone_along(command, runs, tmp_path, monkeypatch):
    monkeypatch.chdir(runs[0].parents[1])
    for models, out in ((("one", "--strengths", "0.5-1"), "sweep"), (("one", "two", "--turn"), "way")):
        code, said = command("morph", *models, *FEW, "--out", tmp_path / out)
        assert code == 0, said
        assert f"Wrote {tmp_path / out}/sheet.png and {tmp_path / out}/morph.webp" in said.replace("\n", "")
        with Image.open(tmp_path / out / "morph.webp") as video:
            assert video.n_frames == 4 and video.width == 2 * video.height  # two subjects
    assert {path.name for path in tmp_path.iterdir()} == {"sweep", "way"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("one", "two", "--strengths", "0-1"), "Strengths are of one model, got 2: one two."),
        (("one", "runs/one"), "one and runs/one are the same style; name it once."),
        (("one", "--strengths", "0-2"), "--strengths takes two numbers from 0 to 1.5, as 0-1.5, got '0-2'."),
        (("one", "--seeds", "some"), "--seeds takes numbers"),
        (("one", "--format", "avi"), "A video is one of webp, gif, mp4, got 'avi'."),
        (("one", "nowhere"), "There is no run folder nowhere"),
        (("one", "--device", "gpu"), "gpu"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(command, runs, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(runs[0].parents[1])
    code, said = command("morph", *words, "--out", tmp_path / "out")
    assert code == 1
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said and not (tmp_path / "out").exists()
