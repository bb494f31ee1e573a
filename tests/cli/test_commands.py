"""The command line as a user meets it: what it writes, and one sentence with exit code 1 for every mistake."""

import json
import os
import shlex
import signal
from pathlib import Path

import pytest
from PIL import Image

from distill3d import cli
from distill3d.plugins import Offer, registry
from distill3d.scorers.gaussian import GaussianScorer


class ThreeWords(GaussianScorer):
    """A scorer with a vocabulary."""

    def unknown_words(self, prompt):
        return [word for word in prompt.lower().split() if word not in ("a", "zombie", "portrait")]


def load_three_words(weights=None, device="cpu"):
    return ThreeWords(latent_size=8)


@pytest.fixture(autouse=True)
def _toys_are_installed(monkeypatch):
    offers = registry().offers
    monkeypatch.setitem(offers["backbone"], "toy", Offer("toy", "tests.toys:load_toy", "tests"))
    words = Offer("words", "tests.cli.test_commands:load_three_words", "tests")
    monkeypatch.setitem(offers["scorer"], "words", words)


TOY = ("run", "--backbone", "toy", "--style", "zombie", "--steps", "4", "--save-every", "2")


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_everything_behind(command, tmp_path):
    code, said = command(*TOY, "--out", "mine")
    assert code == 0, said
    folder = tmp_path / "mine"
    assert "report.html" in said
    names = {"config.json", "weights.safetensors", "metrics.jsonl", "sheet.png", "turntable.webp", "report.html"}
    assert names | {"versions.json", "licences.json", "run.json"} <= {p.name for p in folder.iterdir()}
    assert [m["step"] for m in metrics(folder)] == [0, 1, 2, 3]
    assert sorted(p.name for p in (folder / "previews").iterdir()) == [f"step_{i:06d}.png" for i in (0, 2, 4)]
    config = json.loads((folder / "config.json").read_text())
    assert (config["steps"], config["batch"], config["lr"], config["scorer"]) == (4, 2, 1e-3, "gaussian")
    assert Image.open(folder / "turntable.webp").n_frames == 24
    assert {path.name for path in folder.rglob(".*")} == {".lock"}, "temporary files are left"


def test_the_stylised_generator_renders_to_png(command, tmp_path):
    command(*TOY, "--out", "mine")
    code, said = command("render", "mine", "--seeds", "0-1,5", "--views", "2", "--out", "pictures", "--original")
    assert code == 0, said
    names = sorted(p.name for p in (tmp_path / "pictures").iterdir())
    assert len(names) == 2 * 3 * 2
    assert "stylised_seed0005_view1.png" in names
    before, after = (Image.open(tmp_path / "pictures" / f"{k}_seed0000_view0.png") for k in ("original", "stylised"))
    assert before.size == after.size == (16, 16)


def test_a_run_without_out_gets_a_folder_of_its_own_each_time(command, tmp_path):
    for expected in ("zombie-toy", "zombie-toy-2"):
        assert command("run", "--backbone", "toy", "--style", "zombie", "--steps", "1")[0] == 0
        assert (tmp_path / "runs" / expected / "report.html").exists()


def test_a_stopped_run_says_how_to_resume_and_ends_like_the_uninterrupted_one(command, tmp_path, monkeypatch):
    from distill3d.training import trainer

    command(*TOY, "--out", "straight")
    apply = trainer.Trainer.apply

    def interrupted(self, log):
        apply(self, log)
        if log.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer.Trainer, "apply", interrupted)
    code, said = command(*TOY, "--out", "stopped")
    assert code == 0
    assert "distill3d run --resume stopped" in said
    assert [m["step"] for m in metrics(tmp_path / "stopped")] == [0, 1]
    monkeypatch.setattr(trainer.Trainer, "apply", apply)
    code, said = command("run", "--resume", "stopped")
    assert code == 0, said
    assert [m["step"] for m in metrics(tmp_path / "stopped")] == [0, 1, 2, 3]
    same = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("straight", "stopped")]
    assert same[0] == same[1]


