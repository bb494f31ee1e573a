"""One command makes everything, in an order in which each stage finds what it reads."""

from __future__ import annotations

import importlib
import json
from types import SimpleNamespace

import pytest

from distill3d.files import sha256
from distill3d.tiny.train import __main__ as train


@pytest.fixture
def called(monkeypatch):
    """The stages that are started and their command lines, instead of the stages."""
    calls = []

    def module(name):
        return SimpleNamespace(main=lambda argv: calls.append((name.rsplit(".", 1)[1], argv)))

    monkeypatch.setattr(train.importlib, "import_module", module)
    return calls


def test_all_runs_every_stage_once_after_those_that_it_reads(called):
    train.main(["all", "--work", "somewhere"])
    order = [stage for stage, _ in called]
    assert sorted(order) == sorted(train.STAGES)
    assert order[0] == "world"
    assert order.index("judges") < order.index("diffusion")  # whose samples they measure
    assert all(argv == ["--work", "somewhere"] for _, argv in called)


def test_all_installs_networks_and_no_data(called):
    train.main(["all", "--work", "somewhere", "--smoke", "--install"])
    assert {stage: "--install" in argv for stage, argv in called} == {stage: stage != "world" for stage in train.STAGES}
    assert all("--smoke" in argv for _, argv in called)


def test_one_stage_gets_the_rest_of_the_line_as_it_is(called):
    train.main(["world", "--work", "somewhere", "--only", "photo"])
    assert called == [("world", ["--work", "somewhere", "--only", "photo"])]


@pytest.mark.parametrize("stage", train.STAGES)
def test_every_stage_takes_the_options_that_all_gives_it(stage, capsys):
    main = importlib.import_module(f"distill3d.tiny.train.{stage}").main
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    assert "--work" in said and "--smoke" in said
    assert ("--install" in said) == (stage != "world")


def test_all_says_which_option_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        train.main(["all", "--work", "somewhere", "--vae-steps", "3"])
    assert "--vae-steps" in capsys.readouterr().err


@pytest.mark.slow
def test_all_makes_every_network_from_nothing_and_repeats_no_finished_data(tmp_path):
    train.main(["all", "--work", str(tmp_path), "--smoke"])
    made = json.loads((tmp_path / "diffusion" / "pipeline" / "provenance.json").read_text())
    for part, network in made["networks"].items():
        (weights,) = (tmp_path / "diffusion" / "pipeline" / part).glob("*.safetensors")
        assert network["sha256"] == sha256(weights) and network["steps_done"] == 2
    assert {"plain", "depth", "canny", "half_precision_psnr"} <= set(made["figures"])
    for origin in ("generator", "judges"):
        assert (tmp_path / origin / "provenance.json").is_file()
    data = tmp_path / "data" / "styles.safetensors"
    before = data.stat().st_mtime_ns
    train.main(["world", "--work", str(tmp_path), "--smoke"])
    assert data.stat().st_mtime_ns == before
