"""A sweep ends in one complete table: whatever dies is taken up again, and what cannot be is said before it starts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, MissingExtraError, RunError, UnknownNameError
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill
from distill3d.report import page
from distill3d.sweep import SweepWatch, read_sweep, run_sweep, runner, text_table
from distill3d.sweep.engine import DONE, REFUSED, STOPPED, Ended
from distill3d.sweep.local import environment
from distill3d.sweep.names import run_name
from distill3d.sweep.place import Job, Place, is_done, last_step
from distill3d.sweep.worker import work
from tests.toys import ToyTriplane, toy

ROOT = Path(__file__).parents[1]
BASE = {"backbone": "mortal", "steps": 6, "save_every": 2}
TWO_BY_TWO = {"style": ["zombie", "joker"], "method": ["sds", "csd"]}
DEATH, DEADLY_STEP = "DISTILL3D_TEST_DEATH", 3


PLUGIN = """
from distill3d.hookspecs import hookimpl
from distill3d.report import page

for drawing in [name for name in vars(page) if name.endswith("_svg")]:  # half of a short run's time
    setattr(page, drawing, lambda *of, **how: None)


@hookimpl
def register_renderers(register):
    register("mortal", "tests.test_sweep:load_mortal")
"""


class Mortal(ToyTriplane):
    """The toy, which kills its process in the middle of a run if $DISTILL3D_TEST_DEATH names a file that is there."""

    def sample_codes(self, draws):
        token = Path(os.environ.get(DEATH, "nowhere"))
        if draws.step == DEADLY_STEP and token.is_file():
            try:
                token.unlink()
            except FileNotFoundError:
                return super().sample_codes(draws)  # another took it
            os.kill(os.getpid(), signal.SIGKILL)
        return super().sample_codes(draws)


def load_mortal(weights=None, device="cpu"):
    mortal = Mortal().float()
    mortal.load_state_dict(toy(seed=1).state_dict())
    return mortal


@pytest.fixture(autouse=True)
def _mortal_is_installed(monkeypatch, tmp_path):
    """Here and in the workers, which see it as a plugin."""
    monkeypatch.setitem(
        registry().offers["backbone"], "mortal", Offer("mortal", "tests.test_sweep:load_mortal", "tests")
    )
    installed = tmp_path / "installed"
    (installed / "mortal-1.0.dist-info").mkdir(parents=True)
    (installed / "mortal-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mortal\nVersion: 1.0\n")
    (installed / "mortal-1.0.dist-info" / "entry_points.txt").write_text("[distill3d]\nmortal = mortal_plugin\n")
    (installed / "mortal_plugin.py").write_text(PLUGIN)
    for drawing in [name for name in vars(page) if name.endswith("_svg")]:
        monkeypatch.setattr(page, drawing, lambda *of, **how: None)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(installed), str(ROOT)]))


def written(folder, **settings):
    """A sweep.yaml in the folder; runs go to its `out`."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"out": str(folder / "out"), "base": BASE, **settings}, sort_keys=False))
    return path


def column(table, name):
    return [row.get(name) for row in table.rows]


# The plan


def test_runs_are_all_combinations_named_by_what_tells_them_apart(tmp_path):
    vary = {"style": ["zombie", "joker"], "seed": [0, -1], "lr": [0.01, 1e-5], "options.mirror": [True]}
    runs = read_sweep(written(tmp_path, vary=vary)).runs
    assert [run.name for run in runs[:3]] == [
        "zombie-ld-seed0-lr0.01-mirror-true",
        "zombie-ld-seed0-lr1e-05-mirror-true",
        "zombie-ld-seed-1-lr0.01-mirror-true",
    ]
    assert len({run.name for run in runs}) == 8
    assert runs[-1].config == DistillConfig(**BASE, style="joker", seed=-1, lr=1e-5, options={"mirror": True})


def test_adding_values_and_fields_with_their_old_value_moves_no_run(tmp_path):
    few = read_sweep(written(tmp_path, vary=TWO_BY_TWO)).runs
    more = {**TWO_BY_TWO, "style": ["sketch", "zombie", "joker"], "seed": [0, 1]}
    configs = {run.name: run.config for run in read_sweep(written(tmp_path, vary=more)).runs}
    assert all(configs[run.name] == run.config for run in few)


