"""What breaks on the way to the Hub and back is one sentence without a token, and can be gone on with."""

import errno
import logging
from pathlib import Path

import pytest
from huggingface_hub import constants

from distill3d.packs.config import ADAPTER, CARD, CONFIG
from distill3d.packs.hub import check_push, fetch, list_packs, push
from distill3d.packs.pack import open_pack
from tests.packs.fakehub.store import sha256
from tests.packs.refusals import down, refused
from tests.packs.small_pack import NAME, TENSORS, files_of


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
