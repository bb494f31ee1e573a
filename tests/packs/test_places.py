"""Paths of a disk do not travel, and are refused where they come from elsewhere; settings are neither."""

import pytest

from distill3d.config import DistillConfig
from distill3d.errors import PackError
from distill3d.packs.config import CONFIG
from distill3d.packs.pack import open_pack
from distill3d.packs.places import is_place, lying_here, without_places
from tests.packs.small_pack import small_pack

PATHS = (
    "/data/w.pkl",
    "~/w.pkl",
    "~",
    "./w.pkl",
    "../w.pkl",
    ".",
    "..",
    "a/../../w.pkl",
    "C:\\w.pkl",
    "c:/w.pkl",
    "c:w.pkl",
    "\\\\host\\share\\w.pkl",
    "\\w.pkl",
    ".\\w.pkl",
    "a\\..\\w.pkl",
    "file:///data/w.pkl",
)
NAMES = ("white", "ffhq512", "user/name", "user/name@v1", "https://host/w", "..a", ".a", "a..b/c", "10:20", "", "1e-3")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a file, and a file in a folder."""
    here = tmp_path / "here"
    (here / "user").mkdir(parents=True)
    (here / "white").touch()
    (here / "user" / "name").touch()
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_places_wherever_they_stand(path):
    assert is_place(path) and is_place(["a", path]) and is_place({"a": ({"b": path},)})


@pytest.mark.parametrize("name", NAMES)
def test_names_are_none_whatever_lies_here(here, name):
    assert not is_place(name) and not is_place([name, {"a": name}])


@pytest.mark.parametrize("value", [None, 7, 0.5, True, [], {}, [1, None]])
def test_what_is_no_text_is_no_place(here, value):
    assert not is_place(value) and lying_here(value) is None


def test_what_lies_here_is_found_anywhere_in_a_value(here):
    assert lying_here("white") == lying_here([1, {"a": "black", "b": ["white"]}]) == "white"
    assert lying_here("user/name") == "user/name" and lying_here("user") == "user"
    assert lying_here(["black", "", "user/nobody", "white\0", "n" * 10_000]) is None


def test_a_setting_travels_also_where_a_file_of_its_name_lies(here):
    settings = {"background": "white", "sizes": (1, 2), "model": "user/nobody", "subjects": ("white",)}
    config = DistillConfig(style="zombie", backbone="toy", backbone_options=settings, weights="white")
    kept = without_places(config)
    assert kept.backbone_options == {"background": "white", "sizes": (1, 2), "model": "user/nobody"}
    assert kept.weights == "white"


@pytest.mark.parametrize("path", [*PATHS, "user/name", "user\\..\\white"])
def test_paths_of_this_disk_do_not_travel(here, path):
    config = DistillConfig(
        style="zombie",
        backbone="toy",
        weights=path,
        scorer_weights=path,
        controlnets={"canny": path, "depth": "user/nobody"},
        backbone_options={"latents": path, "list": ("a", path), "deep": {"a": [path]}, "colour": "red"},
    )
    kept = without_places(config)
    assert kept.weights is None and kept.scorer_weights is None
    assert kept.controlnets == {"depth": "user/nobody"} and kept.backbone_options == {"colour": "red"}


@pytest.mark.parametrize("value", ["user/name", "white"])
@pytest.mark.parametrize(
    ("what", "change"),
    [
        (
            "the backbone's background",
            ('"backbone_options": {}', '"backbone_options": {{"background": ["red", "{}"]}}'),
        ),
        ("its base", ('"weights": "embedded"', '"weights": "{}"')),
    ],
)
def test_a_pack_is_refused_where_a_file_of_a_settings_name_lies_and_read_elsewhere(
    here, tmp_path, monkeypatch, what, change, value
):
    folder = small_pack(tmp_path / "pack").folder
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(text.replace(change[0], change[1].format(value)))
    assert (folder / CONFIG).read_text() != text
    with pytest.raises(PackError) as refused:
        open_pack(folder)
    assert str(refused.value) == (
        f"pack is refused here: it names {value!r} as {what}, and here lies a file called {value!r}: run it from "
        "another folder."
    )
    monkeypatch.chdir(tmp_path)
    assert open_pack(folder).content.step == 2
