"""What the system refuses is a sentence that names the file, whichever it is, and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import save
from torch import zeros

from distill3d.packs.config import ADAPTER, CARD, CONFIG, FILES
from tests.packs.fakehub.fixtures import hub, hub_server  # noqa: F401  they are asked for by name
from tests.packs.small_pack import small_pack
from tests.photo_runs import a_run, photo_toy_is_installed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with photo_toy_is_installed():
        yield a_run(tmp_path_factory.mktemp("runs") / "zombie", backbone="toy")


@pytest.fixture
def locked(monkeypatch):
    """Let nobody read a file, also not the superuser, as whom tests may run."""

    def lock(place):
        real = Path.open

        def picky(path, *arguments, **options):
            if path == place:
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments, **options)

        monkeypatch.setattr(Path, "open", picky)

    return lock


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", ("render", "RUN", "--seeds", "0")),
        ("config.json", ("licences", "RUN")),
        ("base.json", ("render", "RUN", "--seeds", "0")),
        ("weights.safetensors", ("render", "RUN", "--seeds", "0")),
        ("weights.safetensors", ("pack", "RUN", "--out", "pack")),
        ("metrics.jsonl", ("explain", "RUN", "--step", "1")),
    ],
)
def test_a_file_of_a_run_that_may_not_be_read_is_named(command, run, locked, tmp_path, name, words):
    locked(run / name)
    code, said = command(*(str(run) if word == "RUN" else word for word in words))
    assert code == 1 and "Traceback" not in said
    assert f"Error: Cannot read {run / name}: Permission denied." in " ".join(said.split())
    assert not (tmp_path / "pack").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verb", ["render", "licences", "card", "push"])
def test_a_file_of_a_pack_that_may_not_be_read_is_named(command, hub, locked, tmp_path, monkeypatch, name, verb):  # noqa: F811
    folder = small_pack(tmp_path / "pack", tensors=save({"a": zeros(2)})).folder
    if not (folder / name).exists():
        (folder / name).write_bytes((folder / "sheet.webp").read_bytes())
    locked(folder / name)
    code, said = command(verb, folder, *(["user/name"] if verb == "push" else []))
    assert code == 1 and "Traceback" not in said
    assert f"Error: The {name} of pack cannot be read: Permission denied." in " ".join(said.split())


def test_a_temporary_folder_that_cannot_be_made_is_said(command, hub, tmp_path, monkeypatch):  # noqa: F811
    def none(*arguments, **options):
        raise FileNotFoundError(2, "No usable temporary directory found")

    folder = small_pack(tmp_path / "pack", tensors=save({"a": zeros(2)})).folder
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    monkeypatch.setattr("tempfile.TemporaryDirectory", none)
    code, said = command("push", folder, "somebody/zombies")
    assert code == 1 and "Traceback" not in said
    assert "written aside: No usable temporary directory found. TMPDIR names a place for it." in " ".join(said.split())


def test_a_card_cannot_be_written_over_a_folder(command, tmp_path):
    folder = small_pack(tmp_path / "pack").folder
    code, said = command("card", folder, "--out", folder)
    assert code == 1 and "Traceback" not in said
    assert f"Cannot write {folder}: Is a directory. Choose another place with --out." in " ".join(said.split())
    assert {path.name for path in folder.iterdir()} >= {CONFIG, ADAPTER, CARD}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has a disk that is always full")
def test_a_list_that_finds_the_disk_full_is_one_sentence():
    with open("/dev/full", "w") as full:
        line = [sys.executable, "-m", "distill3d.cli", "styles"]
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: The disk is full. What was saved before is intact.\n"