def test_prompts_that_differ_in_a_sign_get_folders_of_their_own(tmp_path):
    vary = {"style": ["a marble bust", "a marble, bust", "A marble bust!", "冬"]}
    names = [run.name for run in read_sweep(written(tmp_path, vary=vary)).runs]
    assert len(set(names)) == 4 and names[0] == "a-marble-bust-ld-seed0"
    assert all(name.isascii() and "/" not in name for name in names)


def test_a_name_is_never_too_long_for_a_folder(tmp_path):
    vary = {"style": ["a " * 90 + "x", "a " * 90 + "y"], "scorer": ["tiny"], "backbone_options.psi": [0.7]}
    vary |= {f"options.{name}": [[0.1, 0.2]] for name in ("t_range",)} | {f"term_weights.{i * 30}": [1] for i in "abc"}
    names = [run_name({**varied}) for varied in ({k: v[i % len(v)] for k, v in vary.items()} for i in (0, 1))]
    assert len(set(names)) == 2 and all(len(name) <= 160 for name in names)


def test_numbers_are_read_as_they_are_meant(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text("out: x\nbase: {style: zombie, lr: 1e-3}\nvary: {options.t_range: [[0.1, 0.2], [2e-2, .5]]}\n")
    runs = read_sweep(path).runs
    assert [run.config.lr for run in runs] == [1e-3, 1e-3]
    assert [run.config.options["t_range"] for run in runs] == [(0.1, 0.2), (0.02, 0.5)]


def test_paths_of_a_run_hold_in_any_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    run = read_sweep(written(tmp_path, vary={"style": ["zombie"], "weights": ["mine.safetensors", "hub/id"]})).runs
    assert [r.config.weights for r in run] == [str(tmp_path / "mine.safetensors"), "hub/id"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("out: x\nvary: {style: [zombi]}", "No style is called 'zombi'.*Did you mean 'zombie'"),
        ("out: x\nvary: {style: [zombie], method: [ld, lda]}", "No method is called 'lda'.*Did you mean 'ld'"),
        (
            "out: x\nbase: {backbone: tony}\nvary: {style: [zombie]}",
            "No backbone is called 'tony'.*Did you mean 'tiny'",
        ),
        ("out: x\nbase: {scorer: gausian}\nvary: {style: [zombie]}", "Did you mean 'gaussian'"),
        ("out: x\nbase: {step: 4}\nvary: {style: [zombie]}", "base has a setting 'step'.*Did you mean 'steps'"),
        ("out: x\nvary: {style: [zombie], sed: [1]}", "vary has a setting 'sed'.*Did you mean 'seed'"),
        ("out: x\nworker: 2\nvary: {style: [zombie]}", "setting 'worker'.*Did you mean 'workers'"),
        ("out: x\nbase: {lr.high: 2}\nvary: {style: [zombie]}", "base has a setting 'lr.high'"),
        ("out: x\nbase: {options.rnk: 2}\nvary: {style: [zombie]}", "has no setting called 'rnk'"),
        ("out: x\nbase: {backbone_options.psy: 2}\nvary: {style: [zombie]}", "no setting called 'psy'"),
        ("out: x\nbase: {steps: many}\nvary: {style: [zombie]}", "steps must be at least 1.*got 'many'"),
        ("out: x\nbase: {weights: 5}\nvary: {style: [zombie]}", "weights must be text, got 5"),
        ("out: x\nbase: {controlnets: {depth: 2020-01-01}}\nvary: {style: [zombie]}", "controlnets cannot be a date"),
        ("out: x\nvary: {style: [zombie], options.grid: [2020-01-01]}", "options.grid cannot be a date"),
        ("out: x\nvary: {style: [no]}", "style must be text, got False; put it in quotes"),
        ("out: x\nbase: {options: 5}\nvary: {style: [zombie]}", "options must hold values by name"),
        ("out: x\nbase: {device: cuda:77}\nvary: {style: [zombie]}", "There is no device 'cuda:77' here"),
        ("out: x\nbase: {seed: 1}\nvary: {style: [zombie], seed: [1]}", "seed is fixed in base and varied in vary"),
        ("out: x\nvary: {style: zombie}", "vary takes a list of values for style, got 'zombie'"),
        ("out: x\nvary: {style: []}", "vary takes a list"),
        ("out: x\nvary: {style: [zombie, zombie]}", "Two runs .* 'zombie-ld-seed0'"),
        ("out: x\nvary: {seed: [1]}", "Say which styles"),
        ("vary: {style: [zombie]}", "does not say where the runs go"),
        ("out: x\nworkers: 0\nvary: {style: [zombie]}", "workers must be a whole number from 1, got 0"),
        ("out: x\nretries: -1\nvary: {style: [zombie]}", "retries must be a whole number from 0"),
        ("out: x\nevaluate: sometimes\nvary: {style: [zombie]}", "evaluate must be true or false"),
        ("out: x\nengine: dask\nvary: {style: [zombie]}", "engine must be one of local, ray, got 'dask'"),
        ("out: x\nray: {cpus: 2}\nvary: {style: [zombie]}", "ray has a setting 'cpus'"),
        ("out: x\nvary: [style]", "vary must hold settings by name"),
        (f"out: x\nvary: {{style: [zombie], seed: {list(range(10_001))}}}", "These are 10001 runs"),
        ("out: x\nout: y\nvary: {style: [zombie]}", "line 1: 'out' is given twice"),
        ("- zombie", "must hold settings by name"),
        ("out: [", "is no YAML that can be read: line 1"),
        ("out: \x00", "is no YAML that can be read"),
        ("[" * 5000, "is no YAML that can be read"),
        ("out: !!python/object/apply:os.mkdir [made]", "no YAML that can be read: line 1: could not determine"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_sentence_before_anything_starts(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises((ConfigError, UnknownNameError), match=f"(?s){sentence}") as refused:
        read_sweep(Path("sweep.yaml"))
    assert len(str(refused.value)) < 800
    assert sorted(p.name for p in tmp_path.iterdir()) == ["installed", "sweep.yaml"]


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_sweep(tmp_path / "none.yaml")


def test_the_example_and_what_the_page_shows_are_sweeps(tmp_path):
    assert len(read_sweep(ROOT / "examples" / "sweep.yaml").runs) == 12
    shown = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8"), re.S)
    for text, count in zip(shown, (12, 6), strict=True):
        (tmp_path / "sweep.yaml").write_text(text if "out:" in text else f"out: x\n{text}")
        assert len(read_sweep(tmp_path / "sweep.yaml").runs) == count


def test_what_a_user_types_comes_before_what_the_file_says(tmp_path, monkeypatch):
    file = written(tmp_path, vary=TWO_BY_TWO, workers=2, retries=0)
    assert (read_sweep(file).workers, read_sweep(file).engine, read_sweep(file).retries) == (2, "local", 0)
    assert (read_sweep(file, workers=5, engine="ray").workers, read_sweep(file, engine="ray").engine) == (5, "ray")


def test_a_device_that_only_the_cluster_has_is_not_refused_here(tmp_path, monkeypatch):
    file = written(tmp_path, base={**BASE, "device": "cuda:77"}, vary=TWO_BY_TWO)
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    assert len(read_sweep(file, engine="ray").runs) == 4
    with pytest.raises(ConfigError, match="There is no device"):
        read_sweep(file)


# The runner, with workers that are only played


class Played:
    """An engine whose workers end at once, as a list for each run says."""

    def __init__(self, place, ends, retries):
        self.place, self.ends, self.retries, self.started, self.over = place, ends, retries, [], []

    def has_room(self):
        return not self.over

    def start(self, name):
        self.started.append(name)
        how = self.ends.get(name, ["done"]).pop(0)
        if how == "failed":
            self.place.note(name, "failed", message="mend this")
        self.over.append(Ended(name, how, "what it said"))

    def ended(self):
        over, self.over = self.over, []
        return over

    def running(self):
        return [ended.name for ended in self.over]

    def stop(self): ...

    def close(self): ...


@pytest.fixture
def played(monkeypatch, tmp_path):
    """Run the four runs with such workers; returns the engine and the table."""

    def play(ends, **settings):
        plan = read_sweep(written(tmp_path, vary=TWO_BY_TWO, **settings))
        engine = Played(Place(plan.out), ends, plan.retries)
        monkeypatch.setattr(runner, "make_engine", lambda sweep, place: engine)
        monkeypatch.setattr(runner, "PAUSE", 0)
        return engine, run_sweep(plan)

    return play


def test_a_run_that_died_is_taken_up_again_as_often_as_asked(played):
    ends = {"zombie-sds-seed0": ["died", "died", "done"], "joker-csd-seed0": ["died"] * 3}
    engine, table = played(ends, retries=2)
    assert engine.started.count("zombie-sds-seed0") == 3
    assert engine.started.count("joker-csd-seed0") == 3
    assert len(engine.started) == 8  # the other two once
    assert column(table, "status")[3] == "died"
    assert table.rows[3]["remark"] == "what it said"


def test_a_mistake_of_the_user_is_not_tried_again_and_stands_in_the_table(played):
    engine, table = played({"zombie-csd-seed0": ["failed"]})
    assert engine.started.count("zombie-csd-seed0") == 1 and len(engine.started) == 4
    assert column(table, "status")[1] == "failed"
    assert "zombie-csd-seed0: mend this" in text_table(table)


def test_a_second_sweep_in_the_same_folder_is_refused(played, tmp_path):
    sweep, refused = read_sweep(written(tmp_path, vary=TWO_BY_TWO)), []

    def second(counts):
        if not refused:
            with pytest.raises(RunError, match="Another sweep is working in") as error:
                run_sweep(sweep)
            refused.append(error)

    engine, _ = played({})
    engine.started.clear()
    run_sweep(sweep, watch=SweepWatch(on_change=second))
    assert refused and len(engine.started) == 4


# One worker


def done_by_worker(place, name, job):
    place.write_job(name, job)
    return work(place.out, name, stopping=threading.Event(), stepping=threading.Event())


@pytest.fixture
def place(tmp_path):
    (tmp_path / "out" / ".sweep").mkdir(parents=True)
    return Place(tmp_path / "out")


def config(**changes):
    return DistillConfig(**{**BASE, "style": "zombie", "method": "sds", **changes})


def test_a_worker_trains_and_evaluates_and_does_neither_twice(place):
    assert done_by_worker(place, "run", Job(config(), evaluate=True, cache=None)) == DONE
    assert is_done(place.run("run"), evaluate=True)
    before = {p: p.stat().st_mtime_ns for p in place.run("run").rglob("*") if p.is_file()}
    assert done_by_worker(place, "run", Job(config(), evaluate=True, cache=None)) == DONE
    assert before == {p: p.stat().st_mtime_ns for p in place.run("run").rglob("*") if p.is_file()}
    assert [e["event"] for e in place.events("run")] == ["start", "done"] * 2


def test_a_worker_leaves_with_what_was_wrong_where_a_user_can_mend_it(place):
    bad = Job(config(options={"t_range": (20, 300)}), evaluate=False, cache=None)
    assert done_by_worker(place, "run", bad) == REFUSED
    assert "fraction" in place.last_event("run")["message"]


def test_a_worker_goes_on_from_any_point_that_a_kill_leaves(place):
    """Before the first checkpoint, before the base was noted, and when only the pictures were missing."""
    straight = distill(config(), place.run("straight"))
    expected = (straight / "weights.safetensors").read_bytes()
    for name, missing in {
        "unshown": ("sheet.png", "report.html"),
        "unpublished": ("run.json", "weights.safetensors", "sheet.png", "report.html"),
        "unbased": ("base.json", "run.json", "weights.safetensors", "checkpoints", "metrics.jsonl"),
    }.items():
        subprocess.run(["cp", "-r", straight, place.run(name)], check=True)
        subprocess.run(["rm", "-r", *(place.run(name) / m for m in missing)], check=True)
        assert not is_done(place.run(name), evaluate=False)
        assert done_by_worker(place, name, Job(config(), evaluate=False, cache=None)) == DONE
        assert is_done(place.run(name), evaluate=False)
        assert (place.run(name) / "weights.safetensors").read_bytes() == expected
        assert (place.run(name) / "base.json").is_file()


def test_a_worker_that_is_asked_to_stop_saves_after_the_step(place):
    place.write_job("run", Job(config(steps=50, save_every=40), evaluate=True, cache=None))
    stopping = threading.Event()
    stopping.set()
    assert work(place.out, "run", stopping=stopping, stepping=threading.Event()) == STOPPED
    assert last_step(place.run("run")) == 1
    assert [p.name for p in (place.run("run") / "checkpoints").iterdir()] == ["step-000001"]


@pytest.mark.parametrize(
    ("workers", "gpus", "given", "expected"),
    [
        (4, 0, {}, {"OMP_NUM_THREADS": "2"}),
        (100, 0, {}, {"OMP_NUM_THREADS": "1"}),
        (1, 0, {"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "3"}),
        (4, 2, {}, {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "1"}),
        (4, 2, {"CUDA_VISIBLE_DEVICES": "5,7"}, {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "7"}),
    ],
)
def test_workers_share_cores_and_devices(monkeypatch, workers, gpus, given, expected):
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("distill3d.sweep.local.cores", lambda: 8)
    variables = environment(3, workers, gpus)
    assert {n: v for n, v in variables.items() if n in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")} == expected


# All together


def test_a_sweep_whose_worker_is_killed_ends_complete_and_like_undisturbed_runs(tmp_path, monkeypatch):
    """Two of its four runs are there already; the worker of one of the others is killed in the middle."""
    token = tmp_path / "death"
    token.touch()
    plan = read_sweep(written(tmp_path, vary=TWO_BY_TWO, workers=2))
    for run in plan.runs[2:]:
        distill(run.config, plan.out / run.name)
    monkeypatch.setenv(DEATH, str(token))
    table = run_sweep(plan)
    assert not token.exists(), "nothing was killed"
    assert column(table, "status") == ["finished"] * 4
    assert sorted(column(table, "starts")) == [0, 0, 1, 2]
    assert column(table, "steps") == ["6/6"] * 4
    killed = max(plan.runs, key=lambda run: len(Place(plan.out).events(run.name)))
    events = Place(plan.out).events(killed.name)
    assert [event["event"] for event in events] == ["start", "died", "start", "done"]
    assert 0 == events[0]["step"] < events[2]["step"] < 6
    undisturbed = distill(killed.config, tmp_path / "undisturbed")
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (undisturbed, plan.out / killed.name)]
    assert weights[0] == weights[1]
    rows = json.loads((plan.out / "table.json").read_text())["rows"]
    assert [row["run"] for row in rows] == [run.name for run in plan.runs]
    assert (plan.out / "table.md").read_text().count("finished") == 4
    html = (plan.out / "index.html").read_text()
    assert html.count("data:image/jpeg") == 4
    assert all(f'href="{run.name}/report.html"' in html for run in plan.runs)


def test_a_finished_run_is_not_repeated_and_changed_settings_are_refused(tmp_path, monkeypatch):
    vary = {"style": ["zombie"], "method": ["sds"]}
    plan = read_sweep(written(tmp_path, vary=vary))
    distill(plan.runs[0].config, plan.out / plan.runs[0].name)
    monkeypatch.setattr(runner, "make_engine", lambda *_: pytest.fail("a finished run is repeated"))
    assert column(run_sweep(plan), "status") == ["finished"]
    for base, told in [({"steps": 8}, "steps: 6 -> 8"), ({"options.mirror": True}, "options.mirror: not set -> true")]:
        with pytest.raises(RunError, match=f"begun with other settings: {told}"):
            run_sweep(read_sweep(written(tmp_path, base={**BASE, **base}, vary=vary)))
    (plan.out / ".sweep" / "zombie-sds-seed0.job.json").unlink()
    with pytest.raises(RunError, match="steps: 6 -> 8"):  # also where no sweep made the run
        run_sweep(read_sweep(written(tmp_path, base={**BASE, "steps": 8}, vary=vary)))
    assert column(run_sweep(plan), "status") == ["finished"]


def test_what_a_prompt_says_cannot_break_the_page_or_the_table(tmp_path, monkeypatch):
    vary = {"style": ["<script>alert(1)</script> | x"]}
    plan = read_sweep(written(tmp_path, vary=vary))
    monkeypatch.setattr(runner, "make_engine", lambda sweep, place: Played(place, {}, 0))
    run_sweep(plan)
    assert "<script>" not in (plan.out / "index.html").read_text()
    lines = (plan.out / "table.md").read_text().splitlines()
    assert len(lines) == 3 and len({line.replace(r"\|", "").count("|") for line in lines}) == 1


SIX_BY_TWO = {"style": ["joker", "pixar", "sketch", "statue", "werewolf", "zombie"], "method": ["ld", "csd"]}
FEW_STEPS = {"backbone": "tiny", "steps": 6, "batch": 1, "save_every": 2}


def kill_one(out, killed):
    """Kill -9 the first worker that has saved a checkpoint and is not at its end."""
    place = Place(out)
    while not killed:
        time.sleep(0.05)
        for journal in place.out.glob(".sweep/*.jsonl"):
            name = journal.stem
            last = place.last_event(name)
            if last.get("event") == "start" and 3 <= last_step(place.run(name)) < 5:
                os.kill(last["pid"], signal.SIGKILL)
                killed.append(name)
                return


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_six_styles_by_two_methods_end_complete_though_a_worker_is_killed(tmp_path, monkeypatch, engine):
    if engine == "ray":
        pytest.importorskip("ray")
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
    settings = {"base": FEW_STEPS, "vary": SIX_BY_TWO, "workers": 2, "engine": engine}
    plan, killed = read_sweep(written(tmp_path, **settings)), []
    threading.Thread(target=kill_one, args=(plan.out, killed), daemon=True).start()
    table = run_sweep(plan)
    assert column(table, "status") == ["finished"] * 12
    starts = dict(zip(column(table, "run"), column(table, "starts")))
    assert {name: count for name, count in starts.items() if count != 1} == {killed[0]: 2}
    config = next(run.config for run in plan.runs if run.name == killed[0])
    undisturbed = distill(config, tmp_path / "undisturbed")
    weights = [(folder / "weights.safetensors").read_bytes() for folder in (undisturbed, plan.out / killed[0])]
    assert weights[0] == weights[1]


def begun_sweep(tmp_path):
    """`distill3d sweep` as a process, once its run has saved something."""
    file = written(tmp_path, base={**BASE, "steps": 100, "save_every": 50}, vary={"style": ["zombie"]})
    command = [sys.executable, "-c", "from distill3d.cli import main; main()", "sweep", str(file)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    plan = read_sweep(file)
    deadline = time.monotonic() + 120
    while last_step(plan.out / plan.runs[0].name) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process, plan


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path):
    process, plan = begun_sweep(tmp_path)
    process.kill()
    process.wait()
    assert column(run_sweep(plan), "status") == ["finished"]
    events = [e["event"] for e in Place(plan.out).events(plan.runs[0].name)]
    assert events == ["start", "stopped", "start", "done"]  # the orphan saved and left before the other began
    undisturbed = distill(plan.runs[0].config, tmp_path / "undisturbed")
    weights = [f / "weights.safetensors" for f in (undisturbed, plan.out / plan.runs[0].name)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


@pytest.mark.slow
def test_ctrl_c_saves_the_runs_and_says_how_to_go_on(tmp_path):
    process, plan = begun_sweep(tmp_path)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "Go on with the same command" in said
    run = plan.out / plan.runs[0].name
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    assert json.loads((plan.out / "table.json").read_text())["rows"][0]["status"] == "stopped"


def test_ray_is_asked_for_by_name_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    plan = read_sweep(written(tmp_path, vary=TWO_BY_TWO, engine="ray"))
    with pytest.raises(MissingExtraError, match=r"distill3d\[ray\]"):
        run_sweep(plan)
