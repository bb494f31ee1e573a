"""`distill3d sweep` as a user meets it."""

import pytest
import yaml

from distill3d.config import DistillConfig
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill
from distill3d.report import page

TOY = {"backbone": "toy", "steps": 2}


@pytest.fixture(autouse=True)
def _toy_is_installed(monkeypatch):
    monkeypatch.setitem(registry().offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))
    for drawing in [name for name in vars(page) if name.endswith("_svg")]:  # half of a short run's time
        monkeypatch.setattr(page, drawing, lambda *of, **how: None)


@pytest.fixture
def sweep(command, tmp_path):
    """Write these settings to sweep.yaml and run `distill3d sweep` on it."""

    def run(*arguments, **settings):
        plan = {"out": "out", "base": TOY, "vary": {"style": ["zombie", "joker"]}, **settings}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(plan))
        return command("sweep", "sweep.yaml", *arguments)

    return run


def test_a_dry_run_lists_the_runs_and_writes_nothing(sweep, tmp_path):
    code, said = sweep("--dry-run", "--workers", "3")
    assert code == 0, said
    assert [line.split()[0] for line in said.splitlines()[:2]] == ["zombie-ld-seed0", "joker-ld-seed0"]
    assert "waiting, 0/2 steps" in said
    assert "2 runs in" in said and "3 at a time by engine local" in said
    assert [p.name for p in tmp_path.iterdir()] == ["sweep.yaml"]


def test_a_sweep_ends_with_a_table_and_a_page(sweep, tmp_path):
    for style in ("zombie", "joker"):  # here, because the workers do not know the toy
        distill(DistillConfig(**TOY, style=style), tmp_path / "out" / f"{style}-ld-seed0")
    code, said = sweep()
    assert code == 0, said
    assert "2 of 2 runs finished" in said and str(tmp_path / "out" / "index.html") in said
    assert {"table.md", "table.json", "index.html"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert "finished, 2/2 steps" in sweep("--dry-run")[1]


def test_a_run_that_fails_makes_the_exit_code_1_and_says_why_below_the_table(sweep):
    """The workers do not know the toy, which is a mistake that a user can mend."""
    code, said = sweep("--workers", "2")
    assert code == 1
    assert "0 of 2 runs finished" in said
    assert said.count("joker-ld-seed0: No backbone is called 'toy'") == 1


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        ((), {"vary": {"style": ["zombi"]}}, "Did you mean 'zombie'"),
        (("--engine", "dask"), {}, "engine must be one of local, ray, got 'dask'"),
        ((), {"workerz": 2}, "Did you mean 'workers'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(sweep, tmp_path, arguments, settings, sentence):
    code, said = sweep(*arguments, **settings)
    assert code == 1
    assert said.startswith("Error: ") and said.count("\n") == 1 and sentence in said
    assert not (tmp_path / "out").exists()
