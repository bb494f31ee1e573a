"""The stand-in Hub answers the genuine client as the Hub does."""

import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, HfFileSystem, ModelCard, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    GatedRepoError,
    HfHubHTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tests.packs.fakehub import Hub
from tests.packs.fakehub.client import environment

CARD = "---\nlibrary_name: distill3d\nlicense: mit\ntags:\n- 3d\n---\n# hello\n"
WEIGHTS = os.urandom(300_000)


@pytest.fixture
def owner(hub):
    return HfApi(token="hf_owner")


@pytest.fixture
def nobody(hub):
    return HfApi(token=False)


@pytest.fixture
def folder(tmp_path):
    """What is pushed: small files, a large one, one in a folder."""
    here = tmp_path / "pushed"
    (here / "sub").mkdir(parents=True)
    (here / "README.md").write_text(CARD)
    (here / "config.json").write_text("{}")
    (here / "model.safetensors").write_bytes(WEIGHTS)
    (here / "sub" / "x.txt").write_text("x")
    return here


@pytest.fixture
def model(owner, folder):
    """A private repository with one commit by the client."""
    owner.create_repo("somebody/m", private=True)
    owner.upload_folder(repo_id="somebody/m", folder_path=folder, commit_message="first")
    return "somebody/m"


def status(error):
    return error.value.response.status_code


def test_a_token_is_somebody(owner):
    assert owner.whoami()["name"] == "somebody"
    assert HfApi(token="hf_reader").whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_bad").whoami()


