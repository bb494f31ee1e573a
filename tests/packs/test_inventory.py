"""A pack's folder that somebody sent: links, pipes, and files that are none of a pack's go nowhere."""

import os
from pathlib import Path

import pytest

from distill3d.errors import PackError, RunError
from distill3d.packs.config import ADAPTER, CARD, CONFIG, FILES, SHEET, TURNTABLE
from distill3d.packs.copies import copy_pack, renamed
from distill3d.packs.pack import StylePack, open_pack
from tests.packs.small_pack import PICTURE, files_of, small_pack

SECRET = b"RIFF\0\0\0\0WEBP, and what nobody may see"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes are made as POSIX has them")


@pytest.fixture
def pack(tmp_path):
    pack = small_pack(tmp_path / "sent" / "pack")
    (pack.folder / TURNTABLE).write_bytes(PICTURE)
    (tmp_path / "secret").write_bytes(SECRET)
    return pack


def replaced(pack, name, put):
    (pack.folder / name).unlink(missing_ok=True)
    put(pack.folder / name)


def refusals(pack, tmp_path):
    """What is said when a pack is opened, and of one that was open before when it is copied, renamed or pushed."""
    said = []
    acts = [
        lambda: open_pack(pack.folder, "sent"),
        lambda: copy_pack(pack, tmp_path / "out" / "copy"),
        lambda: renamed(pack, tmp_path / "out" / "renamed", "user/name"),
        lambda: pack.save_pretrained(tmp_path / "out" / "saved"),
    ]
    for act in acts:
        with pytest.raises(PackError) as refused:
            act()
        said.append(str(refused.value).replace(pack.name, "sent"))
    copied = [path for path in (tmp_path / "out").rglob("*") if path.is_file()] if (tmp_path / "out").exists() else []
    assert not copied
    assert len(set(said)) == 1, said
    assert said[0].endswith(".") and "\n" not in said[0]
    return said[0]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("target", ["../../secret", "{absolute}/secret", "../../nothing", "/dev/zero", "../link"])
def test_a_link_out_of_the_folder_is_refused(pack, tmp_path, name, target):
    (tmp_path / "sent" / "link").symlink_to("../secret")
    replaced(pack, name, lambda path: path.symlink_to(target.format(absolute=tmp_path)))
    assert f"its {name} is a link that leads out of its folder" in refusals(pack, tmp_path)


def test_a_link_within_the_folder_is_followed_and_copied_as_a_file(pack, tmp_path):
    (pack.folder / SHEET).rename(pack.folder / "drawn.webp")
    (pack.folder / SHEET).symlink_to("drawn.webp")
    copy = copy_pack(open_pack(pack.folder), tmp_path / "copy")
    assert (copy.folder / SHEET).read_bytes() == PICTURE and not (copy.folder / SHEET).is_symlink()
    assert files_of(copy.folder).keys() == FILES.keys()


def in_a_cache(pack, model, snapshots="snapshots", blobs="blobs"):
    """The same pack as the Hub's cache has it: every file a link to a blob."""
    folder = model / snapshots / ("0" * 40)
    folder.mkdir(parents=True)
    (model / blobs).mkdir(exist_ok=True)
    for i, (name, content) in enumerate(files_of(pack.folder).items()):
        (model / blobs / str(i)).write_bytes(content)
        (folder / name).symlink_to(f"../../{blobs}/{i}")
    return folder


def test_links_of_the_hubs_cache_are_followed(pack, tmp_path):
    folder = in_a_cache(pack, tmp_path / "hub" / "models--user--name")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "hub")
    for place in (folder, tmp_path / "elsewhere" / folder.relative_to(tmp_path / "hub")):
        copy = copy_pack(open_pack(place), tmp_path / f"from {place.parents[2].name}")
        assert files_of(copy.folder) == files_of(pack.folder)


def test_what_only_looks_like_the_hubs_cache_is_refused(pack, tmp_path):
    """Somebody may send folders of these names; a link among them leads anywhere."""
    places = [
        in_a_cache(pack, tmp_path / "a" / "model"),
        in_a_cache(pack, tmp_path / "b" / "models--user--name", snapshots="shots"),
        in_a_cache(pack, tmp_path / "c" / "models--user--name", blobs="private"),
    ]
    model = tmp_path / "d" / "models--user--name"
    model.mkdir(parents=True)
    (tmp_path / "private").mkdir()
    (model / "blobs").symlink_to(tmp_path / "private")
    places.append(in_a_cache(pack, model))
    deep = in_a_cache(pack, tmp_path / "e" / "models--user--name")
    (deep.parents[1] / "blobs" / "below").symlink_to(tmp_path)
    replaced(open_pack(deep), CARD, lambda path: path.symlink_to("../../blobs/below/secret"))
    for place in [*places, deep]:
        with pytest.raises(PackError, match="is a link that leads out of its folder"):
            open_pack(place)


