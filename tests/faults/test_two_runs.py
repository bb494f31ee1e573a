"""One process writes a run's folder at a time; a lock never outlives its process."""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest

from distill3d.config import DistillConfig
from distill3d.errors import RunError
from distill3d.training.lock import LOCK, run_lock
from tests.faults.children import ended, run, start, steps_noted, told
from tests.test_files import NOBODY

LONG = DistillConfig(style="zombie", backbone="toy", method="sds", steps=2000, save_every=10)


def hold(folder, seconds=60):
    with run_lock(folder):
        (folder / "held").touch()
        time.sleep(seconds)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of the folder."""
    process = start(hold, tmp_path)
    wait_for(lambda: (tmp_path / "held").exists(), process)
    yield process
    process.kill()
    process.join()


def wait_for(happened, process):
    while not happened():
        assert process.is_alive()
        time.sleep(0.005)


def test_a_second_process_is_refused_and_told_who_writes(tmp_path, holder):
    for _ in range(2):  # asking does not spoil the note
        with pytest.raises(RunError) as refused, run_lock(tmp_path):
            pass
        assert f"(pid {holder.pid} on {socket.gethostname()}) is writing {tmp_path}" in str(refused.value)


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path, holder):
    holder.kill()
    holder.join()
    assert holder.exitcode == -signal.SIGKILL
    with run_lock(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()


def test_a_lock_can_be_had_again_when_it_was_given_back(tmp_path):
    for _ in range(2):
        with run_lock(tmp_path):
            pass
    with pytest.raises(ZeroDivisionError), run_lock(tmp_path):
        raise ZeroDivisionError
    with run_lock(tmp_path), pytest.raises(RunError, match=f"pid {os.getpid()} "), run_lock(tmp_path):
        pass


@pytest.mark.parametrize("note", ["", "{", "[]", '{"pid": "x", "host": 1}'])
def test_a_lock_without_a_readable_note_locks_all_the_same(tmp_path, holder, note):
    (tmp_path / LOCK).write_text(note)
    with pytest.raises(RunError, match="Another process is writing"), run_lock(tmp_path):
        pass


def test_what_a_killed_writer_left_is_deleted_where_a_run_was(tmp_path):
    for name in ("run/checkpoints", "folder"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / f".step-000004.part{NOBODY}").touch()
    (tmp_path / "run" / LOCK).touch()
    for name in ("run", "folder"):
        with run_lock(tmp_path / name):
            pass
    assert not os.listdir(tmp_path / "run" / "checkpoints")
    assert (tmp_path / "folder" / f".step-000004.part{NOBODY}").exists()


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"Cannot write .*file.*--out"), run_lock(tmp_path / "file"):
        pass


def test_a_run_that_is_being_written_cannot_be_continued_or_begun_by_another(tmp_path):
    folder = tmp_path / "run"
    process = start(run, LONG, folder)
    try:
        wait_for(lambda: steps_noted(folder) > 12, process)
        code, said = told(run, LONG, folder)
        assert code == 1 and f"(pid {process.pid} on " in said and "Traceback" not in said
        assert process.is_alive()
    finally:
        process.kill()
        process.join()


def test_of_two_runs_that_begin_at_once_in_one_folder_one_goes_on(tmp_path):
    short = DistillConfig(style="zombie", backbone="toy", method="sds", steps=200, save_every=100)
    both = [start(run, short, tmp_path / "run") for _ in range(2)]
    for process in both:
        process.join()
    assert sorted(process.exitcode for process in both) == [0, 1]
    assert steps_noted(tmp_path / "run") == 200


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="there is no file system in memory here")
def test_the_lock_holds_on_a_file_system_in_memory():
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        with run_lock(Path(place)):
            assert ended(is_refused, Path(place)) == 0
        assert ended(is_refused, Path(place)) == 1


def is_refused(folder):
    with contextlib.suppress(RunError), run_lock(folder):
        sys.exit(1)