def test_repositories_are_made_by_their_owner_once(owner, nobody):
    assert owner.create_repo("somebody/m", private=True).repo_id == "somebody/m"
    assert owner.create_repo("somebody/m", exist_ok=True).repo_id == "somebody/m"
    assert owner.create_repo("studio/m").repo_id == "studio/m"
    for api, name, code in (
        (owner, "somebody/m", 409),
        (owner, "stranger/m", 403),
        (nobody, "somebody/n", 401),
        (HfApi(token="hf_reader"), "somebody/n", 403),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            api.create_repo(name)
        assert status(error) == code


def test_what_is_pushed_is_what_is_listed(owner, model):
    names = [".gitattributes", "README.md", "config.json", "model.safetensors", "sub/x.txt"]
    assert owner.list_repo_files(model) == names
    assert sorted(entry.path for entry in owner.list_repo_tree(model, recursive=True)) == sorted([*names, "sub"])
    assert sorted(entry.path for entry in owner.list_repo_tree(model)) == sorted([*names[:-1], "sub"])
    assert [entry.path for entry in owner.list_repo_tree(model, "sub")] == ["sub/x.txt"]
    assert owner.get_paths_info(model, ["model.safetensors"])[0].lfs.size == len(WEIGHTS)
    assert HfFileSystem(token="hf_owner").exists(f"{model}/config.json")
    assert owner.file_exists(model, "config.json") and not owner.file_exists(model, "q")
    assert owner.repo_exists(model) and not owner.repo_exists("somebody/zz")


def test_sizes_are_told_if_they_are_asked_for(owner, model):
    sizes = {file.rfilename: file.size for file in owner.model_info(model, files_metadata=True).siblings}
    assert sizes["model.safetensors"] == len(WEIGHTS) and sizes["config.json"] == 2
    assert all(file.size is None for file in owner.model_info(model).siblings)


def test_a_snapshot_is_what_was_pushed(model, folder):
    got = Path(snapshot_download(model, token="hf_owner"))
    assert {path.relative_to(got).as_posix() for path in got.rglob("*") if path.is_file()} == {
        ".gitattributes",
        *(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()),
    }
    assert (got / "model.safetensors").read_bytes() == WEIGHTS
    assert (got / "model.safetensors").resolve().parent.name == "blobs"


def test_a_second_snapshot_asks_once_and_one_file_asks_for_its_head(hub, model):
    snapshot_download(model, token="hf_owner")
    hub.asked.clear()
    snapshot_download(model, token="hf_owner")
    assert [asked.method for asked in hub.asked] == ["GET"]
    hub.asked.clear()
    hf_hub_download(model, "model.safetensors", token="hf_owner")
    assert [asked.method for asked in hub.asked] == ["HEAD"]


def test_offline_a_snapshot_is_the_one_in_the_cache(hub, model):
    got = snapshot_download(model, token="hf_owner")
    hub.asked.clear()
    assert snapshot_download(model, local_files_only=True) == got
    assert hub.asked == []


def test_a_folder_of_ones_own_gets_the_files_too(model, tmp_path):
    snapshot_download(model, local_dir=tmp_path / "here", token="hf_owner")
    assert (tmp_path / "here" / "sub" / "x.txt").read_text() == "x"


def test_the_large_file_store_is_another_origin_that_gets_no_token(hub, model):
    snapshot_download(model, token="hf_owner")
    (sent,) = hub.of("GET /_lfs/")
    assert (sent.account, sent.status, sent.sent) == (None, 200, len(WEIGHTS))


def test_tags_keep_what_a_branch_leaves_behind(owner, model):
    first = owner.model_info(model).sha
    owner.create_tag(model, tag="v1")
    owner.upload_file(repo_id=model, path_or_fileobj=b'{"a":1}', path_in_repo="config.json")
    old = hf_hub_download(model, "config.json", revision="v1", token="hf_owner")
    assert first in old and Path(old).read_text() == "{}"
    assert Path(hf_hub_download(model, "config.json", token="hf_owner")).read_text() == '{"a":1}'
    assert len(owner.list_repo_commits(model)) == 3


def test_the_same_again_makes_no_commit(owner, model):
    before = owner.model_info(model).sha
    assert owner.upload_file(repo_id=model, path_or_fileobj=b"{}", path_in_repo="config.json").oid == before


def test_branches_have_their_own_files(owner, model, folder):
    owner.create_branch(model, branch="dev")
    options = {"delete_patterns": "sub/*", "ignore_patterns": "sub/*"}
    owner.upload_folder(repo_id=model, folder_path=folder, revision="dev", **options)
    assert "sub/x.txt" not in owner.list_repo_files(model, revision="dev")
    assert "sub/x.txt" in owner.list_repo_files(model)
    assert [ref.name for ref in owner.list_repo_refs(model).branches] == ["main", "dev"]
    with pytest.raises(HfHubHTTPError) as error:
        owner.create_branch(model, branch="dev")
    assert status(error) == 409
    with pytest.raises(BadRequestError, match="Invalid reference"):
        owner.create_branch(model, branch="refs/pr/7")


def test_a_commit_on_what_is_no_longer_there_is_refused(owner, model):
    first = owner.model_info(model).sha
    owner.delete_file("config.json", model)
    with pytest.raises(HfHubHTTPError) as error:
        owner.upload_file(repo_id=model, path_or_fileobj=b"z", path_in_repo="z", parent_commit=first)
    assert status(error) == 412


@pytest.mark.parametrize(("token", "code"), [(False, 401), ("hf_other", 404)])
def test_a_private_repository_does_not_exist_for_others(hub, model, token, code, tmp_path):
    for ask in (
        lambda: hf_hub_download(model, "config.json", token=token, cache_dir=tmp_path),
        lambda: HfApi(token=token).model_info(model),
    ):
        with pytest.raises(RepositoryNotFoundError) as error:
            ask()
        assert status(error) == code


def test_a_private_repository_can_be_made_public(owner, model):
    owner.update_repo_settings(model, private=False)
    assert Path(hf_hub_download(model, "config.json", token=False)).read_text() == "{}"


def test_what_is_missing_is_said_to_be(model, tmp_path):
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download(model, "nope.json", token="hf_owner")
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download(model, "config.json", revision="v9", token="hf_owner")
    with pytest.raises(HfHubHTTPError) as error:
        hf_hub_download(model, "config.json", token="hf_bad", cache_dir=tmp_path)
    assert status(error) == 401


@pytest.mark.parametrize(("token", "code"), [(False, 401), ("hf_other", 403)])
def test_a_gated_repository_shows_its_names_and_keeps_its_files(hub, token, code):
    hub.put("somebody/g", {"config.json": b"{}"}, gated=True)
    assert HfApi(token=token).model_info("somebody/g").gated == "auto"
    with pytest.raises(GatedRepoError) as error:
        hf_hub_download("somebody/g", "config.json", token=token)
    assert status(error) == code
    hub.model("somebody/g").granted.add("stranger")
    assert hf_hub_download("somebody/g", "config.json", token="hf_other")


@pytest.mark.parametrize("token", ["hf_other", "hf_reader", False])
def test_who_may_not_write_writes_nothing(hub, owner, model, folder, token):
    owner.update_repo_settings(model, private=False)
    hub.asked.clear()
    with pytest.raises(HfHubHTTPError) as error:
        HfApi(token=token).upload_folder(repo_id=model, folder_path=folder)
    assert status(error) in (401, 403)
    assert hub.of("PUT /_lfs") == []


def test_anybody_can_propose_a_change(hub, owner, model):
    owner.update_repo_settings(model, private=False)
    api = HfApi(token="hf_other")
    made = api.upload_file(repo_id=model, path_or_fileobj=b"[]", path_in_repo="config.json", create_pr=True)
    assert (made.pr_num, made.pr_revision) == (1, "refs/pr/1")
    assert made.pr_url == f"{hub.url}/{model}/discussions/1"
    read = lambda revision: Path(hf_hub_download(model, "config.json", revision=revision)).read_text()  # noqa: E731
    assert (read("refs/pr/1"), read("main")) == ("[]", "{}")
    owner.upload_file(repo_id=model, path_or_fileobj=b"[1]", path_in_repo="config.json", revision="refs/pr/1")
    assert read("refs/pr/1") == "[1]"
    assert [pull.ref for pull in owner.list_repo_refs(model, include_pull_requests=True).pull_requests] == ["refs/pr/1"]
    hub.model(model).merge("refs/pr/1")
    assert read("main") == "[1]"


def test_models_are_found_by_tags_author_and_words(hub, owner, model):
    hub.put("somebody/b", {"README.md": CARD.replace("- 3d", "- 3d\n- style-pack").encode()})
    hub.put("stranger/c", {"README.md": CARD.encode()})
    found = lambda api=owner, **options: [entry.id for entry in api.list_models(**options)]  # noqa: E731
    assert found() == [model, "somebody/b", "stranger/c"]
    assert found(HfApi(token=False)) == ["somebody/b", "stranger/c"]
    assert found(author="somebody") == [model, "somebody/b"]
    assert found(search="B") == [model, "somebody/b"]  # "somebody" has one
    assert found(filter="style-pack") == ["somebody/b"]
    assert found(filter=["distill3d", "license:mit", "3d"]) == [model, "somebody/b", "stranger/c"]
    assert found(limit=1) == [model]


def test_a_list_has_what_was_asked_for_and_nothing_else(hub, owner):
    hub.put("somebody/a", {"README.md": CARD.encode()})
    (plain,) = owner.list_models()
    assert plain.last_modified is None and plain.downloads == 0 and plain.library_name == "distill3d"
    (expanded,) = owner.list_models(expand=["lastModified"])
    assert expanded.last_modified is not None and expanded.downloads is None


def test_a_list_comes_in_pages(hub, owner):
    hub.page = 2
    for i in range(5):
        hub.put(f"somebody/m{i}", {"README.md": CARD.encode()})
    models = owner.list_models(author="somebody", filter=["3d"], expand=["tags", "likes"])
    assert [entry.id for entry in models] == [f"somebody/m{i}" for i in range(5)]
    assert len(hub.of("GET /api/models")) == 3


def test_cards_are_pushed_and_read(model):
    ModelCard("---\nlicense: apache-2.0\n---\n# x").push_to_hub(model, token="hf_owner")
    assert ModelCard.load(model, token="hf_owner").data.license == "apache-2.0"


def test_a_card_that_the_hub_does_not_take_stops_the_upload(hub, owner, model, folder):
    (folder / "README.md").write_text("---\nlicense: mine\n---\n")
    hub.asked.clear()
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        owner.upload_folder(repo_id=model, folder_path=folder)
    assert hub.of("commit|_lfs|preupload") == []
    with pytest.raises(ValueError, match="must be one of the licenses"):
        ModelCard("---\nlicense: mine\n---\n").validate()


@pytest.mark.parametrize("times", [1, 2])
def test_a_download_that_breaks_off_goes_on_where_it_broke(hub, model, monkeypatch, times):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # what is not a whole chunk yet is lost
    hub.fail("GET /_lfs/", after=100_000, times=times)
    got = Path(hf_hub_download(model, "model.safetensors", token="hf_owner"))
    assert got.read_bytes() == WEIGHTS
    asked = hub.of("GET /_lfs/")
    assert [one.range for one in asked] == [None, "bytes=100000-", "bytes=200000-"][: times + 1]
    assert asked[-1].status == 206 and sum(one.sent for one in asked) == len(WEIGHTS)


def test_ranges_are_sent_as_asked_and_refused_behind_the_end(hub, model):
    from huggingface_hub.utils import get_session

    address = f"{hub.store_url}/{next(iter(hub.blobs))}"
    ask = lambda wanted: get_session().get(address, headers={"Range": wanted})  # noqa: E731
    assert ask("bytes=10-19").content == WEIGHTS[10:20]
    assert ask("bytes=299990-").headers["Content-Range"] == "bytes 299990-299999/300000"
    assert ask("bytes=300000-").status_code == 416


def test_a_server_that_is_out_of_order_can_be_had(hub, owner, model):
    hub.fail(r"GET /api/models/somebody/m\b", status=503, text="closed today")
    with pytest.raises(HfHubHTTPError, match="closed today") as error:
        owner.model_info(model)
    assert status(error) == 503
    assert owner.model_info(model).id == model


def test_data_sets_and_deletion(owner, folder):
    owner.create_repo("somebody/d", repo_type="dataset")
    owner.upload_folder(repo_id="somebody/d", repo_type="dataset", folder_path=folder)
    got = snapshot_download("somebody/d", repo_type="dataset", token="hf_owner")
    assert Path(got, "sub", "x.txt").read_text() == "x"
    owner.delete_repo("somebody/d", repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        owner.dataset_info("somebody/d")


def test_no_token_is_logged(hub, owner, model, caplog):
    with caplog.at_level(logging.DEBUG):
        owner.model_info(model)
        snapshot_download(model, token="hf_owner")
    assert caplog.records and "hf_owner" not in caplog.text


def test_a_child_needs_nothing_but_its_environment(tmp_path):
    """Nor has it to leave the Xet store out where the Hub has no store of large files."""
    hub = Hub(large=())
    code = (
        "from huggingface_hub import HfApi, snapshot_download\n"
        "api = HfApi(); api.create_repo('somebody/m', private=True)\n"
        "api.upload_file(repo_id='somebody/m', path_or_fileobj=b'1', path_in_repo='a.safetensors')\n"
        "print(open(snapshot_download('somebody/m') + '/a.safetensors').read())"
    )
    env = environment(hub.url, tmp_path, "hf_owner")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
    assert (tmp_path / "hub" / "models--somebody--m").is_dir()
    with socket.create_connection(("127.0.0.1", hub.server_port)):
        hub.shutdown()
