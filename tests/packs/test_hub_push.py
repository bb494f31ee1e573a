"""Packs go to the Hub by the genuine client: one commit, and nothing where it may not be."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from distill3d.packs.config import ADAPTER, CARD, CONFIG, FILES, SHEET
from distill3d.packs.hub import check_push, fetch, push
from tests.packs.refusals import refused
from tests.packs.small_pack import NAME, TENSORS, files_of, small_pack


def test_a_push_is_one_commit_of_exactly_the_files_of_a_pack(hub, pack):
    (pack.folder / "notes.txt").write_text("nobody's business")
    address = push(pack, NAME, token="hf_owner")
    repo = hub.model(NAME)
    first, second = repo.commits.values()
    assert address == f"{hub.url}/{NAME}/commit/{second.oid}" and second.parent == first.oid
    assert {name: data for name, data in second.files.items() if name != ".gitattributes"} == {
        name: data for name, data in files_of(pack.folder).items() if name in FILES
    }
    assert not repo.private


def test_what_is_pushed_again_replaces_what_was_there(hub, published, tmp_path):
    hub.put(NAME, {"theirs.txt": b"kept"})
    newer = small_pack(tmp_path / "newer", tensors=b"others", sheet=None)
    push(newer, NAME, token="hf_owner")
    files = hub.model(NAME).at("main").files
    assert files[ADAPTER] == b"others" and SHEET not in files and files["theirs.txt"] == b"kept"


def test_the_same_again_changes_nothing(hub, published, pack):
    before = hub.model(NAME).at("main").oid
    assert push(pack, NAME, token="hf_owner").endswith(before)


def test_a_private_pack_is_private_from_its_first_moment(hub, pack):
    push(pack, NAME, private=True, token="hf_owner")
    assert hub.model(NAME).private
    push(pack, NAME, token="hf_owner")  # and stays so if nothing is said
    assert hub.model(NAME).private


def test_a_branch_is_made_and_main_left_alone(hub, published, tmp_path):
    before = hub.model(NAME).at("main").oid
    newer = small_pack(tmp_path / "newer", tensors=b"others")
    push(newer, NAME, revision="trials/low", token="hf_owner")
    push(newer, NAME, revision="trials/low", token="hf_owner")  # that is there now
    assert hub.model(NAME).at("trials/low").files[ADAPTER] == b"others"
    assert hub.model(NAME).at("main").oid == before


def test_a_repository_that_is_new_can_begin_with_a_branch(hub, pack):
    push(pack, NAME, revision="v2", token="hf_owner")
    assert ADAPTER in hub.model(NAME).at("v2").files and ADAPTER not in hub.model(NAME).at("main").files
    push(pack, NAME, token="hf_owner")  # main is still empty
    assert ADAPTER in hub.model(NAME).at("main").files


@pytest.mark.parametrize("files", [{}, {CARD: b"---\nlicense: mit\n---\n"}])
def test_a_name_that_was_made_but_holds_nothing_is_free(hub, pack, files):
    hub.put(NAME, files)
    push(pack, NAME, token="hf_owner")
    assert hub.model(NAME).at("main").files[ADAPTER] == TENSORS


def test_anybody_who_is_signed_in_can_propose_a_pack(hub, published, tmp_path):
    newer = small_pack(tmp_path / "newer", tensors=b"others")
    address = push(newer, NAME, create_pr=True, token="hf_other")
    assert address == f"{hub.url}/{NAME}/discussions/1"
    assert (fetch(f"{NAME}@refs/pr/1") / ADAPTER).read_bytes() == b"others"
    assert (fetch(NAME) / ADAPTER).read_bytes() == TENSORS
    push(small_pack(tmp_path / "newest", tensors=b"newest"), NAME, revision="refs/pr/1", token="hf_owner")
    assert (fetch(f"{NAME}@refs/pr/1") / ADAPTER).read_bytes() == b"newest"


def test_an_organisation_is_pushed_to_by_its_members(hub, pack):
    push(pack, "studio/zombies", token="hf_owner")
    assert ADAPTER in hub.model("studio/zombies").at("main").files


def test_the_token_comes_from_the_usual_places(hub, pack, monkeypatch):
    Path(constants.HF_TOKEN_PATH).parent.mkdir(parents=True)
    Path(constants.HF_TOKEN_PATH).write_text("hf_other\n")
    push(pack, "stranger/zombies")
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    push(pack, NAME)
    assert {account.account for account in hub.of("POST .*/commit/main")} == {"stranger", "somebody"}


def before_anything(hub):
    """Nothing was made or uploaded."""
    assert {asked.method for asked in hub.asked} <= {"GET"}


@pytest.mark.parametrize(
    ("options", "pattern"),
    [
        ({"token": None}, r"no token to push .*`hf auth login` or set HF_TOKEN"),
        ({"token": "hf_wrong"}, "does not accept the token"),
        ({"token": "hf_reader"}, "token of somebody may only read"),
        ({"token": "hf_other"}, "signed in as stranger and may not write .* --create-pr"),
        ({"token": "hf_owner\n"}, "holds spaces, line ends"),
        ({"private": True}, "public already, and --private would not hide it"),
        ({"revision": "v1"}, "v1 is a tag"),
        ({"revision": "refs/pr/7"}, "no pull request refs/pr/7"),
        ({"revision": "../x"}, "No branch can be called '../x'"),
        ({"revision": "a b"}, "No branch can be called"),
        ({"revision": "v2", "create_pr": True}, "leave out --revision"),
    ],
)
def test_what_may_not_be_pushed_is_refused_before_anything_is_uploaded(hub, published, pack, options, pattern):
    HfApi(token="hf_owner").create_tag(NAME, tag="v1")
    hub.asked.clear()
    refused(lambda: push(pack, NAME, **{"token": "hf_owner", **options}), pattern)
    before_anything(hub)


@pytest.mark.parametrize(
    "name", ["zombies", "a/b/c", "", "a b/c", "../b", "-a/b", "a/b.git", "a/b@main", "a/" + "b" * 99]
)
def test_a_name_that_is_none_is_refused_without_asking(hub, pack, name):
    refused(lambda: push(pack, name, token="hf_owner"), "is no name")
    assert hub.asked == []


def test_a_name_that_something_else_has_is_taken(hub, pack):
    hub.put(NAME, {"model.safetensors": b"1", CONFIG: b"{}"})
    refused(lambda: push(pack, NAME, token="hf_owner"), "is taken: it holds something else.* as config.json")
    before_anything(hub)


def test_nothing_can_be_proposed_to_what_is_not_there(hub, pack):
    refused(lambda: push(pack, NAME, create_pr=True, token="hf_other"), "no somebody/zombies on the Hub to propose")


def test_a_check_tells_the_same_and_changes_nothing(hub, published):
    assert check_push(NAME, token="hf_owner").exists
    refused(lambda: check_push(NAME, token="hf_reader"), "may only read")
    before_anything(hub)


def test_a_card_that_the_hub_does_not_take_is_said(hub, pack):
    (pack.folder / CARD).write_text("---\nlicense: mine\n---\n")
    refused(lambda: push(pack, NAME, token="hf_owner"), "does not take the card.*license.*may be empty still")


@pytest.mark.parametrize("where", ["PUT /_lfs", "POST .*/preupload", "POST .*/batch", "POST .*/commit"])
def test_an_upload_that_breaks_leaves_the_older_pack_whole(hub, published, tmp_path, where):
    newer = small_pack(tmp_path / "newer", tensors=b"others")
    hub.fail(where, status=503, times=99)
    refused(lambda: push(newer, NAME, token="hf_owner"), "out of order .503.*has all of it or nothing. Try the same")
    assert hub.model(NAME).at("main").files[ADAPTER] == TENSORS
    hub.faults.clear()
    push(newer, NAME, token="hf_owner")
    assert hub.model(NAME).at("main").files[ADAPTER] == b"others"


@pytest.mark.parametrize("where", ["PUT /_lfs", "POST .*/preupload", "POST .*/commit"])
def test_a_connection_that_is_lost_in_an_upload_is_said_and_the_same_again_ends_it(hub, published, tmp_path, where):
    newer = small_pack(tmp_path / "newer", tensors=b"others")
    hub.fail(where, status=500, text="x" * 100, after=3, times=99)
    refused(lambda: push(newer, NAME, token="hf_owner"), "connection to .* failed.*has all of it or nothing")
    hub.faults.clear()
    push(newer, NAME, token="hf_owner")
    assert hub.model(NAME).at("main").files[ADAPTER] == b"others"


def test_an_answer_that_is_lost_behind_a_commit_makes_no_second_one(hub, published, tmp_path):
    newer = small_pack(tmp_path / "newer", tensors=b"others")
    hub.fail("POST .*/commit", after=3)
    refused(lambda: push(newer, NAME, token="hf_owner"), "connection to .* failed")
    made = hub.model(NAME).at("main").oid
    assert push(newer, NAME, token="hf_owner").endswith(made)


def test_a_repository_that_was_made_for_what_broke_is_named(hub, pack):
    hub.fail("POST .*/preupload", status=500, times=99)
    refused(lambda: push(pack, NAME, token="hf_owner"), f"{hub.url}/{NAME} was made for it and may be empty still")
    assert set(hub.model(NAME).at("main").files) == {".gitattributes"}


def test_who_is_faster_is_said(hub, published, tmp_path):
    hub.fail("POST .*/commit", status=412, text="A commit has happened since")
    newer = small_pack(tmp_path / "newer", tensors=b"others")
    refused(lambda: push(newer, NAME, token="hf_owner"), "Somebody else changed .* at the same time")
