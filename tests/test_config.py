"""A config survives its file, and refuses what no run can use, in one clear sentence."""

import dataclasses
import json

import pytest

from distill3d.config import SCHEMA, DistillConfig
from distill3d.errors import ConfigError

FULL = DistillConfig(
    commercial_ok=True,
    style="Portrait of a dwarf, «très» vieux",
    backbone="eg3d",
    weights="ffhq.safetensors",
    backbone_options={"psi": 0.7, "subjects": ("people/a.npz", "people/b.npz"), "low_memory": True},
    scorer="diffusers",
    scorer_weights="folder/of/weights",
    controlnets={"depth": "somebody/depth", "canny": "somebody/canny"},
    method="sds",
    options={"guidance_scale": 7.5, "t_range": (0.02, 0.5), "mirror": False, "grid": "raw"},
    anchors={"opacity": 0.1, "scene": 1.0},
    train="decoder",
    steps=40,
    batch=2,
    lr=1e-3,
    seed=7,
    warmup=5,
    clip=1.5,
    ema=0.99,
    save_every=10,
    keep=4,
    probe=3,
    stop_on_collapse=True,
    stop_identity=0.3,
    trackers=("tensorboard",),
    precision="bfloat16",
    fast="some/autoencoder",
    term_weights={"grid": 0.5},
    vram="8gb",
    split="views",
    device="cuda:1",
)


def changed(**values):
    """The text of a config with some entries replaced, as somebody may edit it."""
    return json.dumps({**json.loads(DistillConfig(style="zombie").to_json()), **values})


@pytest.mark.parametrize("config", [FULL, DistillConfig(style="zombie")], ids=["full", "default"])
def test_a_config_comes_back_from_its_file(config):
    again = DistillConfig.from_json(config.to_json())
    assert again == config
    assert again.to_json() == config.to_json()


def test_the_full_example_leaves_no_setting_at_its_default():
    """So that a setting which is not written, or not read back, cannot hide in the round trip."""
    default = DistillConfig(style="zombie")
    same = [f.name for f in dataclasses.fields(FULL) if getattr(FULL, f.name) == getattr(default, f.name)]
    assert same == []


def test_a_pair_among_the_options_is_a_tuple_again():
    assert DistillConfig.from_json(FULL.to_json()).options["t_range"] == (0.02, 0.5)
    assert isinstance(DistillConfig.from_json(FULL.to_json()).options["t_range"], tuple)


def test_the_file_is_sorted_text_that_names_its_version():
    text = FULL.to_json()
    assert text.endswith("}\n")
    assert json.loads(text)["schema"] == SCHEMA
    assert list(json.loads(text)) == sorted(json.loads(text))


def test_an_option_that_is_left_out_has_its_default_and_a_file_without_precision_means_float32():
    config = DistillConfig.from_json(json.dumps({"schema": SCHEMA, "style": "zombie"}))
    assert config == DistillConfig(style="zombie", precision="float32")


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.steps = 5


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", '"zombie"', "{}", '{"style": "zombie"}', "\x00", "[" * 100_000]
)
def test_damaged_text_is_said_to_be_damaged(text):
    with pytest.raises(ConfigError, match="damaged or was not written by distill3d"):
        DistillConfig.from_json(text)


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0, "1", None])
def test_another_version_is_named_beside_ours(schema):
    with pytest.raises(ConfigError, match=rf"version {schema}.* version {SCHEMA}"):
        DistillConfig.from_json(changed(schema=schema))


def test_a_newer_version_is_said_before_its_settings_are_looked_at():
    with pytest.raises(ConfigError, match="version"):
        DistillConfig.from_json(changed(schema=SCHEMA + 1, brightness=3))


def test_unknown_settings_are_all_named():
    with pytest.raises(ConfigError, match="brightness, colour"):
        DistillConfig.from_json(changed(colour="red", brightness=3))


@pytest.mark.parametrize("weight", [0, 0.5, 1e6])
def test_the_weight_of_an_anchor_is_any_number_from_0(weight):
    assert DistillConfig(style="zombie", anchors={"scene": weight}).anchors == {"scene": weight}


BAD = [
    ("style", ""),
    ("style", "  \n"),
    ("steps", 0),
    ("steps", -5),
    ("batch", 0),
    ("save_every", 0),
    ("lr", 0.0),
    ("lr", -1e-3),
    ("lr", float("nan")),
    ("lr", float("inf")),
    *(("anchors", {"scene": weight}) for weight in (-0.1, float("nan"), float("inf"), "1", True, None)),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_value_that_no_run_can_use_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        DistillConfig(**{"style": "zombie", name: value})
    with pytest.raises(ConfigError, match=name):  # and from a file that was edited
        DistillConfig.from_json(changed(**{name: value}))


@pytest.mark.parametrize("value", [1, 10_000])
def test_the_smallest_values_and_large_ones_are_taken(value):
    config = DistillConfig(style="zombie", steps=value, batch=value, save_every=value, lr=1e-12)
    assert (config.steps, config.batch, config.save_every) == (value, value, value)


WRONG_KIND = [
    ("style", None),
    ("style", 5),
    ("steps", "many"),
    ("batch", [2]),
    ("lr", "fast"),
    ("options", []),
    ("options", None),
    ("options", "guidance_scale=3"),
    ("anchors", []),
    ("anchors", None),
    ("anchors", "scene=1"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_KIND)
def test_a_value_of_the_wrong_kind_in_the_file_is_a_config_error(name, value):
    with pytest.raises(ConfigError, match=rf"{name} |damaged"):
        DistillConfig.from_json(changed(**{name: value}))


def test_a_file_without_a_style_is_a_config_error():
    with pytest.raises(ConfigError, match=r"style|damaged"):
        DistillConfig.from_json(json.dumps({"schema": SCHEMA}))
