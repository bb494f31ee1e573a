"""Packs come from the Hub by the genuine client: exactly their files, and nothing else."""

import re

import pytest
from huggingface_hub import HfApi, ModelCard

from distill3d.errors import PackError
from distill3d.packs import config
from distill3d.packs.config import ADAPTER, CARD, CONFIG, FILES
from distill3d.packs.hub import fetch, list_packs, push
from distill3d.packs.pack import StylePack
from tests.packs.refusals import refused
from tests.packs.small_pack import NAME, TENSORS, files_of, small_pack


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


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/no/where", "./a/b", "../a", "a/b?x", "", "a b/c", "a" * 300])
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
