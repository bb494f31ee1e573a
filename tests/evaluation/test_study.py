"""The study and the table of the world: what is compared differs in one thing, and a killed command goes on."""

import itertools
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from distill3d.evaluation import mean_interval
from distill3d.methods import build_method
from distill3d.plugins import registry
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.tiny.evaluation import Figures, truth
from distill3d.tiny.generator import TinyTriplane
from tests.tiny.fakes import FakePanel, painted_heads

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import cells
import study
import study_cell
import study_plan
import study_tables
import world_table
from study_figure import draw

LR = TinyTriplane.defaults.lr


def objective_of(configuration, grid=False):
    factory = registry().find("method", configuration.method).load()
    scorer = GaussianScorer(latent_size=8)
    options = dict(configuration.options)
    method = build_method(configuration.method, factory, scorer, CATALOGUE["zombie"], TinyTriplane.defaults, options)
    return method.terms["grid" if grid else "score"].term.objective


def test_all_configurations_are_different_and_files_can_be_named_by_them():
    every = study_plan.configurations(LR)
    assert len(every) == 37  # 30 of the grid, 3 of whose are rungs; 4 more rungs; 3 with weights of their own
    keys = {configuration.key for configuration in every}
    assert len(keys) == 37 and all("/" not in key and len(key) < 200 for key in keys)


def test_every_rung_of_the_ladder_changes_one_thing():
    rungs = [dict(c.options) for c in study_plan.ladder(LR).values()]
    changed = [{name for name in b if a[name] != b[name]} for a, b in itertools.pairwise(rungs)]
    assert changed == [{"control"}, {"noise_baseline"}, {"rank"}, {"grid"}, {"grid"}, {"mirror"}]
    assert rungs[-1]["noise_baseline"] == 0 and rungs[0]["noise_baseline"] == 1


def test_the_grid_of_baselines_holds_everything_else_equal():
    grid = study_plan.baseline_grid(LR)
    assert len(grid) == 30
    for (lr, control, baseline), configuration in grid.items():
        objective = objective_of(configuration)
        assert (objective.weighting, objective.guidance_scale, objective.t_range) == ("sigma", 6.0, (0.02, 0.98))
        assert objective.noise_baseline == baseline and objective.rank_weights is None
        assert configuration.lr == lr and dict(configuration.options)["control"] == ("depth" if control else "off")


def test_own_weights_change_the_weight_and_nothing_else():
    rungs, own = study_plan.ladder(LR), study_plan.own_weights(LR)
    pairs = zip(
        ("SDS", "SDS + ControlNet", "LD + ControlNet"), own.values(), ("sigma_squared", "sigma_squared", "paper")
    )
    for name, configuration, weighting in pairs:
        ours, equal = objective_of(configuration), objective_of(rungs[name])
        assert ours.weighting == weighting
        kept = ("score", "guidance_scale", "t_range", "noise_baseline", "rank_weights", "negative_prompt")
        assert [getattr(ours, field) for field in kept] == [getattr(equal, field) for field in kept]


def doubled(settings):
    if settings.get("fails"):
        raise RuntimeError("killed")
    return {"twice": 2 * settings["x"]}


def test_only_missing_damaged_and_changed_cells_are_computed(tmp_path):
    jobs = {tmp_path / f"{x}.json": {"x": x, "pair": (1, 2)} for x in range(4)}
    assert [cell["twice"] for _, cell in cells.run_cells(doubled, jobs, 1)] == [0, 2, 4, 6]
    assert not list(cells.run_cells(doubled, jobs, 1))
    (tmp_path / "1.json").write_text('{"settings": ')
    (tmp_path / "2.json").unlink()
    changed = {**jobs, tmp_path / "3.json": {"x": 30, "pair": (1, 2)}}
    assert {path.stem: cell["twice"] for path, cell in cells.run_cells(doubled, changed, 1)} == {
        "1": 2,
        "2": 4,
        "3": 60,
    }
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_was_finished_before_a_failure_is_kept(tmp_path):
    jobs = {tmp_path / "a.json": {"x": 1}, tmp_path / "b.json": {"x": 2, "fails": True}, tmp_path / "c.json": {"x": 3}}
    with pytest.raises(RuntimeError, match="killed"):
        list(cells.run_cells(doubled, jobs, 1))
    assert cells.read_cell(tmp_path / "a.json", {"x": 1})["twice"] == 2
    assert not (tmp_path / "b.json").exists()


