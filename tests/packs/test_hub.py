"""Packs go to the Hub and come from it by the genuine client; whatever fails is one sentence without a token."""

import errno
import logging
import re
import socket
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard, constants

from distill3d.errors import HubError, PackError
from distill3d.packs import config
from distill3d.packs.config import ADAPTER, CARD, CONFIG, FILES, SHEET
from distill3d.packs.hub import check_push, fetch, list_packs, push
from distill3d.packs.pack import StylePack, open_pack
from tests.packs.fakehub.store import sha256
from tests.packs.small_pack import TENSORS, files_of, small_pack

NAME = "somebody/zombies"
TOKENS = ("hf_owner", "hf_reader", "hf_other", "hf_wrong")


@pytest.fixture
def pack(tmp_path):
    return small_pack(tmp_path / "pack")


@pytest.fixture
def published(hub, pack):
    """A public pack."""
    push(pack, NAME, token="hf_owner")
    hub.asked.clear()
    return files_of(pack.folder)


def refused(act, pattern, kind=HubError):
    """What an act says that fails: one line, the pattern in it, no token anywhere."""
    with pytest.raises(kind) as error:
        act()
    said = str(error.value)
    assert re.search(pattern, said) and "\n" not in said, said
    assert not any(token in said for token in TOKENS), said
    return said


