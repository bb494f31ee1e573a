"""A run is a folder, or six files of the Hub that say nothing of another machine's disk."""

import json
import shutil
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

from distill3d.config import DistillConfig
from distill3d.errors import RunError, WeightsError
from distill3d.hub import PUBLISHED, find_run, without_places
from distill3d.runs import load_original_and_run, read_config
from distill3d.stylize import StylizeOptions, stylize
from tests.photo_runs import a_photo, a_run, photo_toy_is_installed


@pytest.fixture(scope="module", autouse=True)
def _installed():
    with photo_toy_is_installed():
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory, _installed):
    """What somebody published, with files beside it that are nobody's business."""
    folder = tmp_path_factory.mktemp("hub")
    photo = a_photo(folder / "secret.png")
    run = a_run(folder / "run", backbone_options={"subjects": (str(photo),)})
    (run / "evil.py").write_text("raise SystemExit")
    return run


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """The Hub, with one model; it notes what it was asked for."""
    asked = []

    def snapshot_download(repo_id, *, local_dir, allow_patterns):
        asked.append((repo_id, allow_patterns))
        if repo_id != "somebody/zombies":
            raise RepositoryNotFoundError("404 Client Error\nmore", response=SimpleNamespace(headers={}, request=None))
        local_dir.mkdir(parents=True, exist_ok=True)
        for path in published.rglob("*"):
            name = path.relative_to(published).as_posix()
            if path.is_file() and any(fnmatch(name, pattern) for pattern in allow_patterns):
                shutil.copyfile(path, local_dir / name)
        return str(local_dir)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return asked


def test_a_folder_is_taken_as_it_is_and_nothing_is_asked(hub, published):
    before = (published / "config.json").read_bytes()
    assert find_run(str(published)) == published
    assert hub == []
    assert (published / "config.json").read_bytes() == before


def test_exactly_the_files_of_a_run_are_downloaded(hub, tmp_path):
    folder = find_run("somebody/zombies")
    assert folder.is_relative_to(tmp_path / "cache")
    assert {path.name for path in folder.iterdir()} == set(PUBLISHED)
    assert hub == [("somebody/zombies", list(PUBLISHED))]
    names = "config.json base.json run.json weights.safetensors versions.json licences.json"
    assert set(PUBLISHED) == set(names.split())


def test_a_downloaded_run_loads_without_its_subjects(hub, published):
    config = read_config(find_run("somebody/zombies"))
    assert "subjects" in read_config(published).backbone_options
    assert config.backbone_options == {}
    theirs, mine = (load_original_and_run(run)[1].state_dict() for run in (published, find_run("somebody/zombies")))
    assert all(theirs[name].equal(mine[name]) for name in theirs)


def test_a_photograph_is_stylised_by_a_downloaded_run(hub, tmp_path):
    made = stylize(a_photo(tmp_path / "a.png"), "somebody/zombies", options=StylizeOptions(frames=2, mesh=False))
    assert json.loads((made.folder / "stylize.json").read_text())["run"] == "somebody/zombies"


def test_a_folder_here_comes_before_the_hub(hub, published, tmp_path):
    shutil.copytree(published, tmp_path / "somebody" / "zombies")
    assert find_run("somebody/zombies").resolve() == tmp_path / "somebody" / "zombies"
    assert hub == []


def test_a_model_that_is_not_there_is_one_sentence(hub):
    with pytest.raises(RunError, match=r"no run folder runs/zombei, and the Hub has no model of that name"):
        find_run("runs/zombei")


@pytest.mark.parametrize("model", ["nowhere", "a/b/c", "/tmp/none", "./a/b", "../a", "a/b?x", "", "a b/c", "a" * 300])
def test_what_is_neither_folder_nor_id_is_never_asked_for(hub, model):
    with pytest.raises(RunError, match=r"no Hub id, which looks like user/name|is no run folder"):
        read_config(find_run(model))
    assert hub == []


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("no cached\nlong advice"), ConnectionError("unreachable")])
def test_no_network_is_one_sentence(hub, monkeypatch, error):
    def down(*arguments, **options):
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", down)
    with pytest.raises(RunError, match="could not be downloaded from the Hub; is there a network") as caught:
        find_run("somebody/zombies")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["config.json", "run.json", "weights.safetensors"])
def test_a_model_that_is_no_run_is_said_so(hub, published, monkeypatch, missing, tmp_path):
    import huggingface_hub

    download = huggingface_hub.snapshot_download

    def incomplete(repo_id, *, local_dir, allow_patterns):
        return download(repo_id, local_dir=local_dir, allow_patterns=[p for p in allow_patterns if p != missing])

    monkeypatch.setattr("huggingface_hub.snapshot_download", incomplete)
    with pytest.raises(RunError, match=f"is no run that distill3d published: it has no {missing}"):
        find_run("somebody/zombies")


def test_damaged_downloads_are_refused(hub):
    folder = find_run("somebody/zombies")
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(data)
    with pytest.raises(WeightsError, match="damaged"):
        load_original_and_run(folder)


@pytest.mark.parametrize("place", ["/home/me/w.safetensors", "C:\\w", "./w", "../w", "~/w"])
def test_places_on_another_disk_are_left_out(place):
    config = DistillConfig(
        style="zombie",
        weights=place,
        scorer_weights=place,
        controlnets={"depth": place, "canny": "somebody/canny"},
        backbone_options={"subjects": ("a",), "table": place, "psi": 0.7, "kind": "small"},
    )
    assert without_places(config) == DistillConfig(
        style="zombie", controlnets={"canny": "somebody/canny"}, backbone_options={"psi": 0.7, "kind": "small"}
    )


def test_names_and_hub_ids_stay():
    config = DistillConfig(style="zombie", weights="stabilityai/TripoSR", scorer_weights="somebody/sd")
    assert without_places(config) == config


def test_a_file_that_happens_to_lie_here_is_not_what_a_downloaded_config_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "weights.1").touch()
    assert without_places(DistillConfig(style="zombie", weights="someone/weights.1")).weights is None
    assert without_places(DistillConfig(style="zombie", weights="someone/else")).weights == "someone/else"
