"""From a folder, a file or a Hub id to a renderer; what cannot be loaded says why and what to do."""

import json
import shutil
from pathlib import Path
from unittest.mock import MagicMock

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import load_file, save_file
from small import MODELS, WRITERS, code, openlrm_config, small_openlrm, triposr_config, write_openlrm, write_triposr

from distill3d.cli.run import _value
from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, WeightsError
from distill3d.plugins import registry
from distill3d.runs import load_backbone
from distill3d_lrm import hub
from distill3d_lrm.configs import read_json, read_yaml
from distill3d_lrm.loading import KINDS, OPENLRM, TRIPOSR, load_openlrm, load_triposr
from distill3d_lrm.renderer import Look

LOAD = {"triposr": load_triposr, "openlrm": load_openlrm}
KIND = pytest.mark.parametrize("kind", list(LOAD))
FILES = {"triposr": ("config.yaml", "model.ckpt"), "openlrm": ("config.json", "model.safetensors")}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder of each kind; tests that damage one take a copy."""
    return {kind: write(tmp_path_factory.mktemp(kind)) for kind, write in WRITERS.items()}


@pytest.fixture
def copies(published, tmp_path):
    return {kind: Path(shutil.copytree(folder, tmp_path / kind)) for kind, folder in published.items()}


def is_the_small_one(of, kind):
    mine, theirs = of.model.state_dict(), MODELS[kind]().state_dict()
    assert mine.keys() == theirs.keys()
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


# Where a checkpoint lies.


@KIND
def test_a_folder_or_its_weight_file_is_loaded_with_every_tensor(kind, published):
    folder = published[kind]
    for given in (folder, folder / FILES[kind][1]):
        of = LOAD[kind](str(given), size=24)
        assert is_the_small_one(of, kind)
        assert of.weights_licence == "unknown"
        assert (of.image_size, of.raw_size) == (24, 24)
        assert not of.training
        assert all(p.device.type == "cpu" and p.dtype == torch.float32 for p in of.parameters())


@KIND
def test_either_format_of_weights_is_read(kind, copies):
    folder, (_, weights) = copies[kind], FILES[kind]
    tensors = MODELS[kind]().state_dict()
    (folder / weights).unlink()
    other = "model.safetensors" if kind == "triposr" else "model.ckpt"
    save_file(tensors, folder / other) if kind == "triposr" else torch.save(tensors, folder / other)
    assert is_the_small_one(LOAD[kind](str(folder)), kind)


@KIND
def test_a_hub_id_is_downloaded_and_its_licence_recorded_where_it_is_known(kind, published, monkeypatch):
    asked = []

    def download(repo, name):
        asked.append((repo, name))
        return str(published[kind] / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    official = KINDS[kind].published.repo
    assert is_the_small_one(of := LOAD[kind](official), kind)
    assert of.weights_licence == {"triposr": "MIT", "openlrm": "CC-BY-NC-4.0"}[kind]
    assert asked == [(official, name) for name in FILES[kind]]
    assert LOAD[kind]("somebody/a-model").weights_licence == "unknown"


@KIND
def test_without_weights_the_cached_default_is_loaded(kind, published, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: str(published[kind] / name))
    of = LOAD[kind]()
    assert is_the_small_one(of, kind)
    assert of.weights_licence == KINDS[kind].published.licence


@KIND
def test_what_others_can_get_the_weights_by_is_the_id_that_brings_them(kind, published, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: str(published[kind] / name))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repo, name: str(published[kind] / name))
    official = KINDS[kind].published.repo
    assert LOAD[kind]().weights_name == official
    for given in (official, "somebody/a-model"):
        name = LOAD[kind](given).weights_name
        assert name == given
        assert is_the_small_one(LOAD[kind](name), kind)  # as somebody else has it


@KIND
def test_files_of_the_user_s_have_no_name_that_others_know_them_by(kind, published, copies, tmp_path, monkeypatch):
    for given in (published[kind], published[kind] / FILES[kind][1]):
        assert LOAD[kind](str(given)).weights_name == ""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(copies[kind], tmp_path / "somebody" / "a-model")
    assert LOAD[kind]("somebody/a-model").weights_name == ""  # a folder here, whatever the Hub has


@KIND
@pytest.mark.parametrize("missing", ["both", "weights", "known to be missing"])
def test_without_weights_and_cache_it_says_what_how_large_whose_and_how_to_get_it(kind, missing, monkeypatch):
    config = KINDS[kind].published.config
    answers = {
        "both": lambda repo, name: None,
        "weights": lambda repo, name: "/somewhere/config" if name == config else None,
        "known to be missing": lambda repo, name: object(),
    }
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", answers[missing])
    with pytest.raises(WeightsError) as error:
        LOAD[kind]()
    of, said = KINDS[kind].published, str(error.value)
    for part in (of.repo, of.size, f"licence {of.licence}", f"hf download {of.repo} {of.config} {of.weights[0]}"):
        assert part in said


def http(kind):
    return kind("Client error", response=MagicMock())


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (lambda: http(RepositoryNotFoundError), "no repository me/model on the Hub, or it is private"),
        (lambda: EntryNotFoundError("no such entry\nmore"), r"has not both config.yaml and model.ckpt.*no such entry$"),
        (lambda: LocalEntryNotFoundError("offline"), "the network is not there: offline"),
        (lambda: http(HfHubHTTPError), "me/model could not be downloaded: Client error"),
        (lambda: OSError(28, "No space left on device"), "could not be downloaded: .*No space left"),
        (lambda: ValueError(), "could not be downloaded: ValueError"),
    ],
)
def test_a_download_that_fails_says_so(raised, said, monkeypatch):
    def fail(repo, name):
        raise raised()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=said):
        load_triposr("me/model")


@pytest.mark.parametrize(
    "given", ["nowhere", "no/such/folder", "../x/y", "here/model.ckpt", "a b/c", "/nowhere/model", "a" * 300]
)
def test_what_is_neither_there_nor_a_hub_id_is_not_asked_for(given, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *asked: pytest.fail(f"asked for {asked}"))
    with pytest.raises(WeightsError, match=r"Give a folder with config\.yaml and model.ckpt, or a Hub id"):
        load_triposr(given)


# The config.


@KIND
def test_weights_without_their_config_and_a_folder_without_weights_are_named(kind, copies, tmp_path):
    config, weights = FILES[kind]
    (copies[kind] / config).unlink()
    for given in (copies[kind], copies[kind] / weights):
        with pytest.raises(WeightsError, match=f"needs its {config} beside it"):
            LOAD[kind](str(given))
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match="holds no weights: none of model"):
        LOAD[kind](str(tmp_path / "empty"))


def test_a_reference_to_another_entry_is_resolved(published):
    text = (published["triposr"] / "config.yaml").read_text()
    assert "${tokenizer.num_channels}" in text
    assert read_yaml(published["triposr"] / "config.yaml")["backbone"]["in_channels"] == 16


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "while parsing"),
        ("a: 1\n---\nb: 2", "single document"),
        ("word", "no settings by name"),
        ("- 1", "no settings by name"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: ${b.c}", "the reference .* does not lead to a number"),
        ("a: ${a}", "does not lead to"),
        ("a: ${b}\nb: {c: 3}", "does not lead to"),
        ("a: x${b}\nb: 3", "does not lead to"),
        ("a: ${b", "is no YAML config"),
        ("a: ${oc.env:SECRET}", "does not lead to"),
        ("a: ${ oc.env:SECRET }", "does not lead to"),
        ('a: "\\x24{oc.env:SECRET}"', "does not lead to"),
        ("a: ${oc.${b}:SECRET}\nb: env", "does not lead to"),
        ("a: ${oc.create:{b:1}}", "does not lead to"),
        ("a: &x 3\nb: *x", "aliases"),
        ("a: " + "[" * 30_000, "nested more than 16 deep"),  # crashes a reader in C
        ("a: " + "9" * 5000, "is no YAML config"),
        ("a: 1\n#" + "x" * 70_000, "larger than any config"),
        ("a: \x00", "not allowed"),
    ],
)
def test_a_yaml_config_that_is_damaged_or_reaches_outside_is_refused(text, said, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "what nobody must see")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(WeightsError, match=said) as error:
        read_yaml(tmp_path / "config.yaml")
    assert "nobody" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "3", "[]", "", "[" * 60_000, '{"a": ' + "9" * 5000 + "}"])
def test_a_json_config_that_is_damaged_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match=r"is no JSON|no settings by name"):
        read_json(tmp_path / "config.json")


@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_a_config_that_is_no_text_is_refused(read, tmp_path):
    (tmp_path / "config").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "config", tmp_path):
        with pytest.raises(WeightsError, match="cannot be read"):
            read(path)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"num_layers": 60_000}, "layers of the checkpoint's config is at most 128"),
        ({"cond_image_size": 60_000}, "image_size .* at most 4096"),
        ({"num_samples_per_ray": 60_000}, "samples .* at most 4096"),
        ({"n_hidden_layers": 60_000}, "hidden_layers .* at most 128"),
        ({"num_channels": 1 << 20}, "num_channels .* whole number from 1 to"),
        ({"num_channels": -16}, "num_channels"),
        ({"plane_size": 8.5}, "plane_size"),
        ({"n_neurons": True}, "n_neurons"),
        ({"radius": float("nan")}, "radius"),
        ({"radius": 0}, "radius .* is above 0"),
        ({"radius": -0.87}, "radius .* is above 0"),
        ({"density_bias": None}, "density_bias"),
        ({"num_attention_heads": 3}, "3 heads or 4 groups do not divide 16"),
        ({"norm_num_groups": 5}, "do not divide"),
        ({"hidden_size": 17}, "No image tokenizer can have these sizes"),
        ({"patch_size": 64}, "No image tokenizer can have these sizes"),
        ({"num_hidden_layers": 60_000}, "No image tokenizer can have these sizes"),
        ({"feature_reduction": "mean"}, "feature_reduction .* is concat"),
        ({"density_activation": "trunc_exp"}, "density_activation .* is exp"),
        ({"activation": "relu"}, "activation .* is silu"),
    ],
)
def test_a_triposr_of_impossible_sizes_is_refused(sizes, said, copies):
    (copies["triposr"] / "config.yaml").write_text(yaml.safe_dump(triposr_config(**sizes)))
    with pytest.raises(WeightsError, match=said):
        load_triposr(str(copies["triposr"]))


@pytest.mark.parametrize("part", ["tokenizer", "backbone", "post_processor", "decoder", "renderer"])
def test_a_triposr_config_without_a_section_is_refused_by_name(part, copies):
    config = triposr_config()
    del config[part]
    text = yaml.safe_dump(config).replace("${tokenizer.num_channels}", "16")
    (copies["triposr"] / "config.yaml").write_text(text)
    with pytest.raises(WeightsError, match=f"has no section '{part}'"):
        load_triposr(str(copies["triposr"]))


def test_one_model_s_config_is_not_taken_for_the_other_s(copies):
    folder = copies["openlrm"]
    (folder / "config.yaml").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsError, match="no section"):
        load_triposr(str(folder))
    (copies["triposr"] / "config.json").write_text(json.dumps(triposr_config()))
    with pytest.raises(WeightsError, match=r"not OpenLRM 1\.1's"):
        load_openlrm(str(copies["triposr"]))


# The weights.


@KIND
def test_a_checkpoint_of_another_size_is_refused_by_a_tensor_that_does_not_fit(kind, copies):
    config = triposr_config(num_channels=32, attention_head_dim=16)
    text = yaml.safe_dump(config) if kind == "triposr" else json.dumps(openlrm_config(triplane_dim=7))
    (copies[kind] / FILES[kind][0]).write_text(text)
    with pytest.raises(WeightsError, match=r"is \(.*\), this model's is \("):
        LOAD[kind](str(copies[kind]))
    deeper = triposr_config(num_layers=4)
    text = yaml.safe_dump(deeper) if kind == "triposr" else json.dumps(openlrm_config(transformer_layers=2))
    (copies[kind] / FILES[kind][0]).write_text(text)
    with pytest.raises(WeightsError, match=r"lacks|tensors too many"):
        LOAD[kind](str(copies[kind]))


NAME = {"triposr": "backbone.proj_in.weight", "openlrm": "transformer.norm.weight"}


@KIND
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, name: t.pop(name), "lacks 1 tensors, the first is"),
        (lambda t, name: t.update(extra=torch.zeros(1)), "1 tensors too many, the first is extra"),
        (lambda t, name: t[name].view(-1)[3].fill_(float("nan")), "has numbers that are not finite"),
    ],
    ids=["missing", "extra", "nan"],
)
def test_tensors_that_do_not_fit_are_named(kind, change, said, copies):
    tensors, path = {n: t.clone() for n, t in MODELS[kind]().state_dict().items()}, copies[kind] / FILES[kind][1]
    change(tensors, NAME[kind])
    save_file(tensors, path) if kind == "openlrm" else torch.save(tensors, path)
    with pytest.raises(WeightsError, match=said):
        LOAD[kind](str(copies[kind]))


@KIND
def test_damaged_weights_are_named(kind, copies):
    path = copies[kind] / FILES[kind][1]
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:100], b"", b"<html>404</html>"):
        path.write_bytes(damaged)
        with pytest.raises(WeightsError, match=f"{path.name} is (damaged|not a plain state dict)"):
            LOAD[kind](str(copies[kind]))


def test_code_in_a_checkpoint_does_not_run(copies, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    torch.save({"weight": Hostile()}, copies["triposr"] / "model.ckpt")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        load_triposr(str(copies["triposr"]))
    assert not (tmp_path / "canary").exists()


def test_a_state_dict_within_another_is_refused(copies):
    path = copies["triposr"] / "model.ckpt"
    torch.save({"state_dict": MODELS["triposr"]().state_dict()}, path)
    with pytest.raises(WeightsError, match="not a plain state dict"):
        load_triposr(str(copies["triposr"]))


# Settings.


def config(published, kind, **options):
    return DistillConfig(style="zombie", backbone=kind, weights=str(published[kind]), backbone_options=options)


@KIND
def test_settings_reach_the_renderer_as_typed(kind, published):
    typed = {"size": "24", "background": "0.5", "low_memory": "false", "last_blocks": "2", "foreground_ratio": "0.7"}
    options = {name: _value(text) for name, text in typed.items()}
    of = load_backbone(config(published, kind, **options, keep_codes=False, remove_background="keep"))
    assert of.look == Look(background=0.5, low_memory=False, last_blocks=2)
    assert of.image_size == 24
    assert of.studio.preparation.foreground_ratio == 0.7
    assert of.studio.removal == "keep"
    assert of.encoder.cache.folder is None


@KIND
def test_wrong_settings_are_named(kind, published):
    with pytest.raises(ConfigError, match=f"Backbone '{kind}' has no setting called 'sizes'"):
        load_backbone(config(published, kind, sizes=3))
    with pytest.raises(ConfigError, match="remove_background must be one of auto"):
        load_backbone(config(published, kind, remove_background="maybe"))
    with pytest.raises(ConfigError, match="size must be a whole number"):
        load_backbone(config(published, kind, size=0))
    with pytest.raises(ConfigError, match="foreground_ratio must lie in"):
        load_backbone(config(published, kind, foreground_ratio=2.0))


def test_pictures_are_prepared_as_published():
    triposr, openlrm = KINDS["triposr"], KINDS["openlrm"]
    assert (triposr.composite, triposr.resize, triposr.quantised) == (0.5, "antialiased", True)
    assert (openlrm.composite, openlrm.resize, openlrm.quantised) == (1.0, "bicubic", False)


@KIND
def test_codes_are_kept_on_disk_unless_told_otherwise(kind, published, tmp_path):
    for keep, files in ((False, 0), (True, 2)):
        of = LOAD[kind](str(published[kind]), keep_codes=keep, size=16)
        with torch.no_grad():
            of.scene(code(of))
        assert len(list((tmp_path / "cache" / "lrm").rglob("*.safetensors"))) == files


def test_the_plugin_offers_its_backbones():
    assert {"triposr", "openlrm", "tiny-lrm"} <= set(registry().names("backbone"))


def test_published_checkpoints_have_their_facts():
    for published in (TRIPOSR, OPENLRM):
        assert hub.HUB_ID.fullmatch(published.repo)
        assert published.size.endswith(" GB")
    assert TRIPOSR.licence == "MIT" and OPENLRM.licence == "CC-BY-NC-4.0"


def test_weights_of_half_precision_become_float32(tmp_path):
    folder = write_openlrm(tmp_path / "half")
    halves = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(halves, folder / "model.safetensors")
    of = load_openlrm(str(folder))
    assert all(p.dtype == torch.float32 for p in of.parameters())
    torch.testing.assert_close(of.model.pos_embed, small_openlrm().pos_embed, atol=1e-3, rtol=1e-3)


def test_a_folder_with_a_name_like_a_hub_id_is_the_folder(tmp_path, monkeypatch):
    write_triposr(tmp_path / "user" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *asked: pytest.fail(f"asked for {asked}"))
    assert is_the_small_one(load_triposr("user/model"), "triposr")


def test_pictures_that_would_fill_the_memory_are_refused(published):
    with pytest.raises(ConfigError, match=r"1 to 2048 pixels a side, got 100000"):
        load_triposr(str(published["triposr"]), size=100_000)
