"""Files are there whole or not at all, and what the system says becomes one sentence."""

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from distill3d.errors import RunError
from distill3d.files import (
    check_replaceable,
    drop_leftovers,
    folder_written_aside,
    sha256,
    storing,
    write_text,
    written_aside,
)

NOBODY = 2**31 - 1  # no system gives that number to a process


class StopHereError(Exception):
    """Something that has nothing to do with files."""


def interrupted(writer, path, work):
    """Write to `path`, and be stopped when `work` on the temporary neighbour is done."""
    with writer(path) as aside:
        work(aside)
        raise StopHereError


def test_a_file_appears_with_the_name_asked_for_and_its_folder_is_made(tmp_path):
    path = tmp_path / "deep" / "er" / "a.txt"
    with written_aside(path) as aside:
        aside.write_text("new")
        assert not path.exists()  # nothing half-written is ever seen under that name
    assert path.read_text() == "new"
    assert os.listdir(path.parent) == ["a.txt"]


def test_the_temporary_file_keeps_the_suffix_and_the_folder(tmp_path, monkeypatch):
    """Writers of pictures go by the suffix, and a rename is one step within one folder only."""
    monkeypatch.chdir(tmp_path)
    with written_aside(Path("sheet.png")) as aside:
        assert aside.suffix == ".png" and aside.parent == Path(".") and aside.name != "sheet.png"
        aside.write_bytes(b"a picture")


@pytest.mark.parametrize("wrote", [True, False])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, wrote):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(StopHereError):
        interrupted(written_aside, path, lambda aside: aside.write_text("half") if wrote else None)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RunError, match=r"a\.txt"), written_aside(path):
        pass
    assert path.read_text() == "old"


def test_an_exception_leaves_the_old_folder_and_nothing_else(tmp_path):
    path = tmp_path / "step"
    with folder_written_aside(path) as aside:
        (aside / "one").write_text("old")
    with pytest.raises(StopHereError):
        interrupted(folder_written_aside, path, lambda aside: (aside / "one").write_text("half"))
    assert os.listdir(tmp_path) == ["step"]
    assert (path / "one").read_text() == "old"


def test_a_folder_replaces_the_older_one_whole(tmp_path):
    path = tmp_path / "deep" / "step"
    for names in (["a", "b"], ["b", "c"]):
        with folder_written_aside(path) as aside:
            for name in names:
                (aside / name).write_text(name)
    assert sorted(os.listdir(path)) == ["b", "c"]
    assert os.listdir(path.parent) == ["step"]


KINDS = {"sheet.png", "table.md"}  # that a folder of this kind may hold


def test_a_folder_may_take_the_place_of_nothing_of_an_empty_one_and_of_its_own_kind(tmp_path):
    path = tmp_path / "out"
    check_replaceable(path, KINDS)
    assert not path.exists()
    path.mkdir()
    check_replaceable(path, ())
    (path / "table.md").touch()
    check_replaceable(path, KINDS)
    (tmp_path / "link").symlink_to(path)
    check_replaceable(tmp_path / "link", KINDS)


@pytest.mark.parametrize(
    ("put", "sentence"),
    [
        (lambda path: path.touch(), "is no folder"),
        (lambda path: path.symlink_to("nothing"), "is a link that leads nowhere"),
        (lambda path: path.symlink_to(path), "is a link that leads nowhere"),
        (lambda path: (path / "sheet.png").mkdir(parents=True), "holds other things, as 'sheet.png'"),
        (lambda path: (path / "more" / "table.md").mkdir(parents=True), "holds other things, as 'more'"),
        (lambda path: [path.mkdir(), (path / "table.md").touch(), (path / ".git").touch()], "things, as '.git'"),
    ],
)
def test_what_is_of_another_kind_is_named_and_stays(tmp_path, put, sentence):
    path = tmp_path / "out"
    put(path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError) as refused:
        check_replaceable(path, KINDS)
    assert str(refused.value).startswith(f"{path} ") and sentence in str(refused.value)
    assert str(refused.value).endswith(". Choose another place with --out.")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("check", [lambda path: check_replaceable(path, KINDS), lambda path: write_folder(path, "")])
@pytest.mark.parametrize("name", [".", "", "..", "../..", "../here", "../../deep", "/", "../../link"])
def test_the_ground_that_one_stands_on_is_not_replaced(tmp_path, monkeypatch, name, check):
    here = tmp_path / "deep" / "here"
    here.mkdir(parents=True)
    (tmp_path / "link").symlink_to(here)
    monkeypatch.chdir(here)
    with pytest.raises(RunError, match=r"is (above )?where you are. Choose another place with --out\."):
        check(Path(name))
    assert here.is_dir() and sorted(os.listdir(tmp_path)) == ["deep", "link"]


def write_folder(path, text):
    with folder_written_aside(path) as aside:
        (aside / "one").write_text(text)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("put", [Path.touch, lambda path: path.symlink_to("nothing")])
def test_only_folders_are_replaced_by_folders(tmp_path, put, when):
    path = tmp_path / "out"
    if when == "before":
        put(path)
    with pytest.raises(RunError, match=r"out is .*Choose another place with --out"), folder_written_aside(path):
        put(path)
    assert os.listdir(tmp_path) == ["out"] and (path.is_symlink() or path.is_file())


def test_a_link_to_a_folder_stays_and_what_it_leads_to_is_replaced(tmp_path):
    write_folder(tmp_path / "large disk" / "out", "old")
    (tmp_path / "out").symlink_to(tmp_path / "large disk" / "out")
    write_folder(tmp_path / "out", "new")
    assert (tmp_path / "out").is_symlink() and sorted(os.listdir(tmp_path)) == ["large disk", "out"]
    assert (tmp_path / "large disk" / "out" / "one").read_text() == "new"
    assert os.listdir(tmp_path / "large disk") == ["out"]