def test_settings_of_the_method_are_given_and_remembered(command, tmp_path):
    code, said = command(
        *TOY, "--set", "guidance_scale=3", "--set", "mirror=off", "--set", "t-range=0.1,0.2", "--out", "m"
    )
    assert code == 0, said
    options = json.loads((tmp_path / "m" / "config.json").read_text())["options"]
    assert options == {"guidance_scale": 3.0, "mirror": "off", "t_range": [0.1, 0.2]}
    assert command("render", "m", "--seeds", "0", "--views", "1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--style", "zombi"), "No style is called 'zombi'. .*Did you mean 'zombie'"),
        (("--style", ""), "Say which style"),
        (("--style", "zombie", "--backbone", "tony"), "No backbone is called 'tony'. .*Did you mean 'toy'"),
        (("--style", "zombie", "--method", "lda"), "No method is called 'lda'. .*Did you mean 'ld'"),
        (("--style", "zombie", "--scorer", "gausian"), "Did you mean 'gaussian'"),
        (("--style", "zombie", "--steps", "0"), "steps must be at least 1.*got 0"),
        (("--style", "zombie", "--steps", "-5"), "steps must be at least 1.*got -5"),
        (("--style", "zombie", "--lr", "-1"), "lr must be a positive number"),
        (("--style", "zombie", "--backbone", "toy", "--set", "guidence=2"), "has no setting called 'guidence'"),
        (("--style", "zombie", "--set", "guidance"), "NAME=VALUE"),
        (("--style", "zombie", "--backbone", "toy", "--set", "t_range=20,300"), "It is a fraction"),
        (("--style", "space ship", "--backbone", "toy", "--scorer", "words"), "not taught .* about: space, ship"),
        (("--style", "portrait of a ship", "--backbone", "toy", "--scorer", "words"), "not taught .* about: of, ship"),
        (("--style", "zombie", "--backbone", "toy", "--set", "t_range=0.1"), "t_range must be two numbers like"),
        (("--style", "zombie", "--backbone", "toy", "--set", "guidance_scale=abc"), "must be a number, got 'abc'"),
        (("--style", "zombie", "--backbone", "toy", "--set", "grid=of"), "one of off, raw, image, got 'of'"),
        (("--style", "zombie", "--backbone", "toy", "--set", "mirror=maybe"), "must be true or false, got 'maybe'"),
        (("--style", "zombie", "--backbone", "toy", "--set", "grid_every=0"), "a whole number from 1, got 0"),
        (("--style", "zombie", "--backbone", "toy", "--set", "grid_every=1.5"), "a whole number from 1, got 1.5"),
        (("--style", "zombie", "--backbone", "toy", "--set", "grid_every=.inf"), "a whole number from 1"),
        (("--style", "zombie", "--backbone", "toy", "--set", "grid_every=inf"), "a whole number from 1"),
        (("--style", "zombie", "--backbone", "toy", "--set", "grid_every=nan"), "a whole number from 1"),
        (("--style", "zombie", "--backbone", "toy", "--backbone-set", "psi=1"), "has no setting called 'psi'"),
        (("--style", "zombie", "--backbone", "toy", "--subjects", "x"), "has no setting called 'subjects'"),
        (("--style", "zombie", "--backbone", "toy", "--train", "nothing"), "No training group is called 'nothing'"),
        (("--style", "zombie", "--backbone", "toy", "--device", "cuda:77"), "no device 'cuda:77' here. There is: cpu"),
        (("--style", "zombie", "--backbone", "toy", "--device", "gpu"), "There is: cpu. Choose with --device"),
        (("--resume", "x", "--out", "y"), "leave out --out"),
        (("--style", "zombie", "--backbone", "toy", "--override"), "--override goes with --resume"),
        (("--style", "zombie", "--backbone", "toy", "--controlnet", "depth=x"), "brings its own ControlNets"),
        (("--resume", "nowhere"), "nowhere is no run folder"),
        (
            ("--style", "zombie", "--backbone", "toy", "--scorer", "diffusers", "--scorer-weights", "./none"),
            "no folder",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_what_to_do(command, tmp_path, arguments, sentence):
    code, said = command("run", *arguments)
    assert code == 1
    said = " ".join(said.split())
    assert "Traceback" not in said
    import re

    assert re.search(sentence, said), said
    assert not list(tmp_path.rglob("config.json"))


def test_a_prompt_with_some_unknown_words_is_taken_with_a_warning(command, caplog):
    code, _ = command("run", "--backbone", "toy", "--scorer", "words", "--style", "zombie knight", "--steps", "1")
    assert code == 0
    assert "not taught these words: knight" in caplog.text


def test_a_folder_that_holds_a_run_is_not_overwritten(command, tmp_path):
    command(*TOY, "--out", "mine")
    before = (tmp_path / "mine" / "weights.safetensors").read_bytes()
    code, said = command(*TOY, "--out", "mine")
    assert code == 1
    assert "holds another run" in said
    assert (tmp_path / "mine" / "weights.safetensors").read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(command, tmp_path):
    (tmp_path / "file").write_text("")
    code, said = command(*TOY, "--out", "file/run")
    assert code == 1
    assert "Cannot write file/run" in said


def test_damaged_weights_are_named(command, tmp_path):
    command(*TOY, "--out", "mine")
    path = tmp_path / "mine" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    code, said = command("render", "mine")
    assert code == 1
    assert "weights.safetensors is damaged" in " ".join(said.split())


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(command, tmp_path, monkeypatch):
    from distill3d.training import trainer

    command(*TOY, "--out", "straight")
    with monkeypatch.context() as patched:
        patched.setattr(trainer.Trainer, "apply", lambda self, log: (_ for _ in ()).throw(KeyboardInterrupt))
        assert command(*TOY, "--out", "killed")[0] == 130
    code, said = command("render", "killed")
    assert code == 1
    assert "stopped before its first checkpoint" in " ".join(said.split())
    assert command("run", "--resume", "killed")[0] == 0
    same = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("straight", "killed")]
    assert same[0] == same[1]


