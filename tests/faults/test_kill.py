"""A run that is killed, at whatever moment, ends with the weights that it would have had."""

import json
import random
import signal
import time

import pytest

from distill3d.config import DistillConfig
from distill3d.training.checkpoint import list_checkpoints
from distill3d.training.loop import CHECKPOINTS
from tests.faults import children
from tests.faults.children import ended, is_midway, losses, run, start, step_seconds, steps_noted

SETTINGS = {"style": "zombie", "save_every": 2, "ema": 0.9, "warmup": 3}
TOY = DistillConfig(backbone="toy", method="ld-released", steps=12, **SETTINGS)
TINY = DistillConfig(backbone="tiny", method="sds", options={"antithetic": True}, steps=16, **SETTINGS)


def test_a_run_of_the_toy_survives_five_kills(tmp_path):
    survive(TOY, tmp_path, points=5, midway=4)


@pytest.mark.slow
def test_a_run_of_the_embedded_pair_survives_twenty_kills(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "imported", [*children.imported, "tests.faults.embedded"])
    survive(TINY, tmp_path, points=20, midway=15)


@pytest.mark.slow
def test_a_run_survives_a_kill_at_every_call_by_which_its_files_come_and_go(tmp_path):
    """From its first file to its last, one kill for each; what is left of it is continued, or begun again."""
    config = DistillConfig(backbone="toy", method="sds", steps=3, keep=1, **{**SETTINGS, "save_every": 1})
    straight, calls = undisturbed(config, tmp_path)
    for number in range(calls["total"]):
        folder = tmp_path / f"{number}"
        assert ended(run, config, folder, number) == -signal.SIGKILL
        assert_ends_like(straight, config, folder, f"call {number} of {calls}")


def survive(config, tmp_path, points, midway):
    """Kill runs at seeded moments, every other one inside a checkpoint write; continue each to its end.

    Args:
        midway: how many kills at least must come when there is a checkpoint and an end to be reached.
    """
    straight, calls = undisturbed(config, tmp_path)
    seconds = step_seconds(straight)
    draw, hits = random.Random(0), []
    for point in range(points):
        folder = tmp_path / f"{point}"
        if point % 2 == 0:
            moment = kill_in_save(config, folder, calls["saves"], draw)
        else:
            moment = kill_between(config, folder, seconds, draw)
        hits.append(is_midway(folder))
        print(f"killed {moment}, {'midway' if hits[-1] else 'before the first checkpoint or after the end'}")
        assert_ends_like(straight, config, folder, moment)
    print(f"{sum(hits)} of {points} kills came midway")
    assert sum(hits) >= midway


def undisturbed(config, tmp_path):
    """The run that nothing happens to, and the calls that it makes."""
    straight, count = tmp_path / "straight", tmp_path / "calls.json"
    assert ended(run, config, straight, None, count) == 0
    calls = json.loads(count.read_text())
    assert len(calls["saves"]) == config.steps // config.save_every
    return straight, calls


def assert_ends_like(straight, config, folder, moment):
    """The run that was killed, continued: its weights, its log and the names of all its files."""
    assert ended(run, config, folder) == 0, moment
    assert (folder / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes(), moment
    assert losses(folder) == losses(straight), moment
    assert listing(folder) == listing(straight), moment


def kill_in_save(config, folder, saves, draw):
    save = draw.randrange(1, len(saves))
    first, end = saves[save]
    number = draw.randrange(first, end)
    assert ended(run, config, folder, number) == -signal.SIGKILL
    return f"at call {number - first} of {end - first} of checkpoint write {save}"


def kill_between(config, folder, seconds, draw):
    """Somewhere in the step after one that is seen in the log, or in what comes after a step."""
    step, wait = draw.randrange(config.save_every + 1, config.steps - 2), draw.random() * seconds
    process = start(run, config, folder)
    while steps_noted(folder) < step:
        assert process.is_alive()
        time.sleep(0.001)
    time.sleep(wait)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return f"{wait:.3f} s after {step} steps"


def listing(folder):
    """All files of a run; of its checkpoints the last, since a kill can spare the one that it was about to drop."""
    last = list_checkpoints(folder / CHECKPOINTS)[-1].path
    dropped = [path for path in (folder / CHECKPOINTS).glob("step-*") if path != last]
    paths = (path for path in folder.rglob("*") if not any(path.is_relative_to(d) for d in dropped))
    return sorted(str(path.relative_to(folder)) for path in paths)
