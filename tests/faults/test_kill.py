"""A run that is killed, at whatever moment, ends with the weights that it would have had."""

import json
import random
import signal
import time

import pytest

from distill3d.config import DistillConfig
from tests.faults import children
from tests.faults.children import InSave, ended, is_midway, losses, run, start, step_seconds, steps_noted

SETTINGS = {"style": "zombie", "save_every": 2, "ema": 0.9, "warmup": 3}
TOY = DistillConfig(backbone="toy", method="ld-released", steps=12, **SETTINGS)
TINY = DistillConfig(backbone="tiny", method="sds", options={"antithetic": True}, steps=16, **SETTINGS)


def test_a_run_of_the_toy_survives_five_kills(tmp_path):
    survive(TOY, tmp_path, points=5, midway=4)


@pytest.mark.slow
def test_a_run_of_the_embedded_pair_survives_twenty_kills(tmp_path, monkeypatch):
    monkeypatch.setattr(children, "imported", [*children.imported, "tests.faults.embedded"])
    survive(TINY, tmp_path, points=20, midway=15)


def survive(config, tmp_path, points, midway):
    """Kill runs at seeded moments, every other one inside a checkpoint write; resume each to its end.

    Args:
        midway: how many kills at least must come when there is a checkpoint and an end to be reached.
    """
    straight, count = tmp_path / "straight", tmp_path / "calls.json"
    assert ended(run, config, straight, None, count) == 0
    seconds = step_seconds(straight)
    calls = json.loads(count.read_text())
    assert len(calls) == config.steps // config.save_every
    draw, hits = random.Random(0), []
    for point in range(points):
        folder = tmp_path / f"{point}"
        if point % 2 == 0:
            moment = kill_in_save(config, folder, calls, draw)
        else:
            moment = kill_between(config, folder, seconds, draw)
        hits.append(is_midway(folder))
        print(f"{moment}: {'midway' if hits[-1] else 'before the first checkpoint or after the end'}")
        assert ended(run, config, folder) == 0
        assert (folder / "weights.safetensors").read_bytes() == (straight / "weights.safetensors").read_bytes(), moment
        assert losses(folder) == losses(straight), moment
        assert listing(folder) == listing(straight), moment
    assert sum(hits) >= midway


def kill_in_save(config, folder, calls, draw):
    save = draw.randrange(1, len(calls))
    point = InSave(save, draw.randrange(calls[save]))
    assert ended(run, config, folder, point) == -signal.SIGKILL
    return point


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
    return f"{wait:.3f} s after step {step}"


def listing(folder):
    """All files of a run."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