@pytest.mark.parametrize("name", [CARD, SHEET, TURNTABLE, ADAPTER, CONFIG])
@pytest.mark.parametrize("put", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_without_waiting_for_it(pack, tmp_path, name, put):
    replaced(pack, name, put)
    assert f"its {name} is no file" in refusals(pack, tmp_path)


@pytest.mark.parametrize("name", [CARD, SHEET, TURNTABLE, CONFIG, ADAPTER])
def test_files_larger_than_a_packs_are_refused(pack, tmp_path, name):
    os.truncate(pack.folder / name, FILES[name] + 1)  # without taking that room
    assert f"its {name} has {FILES[name] + 1:,} bytes, a style pack's has at most" in refusals(pack, tmp_path)


@pytest.mark.parametrize("name", [SHEET, TURNTABLE])
@pytest.mark.parametrize("content", [b"", b"RIFF", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WAVE", b"<svg onload='x'/>"])
def test_pictures_that_are_no_webp_are_refused(pack, tmp_path, name, content):
    (pack.folder / name).write_bytes(content)
    assert f"its {name} is no WebP picture" in refusals(pack, tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_may_not_be_read_is_named(pack, tmp_path, monkeypatch, name):
    real = Path.open

    def picky(path, *arguments, **options):
        if path.name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", picky)
    assert f"The {name} of sent cannot be read: Permission denied." in refusals(pack, tmp_path)


def test_a_config_that_turns_bad_after_the_look_at_it_is_one_sentence(pack, monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda *a, **k: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(PackError, match=r"The config\.json of sent cannot be read: Input/output error\."):
        open_pack(pack.folder, "sent")


def spelt(folder, tmp_path, monkeypatch):
    """The same folder by other names."""
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    return [folder, str(folder), Path(folder.name), folder / ".." / folder.name, tmp_path / "link", f"./{folder.name}/"]


def test_a_pack_is_not_saved_over_itself(pack, tmp_path, monkeypatch):
    before = files_of(pack.folder)
    for place in spelt(pack.folder, tmp_path, monkeypatch):
        for options in ({}, {"push_to_hub": True, "repo_id": "user/name"}):
            with pytest.raises(PackError, match=r"lies in .* already\. Choose another folder"):
                pack.save_pretrained(place, **options)
        assert files_of(pack.folder) == before
    monkeypatch.chdir(pack.folder)
    with pytest.raises(PackError, match="already"):
        StylePack.from_pretrained(".").save_pretrained("")
    assert files_of(pack.folder) == before


def test_a_pack_is_saved_anew_and_over_an_older_one(pack, tmp_path):
    pack.save_pretrained(tmp_path / "new")
    assert files_of(tmp_path / "new") == files_of(pack.folder)
    (tmp_path / "new" / CARD).write_text("older")
    pack.save_pretrained(str(tmp_path / "new"))
    assert files_of(tmp_path / "new") == files_of(pack.folder)


def test_what_links_in_the_place_lead_to_is_not_written_over(pack, tmp_path):
    """A snapshot in the Hub's cache is made of links to what others use too."""
    folder = in_a_cache(small_pack(tmp_path / "other", style="film"), tmp_path / "hub" / "models--user--name")
    blobs = files_of(folder.parents[1] / "blobs")
    pack.save_pretrained(folder)
    assert files_of(folder.parents[1] / "blobs") == blobs
    assert files_of(folder) == files_of(pack.folder)


@pytest.mark.parametrize(
    "act", [copy_pack, lambda pack, out: renamed(pack, out, "user/name"), StylePack.save_pretrained]
)
def test_a_place_that_cannot_be_written_is_one_sentence(pack, tmp_path, act):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Choose another place with --out\."):
        act(pack, tmp_path / "file")
    with pytest.raises(RunError, match=r"Cannot write .*Choose another place with --out\."):
        act(pack, tmp_path / "file" / "below")


def test_a_card_that_cannot_be_written_leaves_no_pack(pack, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunError, match="disk is full"):
        renamed(pack, tmp_path / "out", "user/name")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