@pytest.mark.slow
def test_processes_compute_what_one_would(tmp_path):
    jobs = {tmp_path / f"{x}.json": {"x": x} for x in range(3)}
    found = {path.stem: cell["twice"] for path, cell in cells.run_cells(doubled, jobs, 2)}
    assert found == {"0": 0, "1": 2, "2": 4}


def test_other_weights_make_other_cells(tmp_path):
    file, folder = tmp_path / "g.safetensors", tmp_path / "judges"
    folder.mkdir()
    file.write_bytes(b"one")
    (folder / "face.safetensors").write_bytes(b"face")
    networks = cells.Networks(str(file), str(folder), str(folder))
    before = networks.checksum()
    assert before == networks.checksum()
    (folder / "face.safetensors").write_bytes(b"another face")
    assert networks.checksum() != before


@pytest.fixture
def smoke(monkeypatch, tmp_path):
    """The whole command with two configurations, one style, one step, fake judges and painted heads."""
    two = list(study_plan.ladder(LR).values())[:2]
    monkeypatch.setattr(study, "chosen", lambda options: two)
    monkeypatch.setattr(study_cell, "panel_of", lambda folder: FakePanel())
    monkeypatch.setattr(truth, "render_heads", painted_heads)
    monkeypatch.setattr(cells, "JUDGES_FOLDER", tmp_path / "no judges")
    study_cell.exam_of.cache_clear()
    return ["--work", str(tmp_path), "--styles", "zombie", "--seeds", "0", "--steps", "1", "--batch", "1", "--subjects"]


def test_the_command_runs_resumes_and_writes_table_and_figure(smoke, tmp_path, capsys):
    study.main([*smoke, "12"])
    said = capsys.readouterr().out
    assert "3 cells, 3 to do" in said and "[3/3]" in said
    found = json.loads((tmp_path / "study.json").read_text())
    assert len(found["cells"]) == 2 and found["references"]["zombie"]["untouched"]["psnr_gain"] == 0
    text = (tmp_path / "study.md").read_text()
    assert "| SDS + ControlNet |" in text and "| ceiling |" in text and "SDS + ControlNet - SDS" in text
    assert (tmp_path / "study.svg").stat().st_size > 10_000 and (tmp_path / "study.png").exists()

    first, second = sorted((tmp_path / "cells").glob("ld_*.json"))
    kept, figures = first.stat().st_mtime_ns, json.loads(second.read_text())["snapshots"]
    second.unlink()
    study.main([*smoke, "12"])
    assert "3 cells, 1 to do" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == kept
    assert json.loads(second.read_text())["snapshots"] == figures  # seeded: the same numbers again

    study.main([*smoke, "12", "--plan"])
    assert "3 cells, 0 to do: about 0 of" in capsys.readouterr().out


def made_up_study(noise=0.5):
    """SDS has accuracy .5, LD .6, both shifted alike by their seed's luck."""
    runs = {}
    for configuration in study_plan.configurations(LR):
        for style in ("zombie", "pixar"):
            for seed in (0, 1, 2):
                value = (
                    0.6 - 0.1 * dict(configuration.options)["noise_baseline"] if configuration.method == "ld" else 0.4
                )
                row = {"style_accuracy": value + noise * (seed - 1), "retrieval_top1": 0.3, "psnr": 10.0 + seed}
                shots = [{"step": step, **row} for step in (1, 2)]
                runs[configuration, style, seed] = {"snapshots": shots, "settings": {"steps": 2}, "cpu_seconds": 1.0}
    references = {s: {"ceiling": Figures(style_accuracy=1.0).plain()} for s in ("zombie", "pixar")}
    return study_tables.Study(runs, references, ["zombie", "pixar"], [0, 1, 2], LR)