def down():
    """The address of a Hub that is not there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


# Pushing


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


# Fetching


def test_exactly_the_files_of_a_pack_are_fetched(hub, pack):
    push(pack, NAME, token="hf_owner")
    evil = {"evil.py": b"1", "../above": b"1", ".hidden": b"1", "sub/config.json": b"1", "x.safetensors": b"1"}
    hub.put(NAME, {**files_of(pack.folder), **evil, "/etc/passwd": b"1"})
    told = []
    folder = fetch(NAME, told=told.append)
    assert files_of(folder) == files_of(pack.folder)
    assert {asked.path.rsplit("/", 1)[1] for asked in hub.of("HEAD .*/resolve/")} == set(files_of(pack.folder))
    (sentence,) = told
    assert re.fullmatch(rf"Downloading 0\.5 MB of {NAME} from {hub.url}: config\.json, .*\.", sentence)


def test_what_is_said_comes_before_what_is_downloaded(hub, published):
    asked_when_told = []
    fetch(NAME, told=lambda text: asked_when_told.extend(hub.of("HEAD|_lfs")))
    assert asked_when_told == [] and hub.of("_lfs")


def test_a_second_fetch_downloads_nothing_and_says_nothing(hub, published):
    first, told = fetch(NAME), []
    hub.asked.clear()
    assert fetch(NAME, told=told.append) == first
    assert told == [] and not hub.of("HEAD|_lfs")


def test_a_newer_pack_is_fetched_when_there_is_one(hub, published, tmp_path):
    old = fetch(NAME)
    push(small_pack(tmp_path / "newer", tensors=b"others"), NAME, token="hf_owner")
    assert (fetch(NAME) / ADAPTER).read_bytes() == b"others"
    assert (old / ADAPTER).read_bytes() == TENSORS


def test_branches_tags_and_commits_are_fetched_by_name(hub, published, tmp_path):
    api, newer = HfApi(token="hf_owner"), small_pack(tmp_path / "newer", tensors=b"others")
    first = api.model_info(NAME).sha
    api.create_tag(NAME, tag="v1.0")
    push(newer, NAME, token="hf_owner")
    push(newer, NAME, revision="trials/low", token="hf_owner")
    for revision, tensors in (("v1.0", TENSORS), (first, TENSORS), ("trials/low", b"others"), ("main", b"others")):
        assert (fetch(f"{NAME}@{revision}") / ADAPTER).read_bytes() == tensors
    refused(lambda: fetch(f"{NAME}@v3"), "has no branch, tag or commit v3")


def test_a_pack_is_opened_by_the_hubs_own_means(hub, published):
    pack = StylePack.from_pretrained(NAME)
    assert pack.style == "zombie" and files_of(pack.folder) == published
    card = ModelCard.load(NAME)
    card.validate()
    assert {"distill3d", "style-pack", "style:zombie"} <= set(card.data.tags)


def test_a_private_pack_needs_a_token_that_may_read_it(hub, pack, monkeypatch):
    push(pack, NAME, private=True, token="hf_owner")
    refused(lambda: fetch(NAME), "has no model .* private and needs a token: run `hf auth login` or set HF_TOKEN")
    refused(lambda: fetch(NAME, token="hf_other"), "or it is private and your token may not read it")
    refused(lambda: fetch(NAME, token="hf_wrong"), "does not accept the token")
    assert files_of(fetch(NAME, token="hf_reader")) == files_of(pack.folder)
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    assert fetch(NAME)
    refused(lambda: fetch(NAME, token=False), "needs a token")


def test_a_gated_pack_says_where_its_terms_are(hub, published):
    hub.model(NAME).gated = True
    for token in (None, "hf_other"):
        refused(lambda token=token: fetch(NAME, token=token), f"gated: accept its owner's terms at {hub.url}/{NAME}")
    hub.model(NAME).granted.add("stranger")
    assert fetch(NAME, token="hf_other")


@pytest.mark.parametrize("missing", [CONFIG, ADAPTER])
def test_what_is_no_pack_is_not_downloaded(hub, pack, missing):
    hub.put(NAME, {name: data for name, data in files_of(pack.folder).items() if name != missing})
    refused(lambda: fetch(NAME), f"is no style pack: it has no {missing}", PackError)
    assert not hub.of("HEAD|_lfs")


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("more", [1, None])
def test_what_is_too_large_or_of_unknown_size_is_not_downloaded(hub, published, name, more):
    hub.put(NAME, {name: b"1"})
    hub.model(NAME).claims[name] = None if more is None else FILES[name] + more
    refused(lambda: fetch(NAME), f"refused: its {name} has .* bytes, at most {FILES[name]:,}", PackError)
    assert not hub.of("HEAD|_lfs")


def test_a_file_that_is_not_as_large_as_was_said_is_refused(hub, published):
    hub.model(NAME).claims[ADAPTER] = 7
    refused(lambda: fetch(NAME), "in the cache is damaged: adapter.safetensors has 512,000 bytes, 7 on the Hub. Delete")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/tmp/none", "./a/b", "../a", "a/b?x", "", "a b/c", "a" * 300])
@pytest.mark.parametrize("revision", ["", "@main"])
def test_what_is_no_name_is_never_asked_for(hub, name, revision):
    refused(lambda: fetch(name + revision), "is no name on the Hub, which looks like user/name")
    assert hub.asked == []


@pytest.mark.parametrize(
    "revision", ["", "..", "../x", "/x", "x/", "a..b", "-x", "a b", "x.lock", "~1", ".x", "a@b", "x\n"]
)
def test_what_is_no_revision_is_never_asked_for(hub, revision):
    refused(lambda: fetch(f"{NAME}@{revision}"), "is no name on the Hub")
    assert hub.asked == []


# What breaks


def test_a_download_that_breaks_off_goes_on_where_it_broke(hub, published, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.fail(f"GET /_lfs/{sha256(TENSORS)}", after=400_000)
    assert (fetch(NAME) / ADAPTER).read_bytes() == TENSORS
    first, second = hub.of(f"GET /_lfs/{sha256(TENSORS)}")
    assert (first.range, first.sent) == (None, 400_000)
    assert (second.range, second.sent) == ("bytes=400000-", len(TENSORS) - 400_000)


def test_a_download_that_stays_broken_is_gone_on_with_by_the_next_fetch(hub, published):
    adapter = f"GET /_lfs/{sha256(TENSORS)}"
    hub.fail(adapter, after=1000, times=99)
    refused(lambda: fetch(NAME), "connection to .* failed.*Files that arrived whole are kept: the same again fetches")
    hub.faults.clear()
    hub.asked.clear()
    told = []
    assert files_of(fetch(NAME, told=told.append)) == published
    assert [asked.path for asked in hub.of("GET /_lfs|GET .*/resolve/")] == [adapter.removeprefix("GET ")]
    assert told == [f"Downloading 0.5 MB of {NAME} from {hub.url}: {ADAPTER}."]


def test_offline_the_pack_of_the_cache_is_loaded_and_nobody_is_asked(hub, published, monkeypatch):
    folder, told = fetch(NAME), []
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(NAME, told=told.append) == fetch(f"{NAME}@main") == fetch(f"{NAME}@{folder.name}") == folder
    assert hub.asked == [] and told == []
    refused(lambda: fetch("somebody/else"), "HF_HUB_OFFLINE forbids to ask the Hub. The cache holds no whole copy")
    refused(lambda: fetch(f"{NAME}@v2"), "cache holds no whole copy")
    refused(lambda: push(open_pack(folder), NAME, token="hf_owner"), "pushed: HF_HUB_OFFLINE forbids")
    refused(list_packs, "The list of style packs could not be had: HF_HUB_OFFLINE")


def test_without_a_network_the_pack_of_the_cache_is_loaded_and_that_is_said(hub, published, monkeypatch):
    folder, told = fetch(NAME), []
    address = down()
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert fetch(NAME, told=told.append) == folder
    assert told == [f"The Hub cannot be reached: {NAME} is the one that was fetched last."]
    refused(lambda: fetch("somebody/else"), f"connection to {address} failed; is there a network?.*no whole copy")
    refused(lambda: push(open_pack(folder), NAME, token="hf_owner"), "is there a network")
    refused(list_packs, "is there a network")


@pytest.mark.parametrize("lost", [ADAPTER, CARD])
def test_offline_a_pack_of_which_a_file_is_missing_is_refused(hub, published, monkeypatch, lost):
    (fetch(NAME) / lost).unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(lambda: fetch(NAME), "The cache holds no whole copy of it")


def test_a_hub_that_is_out_of_order_is_as_good_as_none(hub, published):
    folder, told = fetch(NAME), []
    hub.fail("GET /api/models", status=503, times=99)
    assert fetch(NAME, told=told.append) == folder and len(told) == 1
    refused(lambda: fetch("somebody/else"), "the Hub is out of order .503.")


def test_who_does_not_answer_in_time_is_not_waited_for(hub, published, monkeypatch, pack):
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.05)
    hub.fail("GET /api/models/", wait=0.5, times=2)
    refused(lambda: fetch(NAME), "did not answer in time")
    refused(lambda: push(pack, NAME, token="hf_owner"), "did not answer in time")


@pytest.mark.parametrize(
    ("status", "pattern"),
    [
        (400, r"answers 400 \(strange\)"),
        (403, r"without a token \(strange\)"),
        (429, "has been asked too often"),
        (451, r"answers 451 \(strange\)"),
        (500, "out of order .500."),
    ],
)
def test_whatever_the_hub_answers_is_one_sentence(hub, status, pattern):
    hub.fail("GET /api/models/", status=status, times=99, text="strange")
    refused(lambda: fetch(NAME), pattern)


def test_what_is_no_hub_is_said_so(hub, published, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", f"{hub.store_url}/{sha256(published[CONFIG])}#")
    hub.blobs[sha256(published[CONFIG])] = b"<html>"
    refused(lambda: fetch(NAME), "does not answer as a Hub does. See HF_ENDPOINT")


def test_a_commit_that_is_none_is_no_folder(hub, published):
    repo = hub.model(NAME)
    commit = repo.at("main")
    object.__setattr__(commit, "oid", "../../../x")
    refused(lambda: fetch(NAME), "it names no commit")


@pytest.mark.parametrize("token", ["hf_owner", "a-mirrors-token"])
def test_a_token_that_a_server_repeats_is_not(hub, token):
    hub.tokens[token] = hub.tokens["hf_owner"]
    hub.fail("GET /api/models/", status=400, text=f"bad request: Authorization: Bearer {token}\x1b[31m")
    said = refused(lambda: fetch(NAME, token=token), "bad request: Authorization: Bearer ...")
    assert token not in said and said.isprintable()


def test_no_token_is_logged_or_told(hub, pack, caplog, capfd, monkeypatch):
    monkeypatch.setattr(constants, "HF_DEBUG", True)
    told = []
    with caplog.at_level(logging.DEBUG):
        push(pack, NAME, private=True, token="hf_owner", told=told.append)
        fetch(NAME, token="hf_owner", told=told.append)
        list_packs(token="hf_owner")
        refused(lambda: fetch("somebody/else", token="hf_owner"), "no model")
    printed = capfd.readouterr()
    assert caplog.records and len(told) == 2
    assert "hf_owner" not in caplog.text + printed.out + printed.err + "".join(told)
    assert "hf_owner" not in repr(check_push(NAME, token="hf_owner"))


@pytest.mark.parametrize(
    ("number", "pattern"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "cannot be written. HF_HOME names")]
)
def test_a_cache_that_cannot_be_written_is_said(hub, published, monkeypatch, number, pattern):
    def full(self, *arguments, **options):
        raise OSError(number, "no", str(self))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", lambda *a, **k: full("blob"))
    refused(lambda: fetch(NAME), f"could not be downloaded: .*{pattern}.*arrived whole are kept")


def test_a_damaged_copy_in_the_cache_says_what_to_delete(hub, published):
    (fetch(NAME) / ADAPTER).resolve().write_bytes(b"cut off")
    said = refused(lambda: fetch(NAME), "The copy of .* in the cache is damaged")
    assert str(Path(constants.HF_HUB_CACHE) / "models--somebody--zombies") in said


# Lists


def test_packs_are_listed_by_their_tags(hub, published, tmp_path):
    push(small_pack(tmp_path / "b", "stranger/b", style="pixar film"), "stranger/b", token="hf_other")
    push(small_pack(tmp_path / "c", "somebody/secret"), "somebody/secret", private=True, token="hf_owner")
    hub.put("somebody/bert", {CARD: b"---\nlibrary_name: distill3d\n---\n"})
    hub.model(NAME).likes, hub.model(NAME).downloads = 3, 70
    assert {entry.id for entry in list_packs()} == {NAME, "stranger/b"}
    assert {entry.id for entry in list_packs(token="hf_owner")} == {NAME, "stranger/b", "somebody/secret"}
    (secret,) = (entry for entry in list_packs("somebody", token="hf_owner") if entry.private)
    assert (secret.id, secret.style, secret.backbone) == ("somebody/secret", "zombie", "tiny")
    (found,) = list_packs("somebody")
    assert (found.likes, found.downloads, found.updated.year >= 2026) == (3, 70, True)
    assert list_packs("nobody") == []


def test_long_lists_come_in_pages_newest_first(hub):
    hub.page = 3
    for i in range(8):
        hub.put(f"somebody/m{i}", {CARD: b'---\nlibrary_name: distill3d\ntags: [style-pack, "style:\\e[1m"]\n---\n'})
    for i, repo in enumerate(hub.repos.values()):
        object.__setattr__(repo.at("main"), "when", 1e9 + i * 1000)
    assert [entry.id for entry in list_packs()] == [f"somebody/m{i}" for i in reversed(range(8))]
    assert len(hub.of("GET /api/models")) == 3
    assert list_packs()[0].style == ""


def test_the_largest_sizes_leave_room_for_what_packs_are():
    assert config.FILES[ADAPTER] >= 1 << 30 and config.FILES[CONFIG] <= 1 << 20
