"""A run that is continued from its middle is the run that was never stopped, bit for bit, whatever the method."""

import functools
import shutil
import time

import pytest

from distill3d import preparation, recipe
from distill3d.config import DistillConfig
from distill3d.plugins import registry
from tests.faults.children import bare, losses

ANNEALED = {"antithetic": True, "t_range_end": (0.02, 0.5)}
RUNS = {
    "ld along the flow": ("ld", {}),
    "ld at a drawn noise": ("ld", {"path": "noise", "guidance_end": 2.0, **ANNEALED}),
    "ld-paper": ("ld-paper", {"guidance_end": 5.0, **ANNEALED}),
    "ld-released": ("ld-released", {}),
    "sds": ("sds", {"guidance_end": 50.0, **ANNEALED}),
    "csd": ("csd", ANNEALED),
}
STATE = ("weights.safetensors", "averaged.safetensors", "state.safetensors")


@pytest.fixture(autouse=True)
def _bare(monkeypatch):
    bare(monkeypatch)


@functools.cache
def load_once(name):
    """No run changes a scorer."""
    return registry().find("scorer", name).load()()


@pytest.mark.parametrize("name", RUNS)
def test_a_few_steps_of_the_embedded_pair(tmp_path, monkeypatch, name):
    """Stopped between the two steps of an antithetic pair."""
    monkeypatch.setattr(preparation, "load_scorer", lambda config: load_once(config.scorer))
    compare(tmp_path, name, half=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_two_hundred_steps_of_the_embedded_pair(tmp_path, name):
    compare(tmp_path, name, half=100)


def test_every_method_is_here():
    assert {method for method, _ in RUNS.values()} == set(registry().offers["method"])


def compare(tmp_path, name, half):
    method, options = RUNS[name]
    config = DistillConfig(
        style="zombie",
        method=method,
        options=options,
        steps=2 * half,
        save_every=half,
        ema=0.99,
        clip=0.01,
        warmup=5,
    )
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    started = time.process_time()
    recipe.distill(config, straight)
    shutil.copytree(straight, stopped)
    for path in ("weights.safetensors", "run.json", f"checkpoints/{at(2 * half)}"):
        file = stopped / path
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    recipe.resume(stopped)
    print(f"{name}: {3 * half} steps in {time.process_time() - started:.0f} s of CPU")
    for file in STATE:
        same = [(folder / "checkpoints" / at(2 * half) / file).read_bytes() for folder in (straight, stopped)]
        assert same[0] == same[1], file
    assert (straight / "weights.safetensors").read_bytes() == (stopped / "weights.safetensors").read_bytes()
    assert losses(straight) == losses(stopped)
    assert moved(straight, half), "nothing was trained"


def at(step):
    return f"step-{step:06d}"


def moved(folder, half):
    first, last = ((folder / "checkpoints" / at(step) / STATE[0]).read_bytes() for step in (half, 2 * half))
    return first != last
