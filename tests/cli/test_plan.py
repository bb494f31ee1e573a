"""`distill3d plan`: the ladder and the chosen plan, as text and as JSON; one sentence where nothing fits."""

import json

import pytest

from distill3d.plugins import Offer, registry
from distill3d.scorers.gaussian import GaussianScorer


def shape_of_toy_scorer(device="meta", *, precision="float32", fast=False):
    """A scorer that has a tiny autoencoder, which a toy does not notice."""
    return GaussianScorer(latent_size=8)


@pytest.fixture(autouse=True)
def _toys_are_installed(monkeypatch):
    offers = registry().offers
    monkeypatch.setitem(offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))
    shape = Offer("gaussian", "tests.cli.test_plan:shape_of_toy_scorer", "tests")
    monkeypatch.setitem(offers["scorer architecture"], "gaussian", shape)


TOY = ("plan", "--backbone", "toy", "--method", "csd")


def test_the_fastest_plan_that_fits_is_marked_and_everything_is_called_predicted(command):
    code, said = command(*TOY, "--vram", "1gb")
    assert code == 0
    assert "predicted" in said
    lines = said.splitlines()
    assert ["everything kept" in line for line in lines if "chosen" in line and "GiB" in line] == [True]
    assert [line.split("  ")[1] for line in lines if line.endswith("fits")] == [
        "one subject at a time",
        "views rendered again",
    ]
    for part in ("parameters of the backbone", "optimiser", "views backward", "peak, everything counted", "RTX 4090"):
        assert part in said
    assert "moving average" not in said
    assert "moving average" in command(*TOY, "--vram", "1gb", "--ema")[1]


def test_json_has_every_rung_with_its_figures(command):
    code, said = command(*TOY, "--vram", "1gb", "--batch", "3", "--json")
    found = json.loads(said)
    assert code == 0
    assert found["predicted"] and found["batch"] == 3 and found["chosen"] == 0 and found["budget"] == 2**30
    fastest, apart, *_, fast = found["rungs"]
    assert fastest["peak"] >= apart["peak"] > sum(fastest["parameters"].values()) + fastest["optimizer"]
    assert fastest["flops"] == sum(phase["flops"] for phase in fastest["phases"].values()) > 0
    assert apart["plan"]["micro_batch"] == 1
    assert fast["changes_gradient"] and not fastest["changes_gradient"]
    started = fastest["operations"] * found["seconds_to_start_a_kernel"]
    speeds = [card["steps_per_second"] for card in found["cards"]]
    assert speeds == pytest.approx([1 / started] * len(speeds))  # what bounds a toy on every card


def test_where_nothing_fits_the_smallest_plan_says_what_it_needs(command):
    code, said = command(*TOY, "--vram", "512mb")
    assert code == 1
    assert "No plan fits into 0.5 GiB" in said and "needs 0.9 GiB" in said


def test_another_gradient_is_chosen_only_where_nothing_else_fits_and_said(command, monkeypatch):
    from distill3d.training.planning import survey

    real = survey.predict

    def smaller(plan, *args, **settings):
        found = real(plan, *args, **settings)
        for phase in found.phases.values():
            phase.peak += -phase.peak if plan.fast else 2**30
        return found

    monkeypatch.setattr(survey, "predict", smaller)
    monkeypatch.setattr("distill3d.training.planning.choose.predict", smaller)
    code, said = command(*TOY, "--vram", "1gb")
    assert code == 0
    assert next(line for line in said.splitlines() if "chosen" in line).split("  ")[1] == "tiny autoencoder"
    assert "Nothing else fits" in said and "changes the gradient (--fast)" in said


@pytest.mark.parametrize("device", ["cpu", None])
def test_auto_plans_for_what_is_here(command, device):
    code, said = command(*TOY, "--vram", "auto", *(["--device", device] if device else []))
    assert code == 0
    assert "on cpu" in said or "on cuda" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--vram", "plenty"), "is a size such as 8gb"),
        (("--backbone", "toyy"), "Did you mean 'toy'"),
        (("--method", "ldd"), "Did you mean 'ld'"),
        (("--precision", "float12"), "precision is float32"),
        (("--set", "nonsense=1"), "nonsense"),
    ],
)
def test_a_mistake_is_one_sentence(command, given, said):
    code, printed = command(*TOY, "--vram", "1gb", *given)
    assert code == 1
    assert said in printed and "Traceback" not in printed
