"""The example plugin keeps the contract, trains, and installs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill3d.cameras import orbit
from distill3d.errors import ConfigError, PromptError
from distill3d.methods import ld, sds
from distill3d.plugins import collect
from distill3d.styles import Style
from distill3d.testing import check_renderer, check_scorer
from distill3d.training.trainer import Trainer

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "sphere_plugin"


def imported(name):
    """A module of the example, by its path and under the name that import strings use."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sphere():
    """The module with the two parts."""
    yield imported("distill3d_sphere")
    del sys.modules["distill3d_sphere"]


@pytest.fixture
def offers():
    """The module that the entry point names."""
    yield imported("distill3d_sphere_plugin")
    del sys.modules["distill3d_sphere_plugin"]


class EntryPoint:
    """What an installed package's entry point is to `collect`."""

    name, dist = "sphere", None

    def __init__(self, module):
        self.load = lambda: module


def mean_colour(renderer):
    """(3,) of eight balls seen from the front."""
    front = torch.zeros(8, 1)
    with torch.no_grad():
        pictures = renderer.render(renderer.scene(renderer.codes_of_seeds(range(8))), orbit(front, front))
    solid = (pictures.opacity > 0.9).float()
    return (pictures.raw * solid).sum((0, 1, 3, 4)) / solid.sum()


def test_the_example_is_under_120_lines():
    assert sum(len(path.read_text().splitlines()) for path in EXAMPLE.glob("*.py")) < 120


def test_the_module_that_every_command_imports_imports_no_torch():
    code = "import sys, distill3d_sphere_plugin; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=EXAMPLE)


def test_both_of_its_parts_keep_the_contract(sphere):
    assert not check_renderer(sphere.load_sphere()).skipped
    assert not check_scorer(sphere.load_colour(), prompts=("red", "a blue ball")).skipped


def test_its_hooks_offer_what_loads(sphere, offers):
    registry = collect([EntryPoint(offers)])
    assert registry.plugins[0].broken is None
    assert isinstance(registry.find("backbone", "sphere").load()(None, "cpu"), sphere.Sphere)
    assert isinstance(registry.find("scorer", "colour").load()(None, "cpu"), sphere.Colour)


@pytest.mark.parametrize("style", ["red", "blue"])
@pytest.mark.parametrize("method", [ld, sds])
def test_thirty_steps_paint_the_balls_towards_the_style(sphere, method, style):
    renderer, scorer = sphere.load_sphere(), sphere.load_colour()
    target = torch.tensor(sphere.COLOURS[style])
    before = (mean_colour(renderer) - target).norm()
    parts = method(scorer, Style(style, style), renderer.defaults, guidance_scale=1.0)
    trainer = Trainer(renderer, parts, batch=2, lr=lambda step: 0.1)
    for _ in range(30):
        trainer.step()
    assert (mean_colour(renderer) - target).norm() < 0.7 * before


def test_weights_are_read_from_a_file(sphere, tmp_path):
    from safetensors.torch import save_file

    renderer = sphere.load_sphere()
    save_file({name: tensor + 1 for name, tensor in renderer.state_dict().items()}, tmp_path / "weights.safetensors")
    loaded = sphere.load_sphere(str(tmp_path / "weights.safetensors"))
    torch.testing.assert_close(loaded.paint.bias, renderer.paint.bias + 1)


def test_what_the_scorer_cannot_use_is_refused(sphere):
    scorer = sphere.load_colour()
    assert scorer.unknown_words("Portrait of a zombie") == ["portrait", "of", "a", "zombie"]
    with pytest.raises(PromptError, match="names no colour"):
        scorer.condition(["Portrait of a zombie"])
    with pytest.raises(ConfigError, match="prompts and nothing else"):
        scorer.condition(["red"], image=torch.zeros(1, 3, 32, 32))


@pytest.mark.slow
def test_it_installs_with_pip_and_runs_from_the_command_line(tmp_path):
    """Without the network: both packages go into an empty folder, which alone is on the path."""
    pytest.importorskip("hatchling", reason="building without isolation needs hatchling")
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, packages, ROOT, EXAMPLE], check=True, cwd=tmp_path)
    command = "import sys; from distill3d.cli import main; sys.exit(main())"
    options = ["run", "--backbone", "sphere", "--scorer", "colour", "--style", "red", "--steps", "20", "--out", "out"]
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    subprocess.run([sys.executable, "-c", command, *options], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "out" / "report.html").is_file()