def test_the_newest_weights_are_used_after_a_stop_a_resume_and_a_kill(command, tmp_path):
    from distill3d.runs import trained_weights

    command(*TOY, "--out", "mine")
    folder = tmp_path / "mine"
    assert trained_weights(folder) == folder / "weights.safetensors"
    state = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**state, "step": 1}))
    assert trained_weights(folder).parent.name == "step-000004"
    (folder / "run.json").write_text("{")
    code, said = command("render", "mine")
    assert code == 1
    assert "run.json is damaged" in " ".join(said.split())


def test_weights_on_another_base_are_refused(command, tmp_path, monkeypatch):
    command(*TOY, "--out", "mine")
    other = Offer("toy", "tests.cli.test_commands:load_other_toy", "tests")
    monkeypatch.setitem(registry().offers["backbone"], "toy", other)
    for arguments, sentence in (
        (("render", "mine"), "mine belongs to weights of backbone 'toy', sha256"),
        (("run", "--resume", "mine"), "started from other weights of its backbone"),
    ):
        code, said = command(*arguments)
        assert code == 1
        assert sentence in " ".join(said.split())


def load_other_toy(weights=None, device="cpu"):
    from tests.toys import toy

    return toy(seed=2).float()


class Diverging(GaussianScorer):
    def predict_noise(self, noisy, timestep, conditions):
        return {name: noisy * float("nan") for name in conditions}


def load_diverging(weights=None, device="cpu"):
    return Diverging(latent_size=8)


def test_a_run_that_diverges_says_so_and_leaves_a_report(command, tmp_path, monkeypatch):
    offer = Offer("bad", "tests.cli.test_commands:load_diverging", "tests")
    monkeypatch.setitem(registry().offers["scorer"], "bad", offer)
    code, said = command(
        "run", "--backbone", "toy", "--scorer", "bad", "--style", "zombie", "--steps", "40", "--out", "m"
    )
    assert code == 1
    assert "10 steps in a row were not finite" in " ".join(said.split())
    assert all(m["skipped"] and m["loss"] is None for m in metrics(tmp_path / "m"))
    assert (tmp_path / "m" / "report.html").exists()
    assert (tmp_path / "m" / "checkpoints" / "step-000006").exists()


def load_other_app():
    import typer

    own = typer.Typer()

    @own.command()
    def hello(name: str, loud: bool = False):
        typer.echo(f"hello {name}{'!' if loud else ''}")

    return own


OTHER_APP = load_other_app()


def test_plugin_commands_run_and_broken_ones_break_only_themselves(command, monkeypatch):
    commands = registry().offers["command"]
    monkeypatch.setitem(commands, "greet", Offer("greet", "tests.cli.test_commands:OTHER_APP", "other"))
    monkeypatch.setitem(commands, "dead", Offer("dead", "no_such_module:app", "other"))
    code, said = command("--help")
    assert code == 0
    assert "greet" in said
    assert "From plugin other" in said
    assert command("greet", "you", "--loud") == (0, "hello you!\n")
    code, said = command("dead")
    assert code == 1
    assert "cannot be loaded" in " ".join(said.split())


def test_help_names_the_defaults_that_the_backbone_decides(command):
    code, said = command("run", "--help")
    assert code == 0
    assert "(default: the backbone's)" in " ".join(said.replace("│", " ").split())


def test_the_version_is_printed(command):
    assert command("--version") == (0, "distill3d 0.1.0\n")


def test_debug_shows_the_traceback(command):
    code, said = command("--debug", "run", "--style", "zombi")
    assert code == 1
    assert "Traceback" in said


@pytest.mark.parametrize("name", ["styles", "backbones", "scorers", "methods", "plugins", "doctor"])
def test_the_lists_print(command, name):
    code, said = command(name)
    assert code == 0, said
    words = {"styles": "Portrait of a zombie", "methods": "guidance_scale", "doctor": "torch", "plugins": "builtin"}
    assert words.get(name, "tiny") in said


def test_seeds_are_read_as_ranges_and_lists(command):
    code, said = command("render", "nowhere", "--seeds", "a-b")
    assert code == 1
    assert "0-7 or 1,5,9" in said


def test_the_pages_command_is_the_run_again(monkeypatch):
    """Typed back, it gives the config that it was made of, whatever setting that has."""
    from dataclasses import replace

    from distill3d.config import DistillConfig
    from distill3d.report.page import commands
    from tests.test_config import FULL

    typed = []
    monkeypatch.setattr("distill3d.cli.run._distill", lambda config, out: typed.append(config))
    backbone = {"psi": 0.5, "low_memory": True, "subjects": (str(Path.cwd() / "a.png"), str(Path.cwd() / "b.png"))}
    full = replace(FULL, backbone_options=backbone)
    for config in (full, DistillConfig(style="a knight"), replace(full, fast=True)):
        words = shlex.split(commands(json.loads(config.to_json()), "runs/mine")["Do it again"])
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        assert typed[-1] == config