def test_what_an_ended_process_left_behind_does_not_come_along(tmp_path):
    path = tmp_path / "step"
    with folder_written_aside(path) as aside:
        left = aside
    left.mkdir()
    (left / "stale").write_text("stale")
    with folder_written_aside(path) as aside:
        assert aside == left and os.listdir(aside) == []
        (aside / "fresh").write_text("fresh")
    assert os.listdir(path) == ["fresh"]


@pytest.mark.parametrize("writer", [written_aside, folder_written_aside])
def test_what_was_written_and_its_new_name_are_on_the_disk_before_it_counts(tmp_path, monkeypatch, writer):
    """Contents, then the folder that holds them, then the rename, then the folder that holds the name."""
    said, names = [], {}
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        said.append(("sync", names.get(os.fstat(descriptor).st_ino, "above")))
        fsync(descriptor)

    def renamed(source, target):
        said.append(("rename", Path(target).name))
        replace(source, target)

    monkeypatch.setattr("distill3d.files.os.fsync", synced)
    monkeypatch.setattr("distill3d.files.os.replace", renamed)
    with writer(tmp_path / "new" / "out") as aside:
        if writer is folder_written_aside:
            (aside / "part").write_text("text")
            names[(aside / "part").stat().st_ino] = "part"
        else:
            aside.write_text("text")
        names[aside.stat().st_ino], names[aside.parent.stat().st_ino] = "aside", "folder"
    parts = [("sync", "part")] if writer is folder_written_aside else []
    assert said == [("sync", "above"), *parts, ("sync", "aside"), ("rename", "out"), ("sync", "folder")]


def test_a_disk_that_cannot_sync_names_is_written_to_all_the_same(tmp_path, monkeypatch):
    """Some network shares refuse to sync a folder."""
    fsync = os.fsync

    def picky(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr("distill3d.files.os.fsync", picky)
    with folder_written_aside(tmp_path / "deep" / "out") as aside:
        (aside / "part").write_text("text")
    assert (tmp_path / "deep" / "out" / "part").read_text() == "text"


def test_a_replacement_that_fails_at_its_second_rename_puts_the_older_folder_back(tmp_path, monkeypatch):
    path, real = tmp_path / "step", os.replace
    with folder_written_aside(path) as aside:
        (aside / "one").write_text("old")

    def refuse(source, target):
        if ".part" in str(source):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target)

    monkeypatch.setattr("distill3d.files.os.replace", refuse)
    with pytest.raises(RunError, match="disk is full"), folder_written_aside(path) as aside:
        (aside / "one").write_text("new")
    assert os.listdir(tmp_path) == ["step"]
    assert (path / "one").read_text() == "old"


def test_leftovers_are_deleted_and_nothing_that_looks_almost_like_them(tmp_path):
    gone, here, parent = NOBODY, os.getpid(), os.getppid()
    left = [f".a.txt.part{gone}.txt", f"deep/.b.part{here}", f"deep/.s.part{gone}/one", f"deep/.step-1.old{gone}/one"]
    kept = [f"a.part{gone}", ".hidden", ".c.part", f".d.part{gone}.txt.x", f".e.part{parent}"]
    kept += [f"deep/.step-2.old{gone}/one", "deep/step-1/one", "deep/b"]
    for name in [*left, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    drop_leftovers(tmp_path)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(kept)


SAYS = {
    errno.ENOSPC: "disk is full",
    errno.EDQUOT: "disk is full",
    errno.EACCES: "Permission denied",
    errno.EROFS: "Read-only",
    errno.EISDIR: "directory",
}


@pytest.mark.parametrize("writer", [written_aside, folder_written_aside])
@pytest.mark.parametrize("number", SAYS)
def test_what_the_system_refuses_is_said_with_the_path(tmp_path, writer, number):
    path = tmp_path / "out"
    with pytest.raises(RunError, match=SAYS[number]) as caught, writer(path):
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("writer", [written_aside, folder_written_aside])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_rename_that_fails_is_said_too_and_leaves_nothing(tmp_path, monkeypatch, writer, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("distill3d.files.os.replace", refuse)
    with pytest.raises(RunError, match=SAYS[number]), writer(tmp_path / "out") as aside:
        (aside / "part" if aside.is_dir() else aside).write_text("new")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("writer", [written_aside, folder_written_aside])
def test_a_full_disk_that_shows_only_when_flushed_leaves_the_old_one(tmp_path, monkeypatch, writer):
    path = tmp_path / "out"
    fill = lambda aside, text: (aside / "part" if aside.is_dir() else aside).write_text(text)  # noqa: E731
    with writer(path) as aside:
        fill(aside, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("distill3d.files.os.fsync", full)
    with pytest.raises(RunError, match="What was saved before is intact"), writer(path) as aside:
        fill(aside, "new")
    assert os.listdir(tmp_path) == ["out"]
    assert (path / "part" if path.is_dir() else path).read_text() == "old"


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match=r"runs.*--out"):
        write_text(tmp_path / "runs" / "a.txt", "text")
    with pytest.raises(RunError, match=r"runs.*--out"), folder_written_aside(tmp_path / "runs" / "step"):
        pass


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(StopHereError), storing(tmp_path):
        raise StopHereError


def test_text_is_written_as_utf8_and_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_text(path, "a much longer first text")
    write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_checksum_is_sha256(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")  # the example of FIPS 180-4
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    large = bytes(range(256)) * 10_000  # several blocks, the last one short
    path.write_bytes(large)
    assert sha256(path) == hashlib.sha256(large).hexdigest()
