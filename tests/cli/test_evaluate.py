"""`distill3d evaluate` as a user meets it."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from distill3d.cli.evaluate import cache_folder
from distill3d.config import DistillConfig
from distill3d.files import sha256
from distill3d.plugins import Offer, registry
from distill3d.runs import fingerprint, write_base
from distill3d.tiny.evaluation import Evaluation, truth
from distill3d.tiny.generator import load_tiny
from tests.tiny.fakes import FakePanel, painted_heads

FEW = tuple(range(1000, 1012))


@pytest.fixture(autouse=True)
def _fast(monkeypatch, tmp_path):
    """Few subjects, painted heads, fake judges, a toy backbone, and a cache of its own."""
    import distill3d.evaluate as module

    monkeypatch.setitem(registry().offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))
    monkeypatch.setattr(truth, "render_heads", painted_heads)
    monkeypatch.setattr(module, "_shipped_judges", FakePanel)
    monkeypatch.setattr(module.evaluate_run, "__kwdefaults__", {**module.evaluate_run.__kwdefaults__, "seeds": FEW})
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def finished_run(folder, style="zombie", redder=0.0):
    """A run's folder as it is after the last step: a generator whose colours were pushed."""
    folder.mkdir()
    config = DistillConfig(style=style, scorer="tiny", steps=1, batch=1, lr=1e-3, save_every=1)
    (folder / "config.json").write_text(config.to_json())
    original = load_tiny()
    write_base(folder, fingerprint(original))
    trained = {name: p.detach().clone() for name, p in original.trainable().items()}
    trained["decoder.second.bias"] += redder * torch.eye(len(trained["decoder.second.bias"]))[1]
    save_file(trained, folder / "weights.safetensors")
    state = {"status": "finished", "step": 1, "sha256": sha256(folder / "weights.safetensors")}
    (folder / "run.json").write_text(json.dumps(state))
    return folder


def test_a_run_is_measured_beside_another_and_everything_is_written(command, tmp_path):
    one, other = finished_run(tmp_path / "one", redder=1.0), finished_run(tmp_path / "other")
    code, said = command("evaluate", one, "--against", other)
    assert code == 0, said
    for word in ("one", "other", "ceiling", "untouched", "mean head", "chance", "identity top-1", "PSNR to truth"):
        assert word in said, word
    found = Evaluation.from_json((one / "evaluation" / "evaluation.json").read_text())
    assert list(found.rows) == ["one", "other", "ceiling", "untouched", "mean head", "chance"]
    assert found.rows["other"].psnr_gain == 0  # its weights are the untouched ones
    assert found.rows["one"].psnr_gain != 0 and found.rows["one"].diversity > 0
    assert found.made_with["backbone_sha256"]
    assert "| one |" in (one / "evaluation" / "table.md").read_text()
    assert Image.open(one / "evaluation" / "sheet.png").width > 8 * 128
    page = (one / "report.html").read_text()
    assert "Evaluation" in page and "mean head" in page and "psnr gain" in page
    assert any(cache_folder().iterdir())


def test_runs_of_two_styles_are_not_compared(command, tmp_path):
    one, other = finished_run(tmp_path / "one"), finished_run(tmp_path / "other", style="pixar")
    code, said = command("evaluate", one, "--against", other)
    assert code == 1 and "style 'pixar'" in said and "Traceback" not in said


def test_a_backbone_without_truth_is_measured_by_what_needs_none_and_says_so(command, tmp_path):
    command("run", "--backbone", "toy", "--style", "zombie", "--steps", "2", "--out", tmp_path / "toy")
    code, said = command("evaluate", tmp_path / "toy")
    assert code == 0 and "no paired truth" in said and "'toy'" in said
    values = json.loads((tmp_path / "toy" / "evaluation" / "evaluation.json").read_text())
    assert set(values["metrics"]) == {"diversity", "rsa_base"} and 0 < values["metrics"]["diversity"] < 10
    code, said = command("evaluate", tmp_path / "toy", "--against", tmp_path / "toy")
    assert code == 1 and "--against" in said


def test_a_metric_of_a_plugin_joins_the_table(command, tmp_path, monkeypatch):
    monkeypatch.setitem(
        registry().offers["metric"], "mine", Offer("mine", "tests.cli.test_evaluate:brightness", "tests")
    )
    code, said = command("evaluate", finished_run(tmp_path / "one"))
    assert code == 0 and "brighter" in said and "0.000" in said.split("brighter")[1].splitlines()[0]


def brightness(before, after, style):
    assert before.shape[:3] == (16, 3, 3) and style.name == "zombie"
    return {"brighter": float((after - before).mean())}


def test_a_folder_that_is_no_run_is_one_sentence(command, tmp_path):
    code, said = command("evaluate", tmp_path)
    assert code == 1 and "is no run folder" in said and "Traceback" not in said


def test_judges_that_are_not_there_are_one_sentence(command, tmp_path):
    code, said = command("evaluate", finished_run(tmp_path / "one"), "--judges", tmp_path / "nowhere")
    assert code == 1 and "nowhere" in said and "Traceback" not in said
