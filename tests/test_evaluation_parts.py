"""An evaluation notes whose weights measured, and the run's parts tell them."""

import json

import pytest

from distill3d import evaluate as module
from distill3d.evaluate import evaluate_run
from distill3d.licences import JUDGES, Part, commercial_use, parts_of_run, parts_to_json
from distill3d.plugins import Offer, registry
from distill3d.tiny.evaluation import truth
from tests.cli.test_evaluate import FEW, finished_run
from tests.photo_runs import a_run, photo_toy_is_installed
from tests.tiny.fakes import FakePanel, painted_heads

FACE = Part("metric face", "buffalo_l", "insightface: non-commercial research")


def face(before, after, style):
    return {"face": 0.5, "smile": 0.1}


def brightness(before, after, style):
    return {"brightness": 0.5}


def sharpness(before, after, style):
    return {"sharpness": 0.5}


face.parts = (FACE,)
brightness.parts = ()


@pytest.fixture(autouse=True)
def _offers(monkeypatch):
    monkeypatch.setattr(truth, "render_heads", painted_heads)
    monkeypatch.setattr(module, "_shipped_judges", FakePanel)
    for name in ("face", "brightness", "sharpness"):
        monkeypatch.setitem(registry().offers["metric"], name, Offer(name, f"{__name__}:{name}", "tests"))


def measured(folder):
    """What measured a run: as noted, and as told."""
    (folder / "licences.json").write_text(parts_to_json([Part("backbone", "", "MIT")]))
    noted = json.loads((folder / "evaluation" / "evaluation.json").read_text())["parts"]
    told = parts_of_run(folder)
    assert [Part(**row) for row in noted] == list(told[1:]) and all(part.measured_only for part in told[1:])
    return list(told[1:])


def test_without_truth_the_plugins_metrics_are_noted_and_the_cores_need_nobodys(tmp_path):
    with photo_toy_is_installed():
        folder = a_run(tmp_path / "toy", "toy")
        found = evaluate_run(folder)
    assert {"diversity", "rsa_base", "face", "smile", "brightness", "sharpness"} == found.others.keys()
    assert measured(folder) == [FACE, Part("metric sharpness", "", "unknown")]
    assert commercial_use(parts_of_run(folder)) == "no"


def test_with_truth_the_judges_are_noted_too(tmp_path, monkeypatch):
    folder = finished_run(tmp_path / "run")
    evaluate_run(folder, seeds=FEW)
    assert measured(folder) == [JUDGES, FACE, Part("metric sharpness", "", "unknown")]


def test_judges_that_somebody_brought_are_nobody_knows_whose(tmp_path, monkeypatch):
    for name in ("face", "sharpness"):
        monkeypatch.delitem(registry().offers["metric"], name)
    folder = finished_run(tmp_path / "run")
    evaluate_run(folder, seeds=FEW, panel=FakePanel())
    assert measured(folder) == [Part("metric judges", "", "unknown")]
    evaluate_run(folder, seeds=FEW)
    assert measured(folder) == [JUDGES]
