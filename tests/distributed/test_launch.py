"""Several processes are started, stopped and missed as one run, and its end is one sentence."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from distill3d.cli.launch import run_folder
from distill3d.errors import Distill3dError, RunError
from distill3d.training.checkpoint import latest_checkpoint
from distill3d.training.launch import _End, launch
from distill3d.training.share import Share
from tests.distributed import launched
from tests.distributed.conftest import ROOT
from tests.distributed.jobs import toy_trainer, weights
from tests.distributed.test_shares import assert_close

MODULE = "tests.distributed.launched"


def assert_goes_on(folder):
    """One process continues from what is there, and comes to where one that was never interrupted comes."""
    step = latest_checkpoint(folder).step
    assert step > 0
    continued = launched.train(Share(), folder, step + 2)
    straight = toy_trainer(Share(), "ld-released")
    while straight.step_number < step + 2:
        straight.step()
    assert_close(weights(continued), weights(straight), 1e-9)


def test_a_killed_process_ends_the_run_with_one_sentence_and_a_checkpoint_to_continue_from(tmp_path, capfd):
    started = time.monotonic()
    with pytest.raises(RunError, match=r"rank 1, of 2, was killed \(SIGKILL\).* run --resume heads") as ended:
        launch(2, MODULE, [str(tmp_path), "9", "killed"], resume="heads")
    assert "\n" not in str(ended.value)
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed and "torch" not in printed
    assert time.monotonic() - started < 120  # the processes start on a busy machine, too
    assert latest_checkpoint(tmp_path).step == 2
    assert_goes_on(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("mistaken", "^What was asked for cannot be.$"),
        ("crashed", "process of rank 1 failed; what it said is in (.*stderr.log)"),
    ],
)
def test_the_error_of_any_process_is_the_one_that_is_said(fault, said, tmp_path, capfd):
    with pytest.raises(Distill3dError, match=said) as ended:
        launch(2, MODULE, [str(tmp_path), "9", fault])
    if fault == "crashed":
        (log,) = [word for word in str(ended.value).split() if word.endswith("stderr.log.")]
        with open(log.removesuffix(".")) as file:
            assert "ZeroDivisionError: this is a bug" in file.read()
    assert "torch/" not in "".join(capfd.readouterr())


def started(folder, *words):
    """A launcher whose processes have taken two steps."""
    command = [sys.executable, "-m", "tests.distributed.start_launch", str(folder), *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: read(folder / "at-0") >= 2)
    return process


def read(path):
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return -1


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_ctrl_c_stops_all_processes_behind_the_same_step_which_is_saved(tmp_path):
    process = started(tmp_path, "100000")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")
    steps = [read(tmp_path / f"at-{rank}") for rank in (0, 1)]
    assert steps == [latest_checkpoint(tmp_path).step] * 2
    assert_goes_on(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_hangs_is_ended_by_a_second_ctrl_c_or_a_term(number, tmp_path):
    process = started(tmp_path, "100000", "hanging")
    pids = [read(tmp_path / f"process-{rank}") for rank in (0, 1)]
    for _ in range(2 if number == signal.SIGINT else 1):
        process.send_signal(number)
        time.sleep(0.5)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not any(alive(pid) for pid in pids)
    assert_goes_on(tmp_path)


@pytest.mark.slow
def test_processes_do_not_outlive_a_launcher_that_is_killed(tmp_path):
    process = started(tmp_path, "100000")
    pids = [read(tmp_path / f"process-{rank}") for rank in (0, 1)]
    process.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids), 30)
    process.communicate()
    assert_goes_on(tmp_path)


def failed(*codes):
    return {rank: SimpleNamespace(exitcode=code, timestamp=0) for rank, code in enumerate(codes) if code != 0}


@pytest.mark.parametrize(
    ("codes", "reports", "said"),
    [
        ((1, -9), {"lost-0": ""}, "rank 1, of 2, was killed"),
        ((-9, 1), {"lost-1": ""}, "rank 0, of 2, was killed"),
        ((-15, -11), {}, r"rank 1, of 2, was killed \(SIGSEGV\)\. The others"),
        ((-15, -15), {}, r"rank 0, of 2, was killed \(SIGTERM\)"),
        ((1, 1), {"lost-0": "", "error-1": "No style is called 'x'."}, "^No style is called 'x'.$"),
        ((1, 1), {"error-0": "Mine.", "error-1": "Mine."}, "^Mine.$"),
        ((1, 1), {"lost-0": ""}, "rank 1 failed"),
        ((1, 0), {}, "rank 0 failed; what it said is above"),
        ((1, -15), {"lost-0": ""}, "lost each other: one of them hangs"),
    ],
)  # fmt: skip
def test_the_process_that_failed_by_itself_is_named(codes, reports, said, tmp_path):
    for name, text in reports.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunError, match=said):
        _End(failed(*codes), tmp_path, 2, "RUN").code()


def test_a_command_that_is_not_understood_keeps_its_exit_code_and_one_that_is_stopped_says_so(tmp_path):
    assert _End(failed(0, 0), tmp_path, 2, "RUN").code() == 0
    assert _End(failed(2, -15), tmp_path, 2, "RUN").code() == 2
    with pytest.raises(KeyboardInterrupt):
        _End(failed(130, -15), tmp_path, 2, "RUN").code()


@pytest.mark.parametrize(
    ("words", "folder"),
    [
        ("run --style zombie", "RUN"),
        ("run --style zombie --out heads/z", "heads/z"),
        ("run --resume=heads", "heads"),
        ("run --out", "RUN"),
    ],
)
def test_the_runs_folder_is_read_from_its_words(words, folder):
    assert run_folder(words.split()) == folder
