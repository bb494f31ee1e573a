"""`distill3d push`, `pull` and `list-packs`, against the stand-in Hub."""

import re

import pytest
import torch
from safetensors.torch import save

from distill3d.packs.config import ADAPTER, CARD, CONFIG, SHEET, TURNTABLE
from tests.packs.fakehub.fixtures import hub, hub_server  # noqa: F401  they are asked for by name
from tests.packs.small_pack import PICTURE, files_of, small_pack
from tests.photo_runs import a_run, photo_toy_is_installed

NAME = "somebody/zombies"
TENSORS = save({"a": torch.arange(6.0)})


@pytest.fixture(scope="module")
def toys():
    with photo_toy_is_installed():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, toys):
    return a_run(tmp_path_factory.mktemp("runs") / "zombie", backbone="toy")


@pytest.fixture
def signed_in(hub, monkeypatch):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    return hub


@pytest.fixture
def pack(tmp_path):
    return small_pack(tmp_path / "pack", tensors=TENSORS)


@pytest.fixture
def published(signed_in, pack):
    signed_in.put(NAME, files_of(pack.folder))
    return signed_in


def done(command, *words):
    code, said = command(*words)
    assert code == 0 and "hf_owner" not in said, said
    return said


def refused(command, *words):
    code, said = command(*words)
    assert code == 1 and "Traceback" not in said and "hf_owner" not in said, said
    return said


def test_a_run_is_pushed_and_pulled(command, signed_in, run):
    said = done(command, "push", run, NAME, "--no-pictures")
    assert "full: exactly the run's" in said
    commit = signed_in.model(NAME).at("main")
    assert f"Pushed: {signed_in.url}/{NAME}/commit/{commit.oid}" in said
    assert set(commit.files) == {".gitattributes", CONFIG, ADAPTER, CARD}
    said = done(command, "pull", NAME)
    assert re.search(r"style +zombie \(Portrait of a zombie\)\nbackbone +toy\n", said)
    assert "Downloading" in said and f"It is {NAME} for every command that takes a run" in said
    assert "Downloading" not in done(command, "pull", NAME)


def test_pictures_and_formats_are_chosen(command, signed_in, run):
    said = done(command, "push", run, NAME, "--format", "half", "--pictures")
    assert "half: pictures within" in said
    assert {SHEET, TURNTABLE} <= set(signed_in.model(NAME).at("main").files)
    assert "half: pictures within" in done(command, "pull", NAME)
    assert "one of full, half, low-rank" in refused(command, "push", run, NAME, "--format", "tiny")


def test_what_cannot_be_pushed_is_said_before_the_run_is_loaded(command, hub, run, monkeypatch):  # noqa: F811
    monkeypatch.setattr("distill3d.publish.make_pack", lambda *arguments, **options: pytest.fail("it was made"))
    assert "no token to push" in refused(command, "push", run, NAME)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert "may only read" in refused(command, "push", run, NAME)
    assert "is no name on the Hub" in refused(command, "push", run, "zombies")
    assert "no run folder" in refused(command, "push", "runs/none/there", NAME)


def test_parts_that_are_not_open_are_refused_before_the_hub_is_asked(command, signed_in, run):
    said = refused(command, "push", run, NAME, "--commercial-ok")
    assert "these parts do not allow it" in said and signed_in.asked == []


def test_a_packs_folder_is_pushed_with_the_card_of_its_new_name(command, signed_in, pack):
    done(command, "push", pack.folder, "studio/undead", "--private", "--revision", "v2", "--no-pictures")
    repo = signed_in.model("studio/undead")
    files = repo.at("v2").files
    assert repo.private and SHEET not in files
    assert files[ADAPTER] == TENSORS and files[CONFIG] == (pack.folder / CONFIG).read_bytes()
    assert b"studio/undead@v2" in files[CARD] and NAME.encode() not in files[CARD]
    assert "push its run to get low-rank" in refused(command, "push", pack.folder, NAME, "--format", "low-rank")


def test_a_pack_is_proposed(command, published, pack, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    (pack.folder / SHEET).write_bytes(PICTURE + b"another")
    said = done(command, "push", pack.folder, NAME, "--create-pr")
    assert f"Proposed: {published.url}/{NAME}/discussions/1" in said
    assert published.model(NAME).at("refs/pr/1").files[SHEET] == PICTURE + b"another"
    assert "may not write to somebody's" in refused(command, "push", pack.folder, NAME)


def test_a_damaged_pack_is_neither_pushed_nor_pulled(command, published, pack, tmp_path):
    (pack.folder / ADAPTER).write_bytes(TENSORS[:-1] + b"\x01")
    published.asked.clear()
    assert "its sha256 is another" in refused(command, "push", pack.folder, NAME)
    assert not published.of("POST|PUT")
    published.put(NAME, files_of(pack.folder))
    assert "its sha256 is another" in refused(command, "pull", NAME, "--out", "here")
    assert not (tmp_path / "here").exists()


def test_a_pack_is_pulled_into_a_folder_that_is_whole(command, published, pack, tmp_path):
    assert "Wrote here" in done(command, "pull", NAME, "--out", "here")
    assert files_of(tmp_path / "here") == files_of(pack.folder)
    assert not any(path.is_symlink() for path in (tmp_path / "here").iterdir())
    published.asked.clear()
    said = refused(command, "pull", NAME, "--out", "here")
    assert "here holds other things, as 'README.md'. Choose another place with --out." in said
    assert published.asked == []


def test_a_pull_that_breaks_leaves_no_folder(command, published, tmp_path):
    published.fail("GET /_lfs/", after=3, times=99)
    assert "the same again fetches the rest" in refused(command, "pull", NAME, "--out", "here")
    assert not (tmp_path / "here").exists()
    published.faults.clear()
    done(command, "pull", NAME, "--out", "here")


def test_a_pack_that_would_write_more_than_it_shows_is_refused(command, signed_in, tmp_path):
    evil = small_pack(tmp_path / "good", tensors=TENSORS).folder
    config = (evil / CONFIG).read_text()
    (evil / CONFIG).write_text(config.replace('"style": "zombie"', '"style": "a\\u001b[31m\\nlicences free"'))
    assert (evil / CONFIG).read_text() != config
    signed_in.put(NAME, files_of(evil))
    said = refused(command, "pull", NAME)
    assert "damaged: style must be" in said
    assert "\x1b" not in said and not re.search(r"^licences free", said, re.MULTILINE)


def test_packs_are_listed(command, published):
    published.put("stranger/film", {CARD: b"---\nlibrary_name: distill3d\ntags: [style-pack, 'style:film']\n---\n"})
    published.model(NAME).private = True
    published.model(NAME).downloads = 12
    head, *rows = done(command, "list-packs").splitlines()
    assert head.split() == ["pack", "style", "backbone", "changed", "downloads", "likes"]
    assert {tuple(row.split()[:-3]) for row in rows} == {
        ("stranger/film", "film", "-"),
        (NAME, "(private)", "zombie", "tiny"),
    }
    assert NAME not in done(command, "list-packs", "--author", "stranger")
    assert done(command, "list-packs", "--author", "nobody") == "There are no style packs.\n"
