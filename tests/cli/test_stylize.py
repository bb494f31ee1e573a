"""`distill3d stylize` as a user meets it."""

import pytest

from tests.photo_runs import a_photo, a_run

pytestmark = pytest.mark.usefixtures("photo_toys")


@pytest.fixture(scope="module")
def run(tmp_path_factory, photo_toys):
    return a_run(tmp_path_factory.mktemp("runs") / "mine")


def test_the_command_says_where_the_page_is(command, run, tmp_path):
    a_photo(tmp_path / "aunt.png")
    code, said = command("stylize", "aunt.png", "--model", run, "--frames", "2", "--resolution", "8")
    assert code == 0, said
    assert "Wrote stylised/aunt-zombie/index.html" in said
    assert "Without a mesh" not in said
    assert (tmp_path / "stylised" / "aunt-zombie" / "head.glb").exists()


def test_a_mesh_that_cannot_be_made_is_one_line_unless_it_is_insisted_on(command, run, tmp_path, monkeypatch):
    from tests.toys import PhotoToy

    monkeypatch.setattr(PhotoToy, "surface_density", 1e6)
    a_photo(tmp_path / "aunt.png")
    words = ("stylize", "aunt.png", "--model", run, "--frames", "2", "--resolution", "8")
    code, said = command(*words, "--out", "mine", "--no-original")
    assert code == 0, said
    assert "Without a mesh: Nothing here is denser" in " ".join(said.split())
    code, said = command(*words, "--mesh")
    assert code == 1
    assert "Nothing here is denser" in " ".join(said.split())
    code, said = command(*words, "--no-mesh")
    assert code == 0
    assert "mesh" not in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none.png", "--model", "RUN"), "There is no picture none.png"),
        (("aunt.png", "--model", "nowhere"), "There is no run folder nowhere, nor runs/nowhere; and it is no Hub id"),
        (("aunt.png", "--model", "."), "is no run folder: it has no config.json"),
        (("aunt.png", "--model", "RUN", "--out", "."), "is not empty"),
        (("aunt.png", "--model", "RUN", "--device", "gpu"), "gpu"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(command, run, tmp_path, arguments, sentence):
    a_photo(tmp_path / "aunt.png")
    code, said = command("stylize", *(str(run) if word == "RUN" else word for word in arguments))
    assert code == 1
    assert sentence in " ".join(said.split())
    assert "Traceback" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"aunt.png"}
