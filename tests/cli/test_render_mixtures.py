"""`distill3d render` with several styles, strengths and parts, as a user meets it."""

import numpy as np
import pytest
from PIL import Image

from distill3d.cli.mixtures import mixture
from distill3d.errors import ConfigError
from distill3d.models import load
from distill3d.report.pictures import to_picture
from distill3d.showcase import look
from tests.varied_runs import two_runs

FEW = ("--seeds", "3", "--views", "1", "--out")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """runs/one and runs/two."""
    with two_runs(tmp_path_factory.mktemp("here") / "runs") as both:
        yield both


@pytest.fixture
def here(runs, command, monkeypatch):
    """The command, typed where runs/ lies."""
    monkeypatch.chdir(runs[0].parents[1])

    def render(out, *words):
        code, said = command("render", *words, *FEW, out)
        assert code == 0, said
        assert f"Wrote {len(list(out.iterdir()))} pictures to {out}" in said.replace("\n", "")
        return pixels(out / "stylised_seed0003_view0.png")

    return render


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def picture_of(renderer):
    return np.asarray(to_picture(look(renderer, [3], [0.0])[0, 0]))


def test_strength_goes_from_the_original_to_the_run_and_beyond(here, runs, tmp_path):
    original = here(tmp_path / "none", "one", "--strength", "0", "--original")
    np.testing.assert_array_equal(original, pixels(tmp_path / "none" / "original_seed0003_view0.png"))
    run = here(tmp_path / "all", "one", "--strength", "1")
    np.testing.assert_array_equal(run, here(tmp_path / "plain", "one"))
    np.testing.assert_array_equal(run, picture_of(load(runs[0])))
    beyond = here(tmp_path / "more", "one", "--strength", "1.5")
    np.testing.assert_array_equal(beyond, picture_of(load(runs[0]).blend({"one": 1.5})))
    assert (original != run).any() and (run != beyond).any()


def test_packs_are_mixed_in_their_amounts(here, runs, tmp_path):
    mixed = here(tmp_path / "mixed", "--pack", "one:0.6", "--pack", "two:0.4")
    np.testing.assert_array_equal(mixed, picture_of(load(runs[0]).blend({"one": 0.6, str(runs[1]): 0.4})))
    whole = here(tmp_path / "whole", "--pack", "one", "--pack", str(runs[1]))
    np.testing.assert_array_equal(whole, picture_of(load(runs[0]).blend({str(runs[1]): 1.0})))
    half = here(tmp_path / "half", "--pack", "one:1", "--pack", "two", "--strength", "0.5")
    np.testing.assert_array_equal(half, picture_of(load(runs[0]).blend({"one": 0.5, str(runs[1]): 0.5})))


def test_parts_have_strengths_of_their_own(here, runs, tmp_path):
    stylised = load(runs[0])
    words = ("one", "--geometry", "0.25", "--texture", "1.5")
    parts = here(tmp_path / "parts", *words)
    np.testing.assert_array_equal(parts, picture_of(stylised.blend({"one": {"geometry": 0.25, "texture": 1.5}})))
    flat = here(tmp_path / "flat", "--pack", "one:0.5", "--geometry", "0", "--strength", "0.8")
    np.testing.assert_array_equal(flat, picture_of(stylised.blend({"one": {"texture": 0.4}})))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Say which style: either RUN, or --pack NAME:AMOUNT once or more."),
        (("one", "--pack", "two"), "Say which style: either RUN, or --pack"),
        (("--pack", "one:0.5", "--pack", "one:0.5"), "A style is named twice"),
        (("--pack", "one:2"), "--pack takes NAME:AMOUNT with an amount from 0 to 1.5, got 'one:2'"),
        (("--pack", "one:-1"), "--pack takes NAME:AMOUNT"),
        (("--pack", ":0.5"), "--pack takes NAME:AMOUNT"),
        (("--pack", "one:1.5", "--strength", "1.5"), "That is 2.25 of one: --strength, --geometry and --texture"),
        (("--pack", "two:0.1", "--pack", "one", "--texture", "1.5", "--strength", "1.1"), "That is 1.65 of one:"),
        (("one", "--strength", "1.5", "--geometry", "1.1"), "and together they make at most 1.5."),
        (("--pack", "one", "--pack", "nowhere"), "There is no run folder nowhere"),
        (("--pack", "one:much"), "takes NAME:AMOUNT with an amount from 0 to 1.5, got 'one:much'"),
        (("one", "--strength", "1.6"), "Invalid value for '--strength'"),
        (("one", "--geometry", "-0.1"), "Invalid value for '--geometry'"),
        (("one", "--texture", "much"), "Invalid value for '--texture'"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(command, runs, monkeypatch, tmp_path, words, sentence):
    monkeypatch.chdir(runs[0].parents[1])
    code, said = command("render", *words, *FEW, tmp_path / "out")
    assert code != 0
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said and not (tmp_path / "out").exists()


def test_parts_of_a_backbone_that_tells_none_apart_are_refused(command, runs, tmp_path):
    from tests.photo_runs import a_run, photo_toy_is_installed

    with photo_toy_is_installed():
        a_run(tmp_path / "plain", "toy")
        code, said = command("render", "plain", "--geometry", "0.5", *FEW, "out")
    assert code == 1
    assert "ToyTriplane does not tell geometry from texture" in " ".join(said.split())
    assert not (tmp_path / "out").exists()


def test_amounts_are_read_as_they_are_typed(tmp_path, monkeypatch):
    assert mixture("run", []) == {"run": 1.0}
    assert mixture("run", [], strength=0.5, texture=0.5) == {"run": {"geometry": 0.5, "texture": 0.25}}
    assert mixture(None, ["a:0.6", "user/b@v1:.4", "c"]) == {"a": 0.6, "user/b@v1": 0.4, "c": 1.0}
    assert mixture(None, ["a:1.2", "b:0"], strength=1.25) == {"a": pytest.approx(1.5), "b": 0}
    assert mixture("run", [], 1.5, geometry=0.1, texture=1.0) == {
        "run": {"geometry": pytest.approx(0.15), "texture": 1.5}
    }
    monkeypatch.chdir(tmp_path)
    (tmp_path / r"C:\runs\zombie").mkdir(parents=True)
    assert mixture(None, [r"C:\runs\zombie", r"C:\runs\pixar:0.5"]) == {r"C:\runs\zombie": 1.0, r"C:\runs\pixar": 0.5}
    for amount in ("nan", "inf", "1.6", "-0.5", "", "50%", "0,5"):
        with pytest.raises(ConfigError, match="an amount from 0 to"):
            mixture(None, [f"a:{amount}"])
