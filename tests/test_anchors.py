"""Anchors by name: onto any method, from the command line into a run and its page, and nowhere unless asked for."""

import json
from dataclasses import replace

import pytest

from distill3d.anchors import ANCHORS, anchored
from distill3d.config import DistillConfig
from distill3d.errors import UnknownNameError
from distill3d.methods import csd, ld, ld_paper, ld_released, sds
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill, prepare, resume
from distill3d.report.page import commands
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from tests.cli.conftest import command  # noqa: F401
from tests.toys import ToyTriplane, toy

SCORER = GaussianScorer(latent_size=8)
RUN = ("run", "--backbone", "toy", "--style", "zombie", "--method", "sds", "--steps", "3", "--out", "mine")


@pytest.fixture(autouse=True)
def _toy_is_installed(monkeypatch):
    monkeypatch.setitem(registry().offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))


def config(**settings):
    return DistillConfig(style="zombie", backbone="toy", method="sds", steps=3, **settings)


@pytest.mark.parametrize("make", [ld, ld_paper, ld_released, sds, csd])
def test_anchors_come_after_a_methods_own_terms_and_change_nothing_else(make):
    defaults = toy().defaults
    method = make(SCORER, CATALOGUE["zombie"], defaults)
    changed = anchored(method, {"scene": 1.0, "opacity": 0.5, "variation": 0.0}, SCORER, defaults)
    assert list(changed.terms) == [*method.terms, "anchor/opacity", "anchor/scene"]  # in their own order
    assert replace(changed, terms=method.terms) == method
    assert changed.terms["anchor/opacity"].weight == 0.5
    for nothing in ({}, {"scene": 0.0}):
        assert anchored(method, nothing, SCORER, defaults) is method


def test_a_run_is_given_anchors_and_remembers_them(command, tmp_path):  # noqa: F811
    code, said = command(*RUN, "--anchor", "opacity=0.1", "--anchor", "scene=1")
    assert code == 0, said
    folder = tmp_path / "mine"
    assert json.loads((folder / "config.json").read_text())["anchors"] == {"opacity": 0.1, "scene": 1.0}
    figures = [json.loads(line)["figures"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert figures[0]["anchor/scene/distance"] == 0 < figures[2]["anchor/scene/distance"]
    assert "anchor/opacity/distance" in figures[0]
    page = (folder / "report.html").read_text()
    assert "--anchor opacity=0.1 --anchor scene=1.0" in page
    assert "opacity=0.1 scene=1.0" in page


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("scenes=1", "No anchor is called 'scenes'. Installed: opacity, perceptual, scene, variation. Did you mean"),
        ("scene", "--anchor takes NAME=VALUE"),
        ("scene=much", "--anchor takes NAME=NUMBER, got scene='much'"),
        ("scene=-1", "must be a number from 0, got -1.0"),
        ("scene=nan", "must be a number from 0, got nan"),
        ("scene=inf", "must be a number from 0, got inf"),
    ],
)
def test_a_mistake_is_one_sentence(command, tmp_path, word, sentence):  # noqa: F811
    code, said = command(*RUN, "--anchor", word)
    assert code == 1
    assert sentence in " ".join(said.split())
    assert not list(tmp_path.rglob("config.json"))


def test_an_unknown_anchor_is_said_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr("distill3d.preparation.load_backbone", lambda config: pytest.fail("a backbone was loaded"))
    with pytest.raises(UnknownNameError):
        prepare(config(anchors={"scenes": 1.0}))


def test_a_run_with_all_anchors_resumes_bit_for_bit(tmp_path, monkeypatch):
    from distill3d.training.loop import Watch

    settings = config(anchors=dict.fromkeys(ANCHORS, 1.0), save_every=1)
    straight = distill(settings, tmp_path / "straight")
    stops = iter([False, True])
    stopped = distill(settings, tmp_path / "stopped", watch=Watch(should_stop=lambda: next(stops, True)))
    assert json.loads((stopped / "run.json").read_text())["status"] == "stopped"
    resume(stopped)
    assert (straight / "weights.safetensors").read_bytes() == (stopped / "weights.safetensors").read_bytes()


def test_a_config_from_before_there_were_anchors_makes_the_same_run(tmp_path):
    new = distill(config(), tmp_path / "new")
    values = json.loads((new / "config.json").read_text())
    assert values.pop("anchors") == {}
    old = distill(DistillConfig.from_json(json.dumps(values)), tmp_path / "old")
    assert (new / "weights.safetensors").read_bytes() == (old / "weights.safetensors").read_bytes()


def test_a_backbones_own_anchors_are_used_unless_the_config_has_any(monkeypatch):
    made = ToyTriplane.__init__

    def with_anchor(self, **options):
        made(self, **options)
        self.defaults = replace(self.defaults, anchors={"scene": 2.0})

    monkeypatch.setattr(ToyTriplane, "__init__", with_anchor)

    def anchors(**given):
        recipe = prepare(config(anchors=given))
        return recipe.config.anchors, [name for name in recipe.method.terms if name.startswith("anchor/")]

    assert anchors() == ({"scene": 2.0}, ["anchor/scene"])
    assert anchors(opacity=1.0) == ({"opacity": 1.0}, ["anchor/opacity"])
    assert anchors(scene=0.0) == ({"scene": 0.0}, [])


def test_the_page_says_nothing_of_anchors_that_there_are_not():
    assert "--anchor" not in commands({"style": "zombie"}, "mine")["Do it again"]
