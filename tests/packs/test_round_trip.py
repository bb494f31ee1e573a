"""A run comes back from the Hub as the same renderer: by the library, and by commands of a mirror's user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import distill3d
from distill3d.errors import HubError
from distill3d.packs.config import ADAPTER
from distill3d.packs.hub import fetch, push
from distill3d.packs.pack import StylePack
from distill3d.publish import TRIED_SEEDS, TRIED_YAWS, PackOptions, make_pack
from distill3d.showcase import look
from tests.packs.fakehub import Hub
from tests.packs.fakehub.client import environment
from tests.photo_runs import a_run

NAME = "somebody/zombies"
ROOT = Path(__file__).parents[2]
PLUGIN = """
from distill3d.hookspecs import hookimpl

@hookimpl
def register_renderers(register):
    register("toy", "tests.toys:load_toy")
"""


pytestmark = pytest.mark.usefixtures("photo_toys")


@pytest.fixture(scope="module")
def run(tmp_path_factory, photo_toys):
    return a_run(tmp_path_factory.mktemp("runs") / "zombie", backbone="toy")


@pytest.fixture(scope="module")
def pictures(run):
    return look(distill3d.load(run), TRIED_SEEDS, TRIED_YAWS)


def packed(run, folder, form="full"):
    return make_pack(run, folder, repo_id=NAME, options=PackOptions(format=form, pictures=False))


@pytest.mark.parametrize("form", ["full", "half", "low-rank"])
def test_what_is_pulled_renders_as_what_was_pushed(hub, run, pictures, tmp_path, form):
    pack = packed(run, tmp_path / "pack", form)
    push(pack, NAME, token="hf_owner")
    theirs = distill3d.load(NAME)
    off = (look(theirs, TRIED_SEEDS, TRIED_YAWS) - pictures).square().mean((-3, -2, -1)).sqrt().max()
    stated = pack.content.adapter.pictures_error
    assert off == pytest.approx(stated, rel=1e-3) and (off == 0) == (form == "full")
    torch.testing.assert_close(look(theirs.original, [0], [0.0]), look(distill3d.load(run).original, [0], [0.0]))


def test_a_private_pack_is_loaded_by_its_token_and_offline_without_one(hub, run, pictures, tmp_path, monkeypatch):
    push(packed(run, tmp_path / "pack"), NAME, private=True, token="hf_owner")
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert torch.equal(look(distill3d.load(NAME), TRIED_SEEDS, TRIED_YAWS), pictures)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="or it is private and needs a token"):
        distill3d.load(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert torch.equal(look(distill3d.load(NAME), TRIED_SEEDS, TRIED_YAWS), pictures)
    assert hub.asked == []


def test_two_branches_of_a_pack_are_two_models(hub, run, tmp_path):
    push(packed(run, tmp_path / "full"), NAME, token="hf_owner")
    push(packed(run, tmp_path / "half", "half"), NAME, revision="small", token="hf_owner")
    sizes = [(fetch(name) / ADAPTER).stat().st_size for name in (NAME, f"{NAME}@small")]
    assert sizes[1] < 0.75 * sizes[0]
    proposed = StylePack.from_pretrained(NAME, revision="small")
    assert proposed.push_to_hub(NAME, token="hf_other", create_pr=True).pr_num == 1  # the client's own way
    assert StylePack.from_pretrained(NAME, revision="refs/pr/1").content == proposed.content


@pytest.fixture
def distill3d_command(tmp_path):
    """Run `distill3d ...` in a process of its own, with a plugin that offers the toy, by environment variables alone.

    The Hub has no store of large files, so a client with the Xet library does not need it.
    """
    plugins, hub = tmp_path / "plugins", Hub(large=())
    (plugins / "toys-1.dist-info").mkdir(parents=True)
    (plugins / "toys-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1\n")
    (plugins / "toys-1.dist-info" / "entry_points.txt").write_text("[distill3d]\ntoys = offered_toys\n")
    (plugins / "offered_toys.py").write_text(PLUGIN)

    def command(*words, home="home", token=None, **variables):
        path = os.pathsep.join([str(plugins), str(ROOT)])
        env = {**environment(hub.url, tmp_path / home, token), "PYTHONPATH": path, **variables}
        line = [sys.executable, "-m", "distill3d.cli", *map(str, words)]
        done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert token is None or token not in said
        return done.returncode, said

    yield command
    hub.shutdown()
    hub.server_close()


def test_a_mirrors_user_pushes_and_somebody_else_renders_with_and_without_a_network(distill3d_command, run, tmp_path):
    code, said = distill3d_command("push", run, NAME, home="mine", token="hf_owner")
    assert code == 0 and "Pushed: http://127.0.0.1" in said, said
    options = ("--seeds", "0", "--views", "1", "--out")
    code, said = distill3d_command("render", NAME, *options, "online", home="theirs")
    assert code == 0 and "Downloading" in said, said
    code, said = distill3d_command("render", NAME, *options, "offline", home="theirs", HF_HUB_OFFLINE="1")
    assert code == 0 and "Downloading" not in said, said
    code, said = distill3d_command("render", run, *options, "own")
    assert code == 0, said
    own, online, offline = (
        next((tmp_path / place).glob("*.png")).read_bytes() for place in ("own", "online", "offline")
    )
    assert own == online == offline
    assert json.loads(next((tmp_path / "theirs").rglob("config.json")).read_text())["style"] == "zombie"
