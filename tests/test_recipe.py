"""What a run does beyond its steps: it looks after itself, ends early where it was told to, and makes do with less."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from distill3d import preparation, recipe
from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError, UnknownNameError, WeightsError
from distill3d.health import Health
from distill3d.methods import Method, reweighted
from distill3d.models import load
from distill3d.objectives.term import Weighted
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill, open_run, prepare, resume
from distill3d.runs import trained_weights
from distill3d.training import trainer as trainer_module
from distill3d.training.checkpoint import list_checkpoints
from distill3d.training.loop import CHECKPOINTS, Instruments
from distill3d.training.share import Share
from distill3d.training.step import Step
from distill3d.views import View
from tests.faults.children import bare

CONFIG = DistillConfig(style="zombie", backbone="toy", method="sds", steps=6, save_every=2, probe=0)


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    bare(monkeypatch)
    monkeypatch.setitem(registry().offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))


def well(step):
    return Health(step, diversity=1.0, identity=0.9, change=0.5, kept=0.9)


def watched(monkeypatch, check):
    """Runs whose health is what `check` says."""
    monkeypatch.setattr(recipe, "Instruments", lambda *given: Instruments(check=check))


def state(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize(
    ("settings", "sick", "reason"),
    [
        ({"stop_on_collapse": True}, {"kept": 0.01}, "collapsed"),
        ({"stop_identity": 0.4}, {"identity": 0.1}, "identity 0.10 fell below 0.4 at step 4"),
    ],
)
def test_a_run_that_is_not_well_ends_and_publishes_the_last_weights_that_were(
    tmp_path, monkeypatch, settings, sick, reason
):
    watched(monkeypatch, lambda step: well(step) if step < 4 else replace(well(step), **sick))
    folder = distill(replace(CONFIG, **settings), tmp_path / "run")
    ended = state(folder)
    assert (ended["status"], ended["step"]) == ("halted", 2)
    assert reason in ended["reason"]
    assert [c.step for c in list_checkpoints(folder / CHECKPOINTS)] == [2, 4]
    assert trained_weights(folder).parent == folder
    published, of_two = load_file(trained_weights(folder)), load_file(list_checkpoints(folder / CHECKPOINTS)[0].weights)
    assert all(torch.equal(published[name], of_two[name]) for name in of_two)


def test_without_being_told_it_goes_on_and_keeps_the_newest_healthy_checkpoint(tmp_path, monkeypatch):
    watched(monkeypatch, lambda step: well(step) if step < 4 else replace(well(step), kept=0.01))
    folder = distill(replace(CONFIG, steps=12, keep=1), tmp_path / "run")
    assert state(folder)["status"] == "finished"
    assert [c.step for c in list_checkpoints(folder / CHECKPOINTS)] == [2, 12]
    lines = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]


def test_a_halted_run_goes_on_when_it_is_told_to(tmp_path, monkeypatch):
    watched(monkeypatch, lambda step: replace(well(step), identity=0.1))
    folder = distill(replace(CONFIG, stop_identity=0.4), tmp_path / "run")
    assert state(folder)["status"] == "halted"
    resume(folder, changes={"stop_identity": None})
    assert state(folder)["status"] == "finished"
    straight = distill(CONFIG, tmp_path / "straight")
    assert (straight / "weights.safetensors").read_bytes() == (folder / "weights.safetensors").read_bytes()


def test_the_average_is_what_is_published_and_the_run_goes_on_from_the_weights_themselves(tmp_path):
    plain = distill(CONFIG, tmp_path / "plain")
    averaged = distill(replace(CONFIG, ema=0.9), tmp_path / "averaged")
    own = [load_file(list_checkpoints(f / CHECKPOINTS)[-1].path / "weights.safetensors") for f in (plain, averaged)]
    assert all(torch.equal(own[0][name], own[1][name]) for name in own[0])
    published = dict(load(averaged).named_parameters())
    mean = load_file(list_checkpoints(averaged / CHECKPOINTS)[-1].path / "averaged.safetensors")
    assert all(torch.equal(published[name], mean[name]) for name in mean)
    assert any(not torch.equal(mean[name], own[1][name]) for name in mean)


def test_a_changed_setting_is_shown_and_refused_until_it_is_asked_for(tmp_path):
    folder = distill(CONFIG, tmp_path / "run")
    with pytest.raises(ConfigError, match=r"steps: 6 -> 8; .*--override") as refused:
        resume(folder, changes={"steps": 8, "options": {"guidance_scale": 3.0}})
    assert "options.guidance_scale: not set -> 3.0" in str(refused.value)
    resume(folder, changes={"steps": 8, "options": {"guidance_scale": 3.0}}, override=True)
    assert json.loads((folder / "config.json").read_text())["steps"] == 8
    assert state(folder)["step"] == 8
    resume(folder)  # the new settings are the run's own now


def test_what_is_free_may_change_and_a_table_keeps_what_is_not_named(tmp_path):
    options = {"guidance_scale": 5.0, "noise_baseline": 0.5}
    folder = distill(replace(CONFIG, options=options), tmp_path / "run")
    resume(folder, changes={"keep": 5, "save_every": 1, "options": {"guidance_scale": 5.0}})


@pytest.mark.parametrize("times", [1, 2])
def test_a_step_that_does_not_fit_is_taken_again_by_the_next_smaller_plan_once(tmp_path, monkeypatch, caplog, times):
    straight = distill(replace(CONFIG, lr=1e-4), tmp_path / "straight")
    begin, failed, plans = Step.begin, [], []

    def begun(step, *given):
        plans.append((step.rerender, len(step.draws.subjects)))
        if step.number == 3 and len(failed) < times:
            failed.append(step)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return begin(step, *given)

    monkeypatch.setattr(Step, "begin", begun)
    if times == 2:
        with pytest.raises(RunError, match=r"memory.*--vram"):
            distill(replace(CONFIG, lr=1e-4), tmp_path / "run")
        assert list_checkpoints(tmp_path / "run" / CHECKPOINTS)[-1].step == 2
        return
    folder = distill(replace(CONFIG, lr=1e-4), tmp_path / "run")
    assert plans[0] == (True, 2) and plans[-1] == (True, 1)
    said = [record.getMessage() for record in caplog.records if "memory" in record.getMessage()]
    assert said == ["Out of memory: going on with the next smaller plan (one subject at a time)."]
    want, found = (load_file(f / "weights.safetensors") for f in (straight, folder))
    for name in want:
        torch.testing.assert_close(found[name], want[name], rtol=1e-3, atol=1e-5)


def test_any_other_error_of_a_step_is_not_taken_for_a_lack_of_memory(tmp_path, monkeypatch):
    def broken(*given):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Step, "begin", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        distill(CONFIG, tmp_path / "run")


def test_an_opened_run_is_where_the_run_itself_was(tmp_path):
    folder = distill(replace(CONFIG, keep=1), tmp_path / "run")
    config, weights = (folder / "config.json").read_bytes(), (folder / "weights.safetensors").read_bytes()
    seen = []
    _, trainer = open_run(folder, 3, progress=lambda at, wanted: seen.append((at, wanted)))
    assert seen == [(0, 3), (1, 3), (2, 3)]  # no checkpoint before it is left
    assert trainer.step_number == 3
    for _ in range(3):
        trainer.step()
    mine = {name: p.detach() for name, p in trainer.trained.items()}
    assert all(torch.equal(mine[name], value) for name, value in load_file(folder / "weights.safetensors").items())
    assert (folder / "config.json").read_bytes() == config and (folder / "weights.safetensors").read_bytes() == weights
    assert open_run(folder)[1].step_number == 6
    for step in (-1, 6):
        with pytest.raises(ConfigError, match="steps 0 to 5"):
            open_run(folder, step)


def test_a_folder_that_was_made_for_a_run_whose_parts_cannot_be_had_is_gone_again(tmp_path):
    with pytest.raises(UnknownNameError):
        distill(replace(CONFIG, method="none"), tmp_path / "deep" / "run")
    assert not (tmp_path / "deep" / "run").exists()


def test_a_weight_is_a_factor_of_the_methods_own_and_0_leaves_a_term_out():
    class Constant:
        def __init__(self, value):
            self.value = value

    method = Method({"a": Weighted(2.0, Constant(1)), "b": Weighted(lambda step: 3.0 + step, Constant(2), every=4)})
    half = reweighted(method, {"a": 0.25, "b": 0.5}).terms
    assert (half["a"].weight, half["b"].weight(1), half["b"].every) == (0.5, 2.0, 4)
    assert list(reweighted(method, {"a": 0}).terms) == ["b"]
    same = reweighted(method, {}).terms
    assert (same["a"].weight, same["b"].weight(1)) == (2.0, 4.0)
    with pytest.raises(UnknownNameError, match="'c'"):
        reweighted(method, {"c": 1.0})
    with pytest.raises(ConfigError, match="No term is left"):
        reweighted(method, {"a": 0, "b": 0})


def test_a_weight_reaches_the_runs_terms():
    terms = prepare(replace(CONFIG, method="ld", term_weights={"grid": 0.5})).method.terms
    assert (terms["score"].weight, terms["grid"].weight) == (1.0, 0.5)
    assert any(isinstance(view, View) for view in terms["grid"].term.needs.views)


def test_a_gpu_gets_half_precision_where_the_scorer_has_it(monkeypatch):
    monkeypatch.setattr(preparation, "best_precision", lambda device: "half")
    renderer = preparation.load_backbone(CONFIG)
    filled = {name: preparation.with_defaults(replace(CONFIG, scorer=name), renderer) for name in ("tiny", "gaussian")}
    assert {name: config.precision for name, config in filled.items()} == {"tiny": "half", "gaussian": "float32"}
    asked = preparation.with_defaults(replace(CONFIG, scorer="tiny", precision="bfloat16"), renderer)
    assert asked.precision == "bfloat16"


def test_what_a_scorer_does_not_take_is_refused_where_it_was_asked_for():
    for setting in ({"precision": "half"}, {"fast": True}):
        (name,) = setting
        with pytest.raises(ConfigError, match=f"--{name}"):
            prepare(replace(CONFIG, scorer="gaussian", **setting))


def test_a_look_at_the_health_that_fails_or_does_not_fit_loses_no_step(tmp_path, monkeypatch, caplog):
    def too_large(step):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    watched(monkeypatch, too_large)
    folder = distill(CONFIG, tmp_path / "large")
    assert state(folder)["status"] == "finished"
    assert "health does not fit into memory" in caplog.text
    watched(monkeypatch, lambda step: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        distill(CONFIG, tmp_path / "broken")
    assert [c.step for c in list_checkpoints(tmp_path / "broken" / CHECKPOINTS)] == [2]


def test_a_checkpoint_whose_pictures_are_not_finite_is_not_one_to_come_back_to(tmp_path, monkeypatch):
    watched(monkeypatch, lambda step: replace(well(step), finite=step < 4, kept=float("nan"), change=float("nan")))
    folder = distill(replace(CONFIG, steps=8, keep=1), tmp_path / "run")
    assert [c.step for c in list_checkpoints(folder / CHECKPOINTS)] == [2, 8]


def test_a_step_that_does_not_fit_after_it_was_summed_up_is_not_summed_up_twice(tmp_path, monkeypatch):
    reduced, norm = [], trainer_module._norm

    class Counting(Share):
        def reduce(self, parameters, log):
            reduced.append(log.step)

    def norm_of(gradients):
        if reduced[-1] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return norm(gradients)

    monkeypatch.setattr(trainer_module, "_norm", norm_of)
    with pytest.raises(RunError, match="does not fit into memory"):
        distill(CONFIG, tmp_path / "run", share=Counting())
    assert reduced == [0, 1, 2, 3]


def test_a_run_that_was_halted_at_its_last_step_stays_so(tmp_path, monkeypatch):
    watched(monkeypatch, lambda step: well(step) if step < 6 else replace(well(step), identity=0.1))
    folder = distill(replace(CONFIG, stop_identity=0.4), tmp_path / "run")
    assert (state(folder)["status"], state(folder)["step"]) == ("halted", 4)
    lines = (folder / "health.jsonl").read_text()
    resume(folder)
    assert (state(folder)["status"], state(folder)["step"]) == ("halted", 4)
    assert (folder / "health.jsonl").read_text() == lines


def test_an_override_that_cannot_be_leaves_the_run_as_it_was(tmp_path):
    folder = distill(CONFIG, tmp_path / "run")
    before = (folder / "config.json").read_bytes()
    with pytest.raises(WeightsError, match="names differ"):
        resume(folder, changes={"train": "all"}, override=True)
    assert (folder / "config.json").read_bytes() == before
    resume(folder)


def test_an_override_holds_also_if_the_run_is_killed_before_its_next_checkpoint(tmp_path, monkeypatch):
    folder = distill(CONFIG, tmp_path / "run")

    def killed(*given, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipe, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            resume(folder, changes={"steps": 8, "lr": 1e-4}, override=True)
    resume(folder)
    assert (state(folder)["status"], state(folder)["step"]) == ("finished", 8)


def test_another_method_leaves_the_settings_of_the_old_one_behind(tmp_path):
    folder = distill(replace(CONFIG, options={"noise_baseline": 0.5}, term_weights={"score": 0.5}), tmp_path / "run")
    resume(folder, changes={"method": "csd", "steps": 8}, override=True)
    config = json.loads((folder / "config.json").read_text())
    assert (config["method"], config["options"], config["term_weights"]) == ("csd", {}, {})


@pytest.mark.parametrize("setting", [{"trackers": ("tensorbord",)}, {"vram": "foo"}, {"vram": "0.01gb"}])
def test_a_mistake_in_a_setting_leaves_no_run_behind(tmp_path, setting):
    with pytest.raises(ConfigError):
        distill(replace(CONFIG, **setting), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    distill(CONFIG, tmp_path / "run")


def test_a_path_is_the_same_however_it_is_typed(tmp_path, monkeypatch):
    (tmp_path / "weights").mkdir()
    monkeypatch.chdir(tmp_path)
    absolute = preparation.with_absolute_paths(
        replace(CONFIG, weights="weights", fast="weights", controlnets={"depth": "weights", "canny": "some/one"})
    )
    there = str(tmp_path / "weights")
    assert (absolute.weights, absolute.fast) == (there, there)
    assert absolute.controlnets == {"depth": there, "canny": "some/one"}


def test_a_run_of_before_there_were_precisions_stays_in_its_own(tmp_path):
    old = {k: v for k, v in json.loads(CONFIG.to_json()).items() if k in ("schema", "style", "backbone", "method")}
    assert DistillConfig.from_json(json.dumps(old)).precision == "float32"
