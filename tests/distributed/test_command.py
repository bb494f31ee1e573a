"""`distill3d launch` from a user's chair: what is typed, what is said, what is left in the folder."""

import os
import signal
import subprocess
import sys

import pytest

from distill3d.cli.worker import main as work
from distill3d.errors import ConfigError
from distill3d.training.checkpoint import latest_checkpoint, list_checkpoints
from tests.cli.conftest import command  # noqa: F401
from tests.distributed.conftest import ROOT
from tests.distributed.test_launch import alive, read, wait_for

RUN = ("run", "--style", "zombie", "--steps", "8", "--save-every", "2")


def test_what_is_launched_is_a_run(command):  # noqa: F811
    code, printed = command("launch", "--processes", "2", "styles")
    assert code == 1
    assert "What is launched is a run: distill3d launch --processes 2 run" in printed


def test_options_of_the_run_stand_behind_it(command):  # noqa: F811
    code, printed = command("launch", "--style", "zombie", "run")
    assert code == 2
    assert "No such option" in printed


@pytest.mark.parametrize(("rank", "said"), [("0", "error-0"), ("1", "error-1")])
def test_a_process_leaves_its_error_to_the_launcher(rank, said, tmp_path, monkeypatch, capsys):
    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("DISTILL3D_LAUNCH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["worker", "run"])
    monkeypatch.setattr("distill3d.cli.worker.app", refuse)
    try:
        with pytest.raises(SystemExit) as ended:
            work()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended.value.code == 1
    assert (tmp_path / said).read_text() == "That cannot be."
    assert (tmp_path / f"pid-{rank}").read_text() == str(os.getpid())
    assert capsys.readouterr() == ("", "")


def refuse(args):
    raise ConfigError("That cannot be.")


def launched(tmp_path, *words):
    """The command as a process of its own, and the folder in which its processes say who they are."""
    desk = tmp_path / "tmp"
    desk.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "distill3d.cli", "launch", "--processes", "2", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(desk)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, desk


def pid(desk, rank):
    return next((read(path) for path in desk.glob(f"distill3d-launch-*/pid-{rank}")), -1)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "options"), [(1, ("--batch", "2")), (0, ("--batch", "1", "--split", "views"))])
def test_a_run_whose_process_is_killed_says_so_and_is_continued_by_one_or_by_two(rank, options, tmp_path, command):  # noqa: F811
    folder = tmp_path / "run"
    process, desk = launched(tmp_path, *RUN, *options, "--out", folder)
    wait_for(lambda: list_checkpoints(folder / "checkpoints"), 200)
    os.kill(pid(desk, rank), signal.SIGKILL)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"The process of rank {rank}, of 2, was killed (SIGKILL)." in said
    assert f"distill3d launch --processes 2 run --resume {folder}" in said
    assert "Traceback" not in said and "torch" not in said
    assert not list(desk.glob("distill3d-launch-*"))
    if rank == 1:
        code, printed = command("run", "--resume", folder)
        assert code == 0, printed
    else:
        process, _ = launched(tmp_path, "run", "--resume", folder)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 0, printed
    assert "Everything:" in printed
    assert latest_checkpoint(folder / "checkpoints").step == 8
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_ctrl_c_saves_behind_the_step_and_leaves_no_process(tmp_path):
    folder = tmp_path / "run"
    process, desk = launched(tmp_path, *RUN, "--batch", "2", "--steps", "500", "--out", folder)
    wait_for(lambda: list_checkpoints(folder / "checkpoints"), 200)
    pids = [pid(desk, rank) for rank in (0, 1)]
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert f"Stopped and saved. Continue with: distill3d run --resume {folder}" in said.replace("\n", "")
    assert said.count("Stopped") == 1
    assert not any(alive(number) for number in pids)


@pytest.mark.slow
def test_a_batch_that_leaves_a_process_without_a_subject_is_refused_in_one_sentence(tmp_path):
    process, _ = launched(tmp_path, *RUN, "--batch", "1", "--out", tmp_path / "run")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert said.count("Error:") == 1 and "--split views, or --batch 2" in said