def test_differences_are_taken_seed_by_seed():
    """The luck of a seed, far larger than the difference, falls out of it and not out of the means."""
    made = made_up_study()
    grid = study_plan.baseline_grid(LR)
    ld, sds = grid[LR, True, 0.0], grid[LR, True, 1.0]
    found = made.difference(ld, sds, "style_accuracy", 2)
    assert found.mean == pytest.approx(0.1) and found.half == pytest.approx(0, abs=1e-9)
    alone = made.interval(ld, "style_accuracy", 2)
    assert alone.mean == pytest.approx(0.6) and alone.half == pytest.approx(mean_interval([0.1, 0.6, 1.1]).half)


def test_tables_say_intervals_and_mark_what_is_sure(tmp_path):
    study_tables.write_tables(made_up_study(noise=0.0), tmp_path / "study.md")
    lines = (tmp_path / "study.md").read_text().splitlines()
    sds = next(line for line in lines if line.startswith("| SDS |"))
    assert "0.50 ± 0.00" in sds and "11.00 ± 2.48" in sds  # 4.3027 / sqrt(3)
    assert any(line.startswith("| ceiling | 1.00 |") for line in lines)
    difference = next(line for line in lines if line.startswith("| LD - SDS at equal w(t)"))
    assert "**+0.10 ± 0.00**" in difference and "| +0.00 ± 0.00 |" in difference


def test_a_style_that_is_missing_leaves_its_seed_out():
    made = made_up_study()
    grid = study_plan.baseline_grid(LR)
    ld = grid[LR, True, 0.0]
    runs = {key: cell for key, cell in made.runs.items() if key != (ld, "pixar", 2)}
    found = replace(made, runs=runs).interval(ld, "style_accuracy", 2)
    assert found.count == 2 and found.mean == pytest.approx(0.35)
    assert math.isnan(replace(made, runs={}).value(ld, "zombie", 0, "psnr", 2))


def test_the_figure_of_a_whole_study_is_drawn(tmp_path):
    draw(made_up_study(), tmp_path)
    assert "</svg>" in (tmp_path / "study.svg").read_text()
    assert (tmp_path / "study.png").stat().st_size > 50_000


def world_cell(style, seed, accuracy, top1, gain):
    rows = {
        "run": Figures(style_accuracy=accuracy, retrieval_top1=top1, psnr_gain=gain).plain(),
        "ceiling": Figures(style_accuracy=1.0, retrieval_top1=0.9).plain(),
        "untouched": Figures(style_accuracy=0.0, retrieval_top1=1.0, psnr_gain=0.0).plain(),
        "mean head": Figures(retrieval_top1=0.02).plain(),
        "chance": Figures(style_accuracy=1 / 8, retrieval_top1=1 / 64).plain(),
    }
    settings = {"style": style, "seed": seed}
    return {"settings": settings, "run": "run", "rows": rows, "seconds": {"run_wall": 100.0 + seed}}


def test_the_table_of_the_world_has_mean_and_range_and_names_every_miss():
    good = [world_cell("zombie", seed, 0.9 + 0.05 * seed, 0.8, 3.5) for seed in (0, 1, 2)]
    bad = [world_cell("joker", seed, 0.8, 0.7, 2.0) for seed in (0, 1, 2)]
    text = world_table.table(good + bad)
    assert "0.95 (0.90 to 1.00)" in text and "100 to 102 s" in text and "| **chance** | 0.12" in text
    misses = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(misses) == 3 and all(miss.startswith("- joker") for miss in misses)
    assert "joker: identity top-1 0.70 is 0.78 of the ceiling's 0.90" in misses[1]
    assert "- none" in world_table.table(good)


def test_every_style_gets_the_same_settings(tmp_path):
    options = world_table.parse(["--work", str(tmp_path), "--judges", str(tmp_path)])
    cells_of = world_table.cells_of(options).values()
    assert len(cells_of) == 18
    assert (
        len({json.dumps({k: v for k, v in c.items() if k not in ("style", "seed", "folder")}) for c in cells_of}) == 1
    )
    assert all(c["changes"] == {} for c in cells_of)
